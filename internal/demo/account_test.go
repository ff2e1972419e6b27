package demo

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
)

func newAccount(style Style) (*account, *screen) {
	s := new(screen)
	return &account{style: style, device: 8, cloud: 10, w: s}, s
}

// Lines have their columns at the same place, whatever they are about, and whatever the style.
func TestColumns(t *testing.T) {
	for name, style := range map[string]Style{"UTF-8": {}, "ASCII": {ASCII: true}} {
		t.Run(name, func(t *testing.T) {
			a, s := newAccount(style)
			a.acknowledged("boiler-1", up, "aliyun wss", "telemetry", []byte(`{"n":1}`), 1200*time.Microsecond)
			a.acknowledged("pump-7", down, "tencent ws", "command", []byte(`{"n":100000}`), 3*time.Second)
			for _, m := range []mark{online, offline, event, local} {
				a.print(line{device: "pump-7", mark: m, cloud: "lab wss", text: "telemetry"})
			}
			lines := strings.Split(strings.TrimSpace(s.String()), "\n")
			want := column(lines[0], "telemetry")
			for _, l := range append(lines[2:], strings.Replace(lines[1], "command  ", "telemetry", 1)) {
				if got := column(l, "telemetry"); got != want {
					t.Errorf("column %d, want %d: %s", got, want, l)
				}
			}
			if a, b := column(lines[0], "PUBACK"), column(lines[1], "PUBACK"); a != b {
				t.Errorf("columns %d and %d in:\n%s", a, b, s)
			}
			holds(t, s.String(), `^\d\d:\d\d:\d\d\.\d{3} boiler-1 \S+ aliyun wss telemetry \{"n":1\} +PUBACK 1.2 ms$`)
			if style.ASCII && strings.ContainsFunc(s.String(), func(r rune) bool { return r >= utf8.RuneSelf }) {
				t.Errorf("not ASCII:\n%s", s)
			}
			lacks(t, s.String(), "\x1b")
		})
	}
}

// column is where a word begins.
func column(line, word string) int {
	before, _, _ := strings.Cut(line, word)
	return utf8.RuneCountInString(before)
}

func TestColour(t *testing.T) {
	a, s := newAccount(Style{Colour: true})
	a.print(line{device: "fault", mark: event, text: "lost", tone: bad})
	holds(t, s.String(), `\x1b\[1;31mlost\x1b\[0m`)
	a.acknowledged("pump-7", up, "tencent ws", "telemetry", nil, lateAfter)
	holds(t, s.String(), `\x1b\[36mpump-7   → tencent ws\x1b\[0m`, `\x1b\[33mPUBACK 500 ms\x1b\[0m`)
}

func TestASCIIText(t *testing.T) {
	a, s := newAccount(Style{ASCII: true})
	a.text("device ──tcp──▶ bridge → cloud ←")
	if got, want := s.String(), "device --tcp--> bridge -> cloud <-"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPrintable(t *testing.T) {
	for payload, want := range map[string]string{
		"hello":                         "hello",
		"größer":                        "größer",
		"a\nb\x1b[31mc\x00":             "a.b.[31mc.",
		"\xff\xfe":                      ".",
		strings.Repeat("x", 60):         strings.Repeat("x", 60),
		strings.Repeat("é", maxShown+1): strings.Repeat("é", maxShown) + "... (122 bytes)",
	} {
		if got := printable([]byte(payload)); got != want {
			t.Errorf("%q: %q, want %q", payload, got, want)
		}
	}
}

func TestTook(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 ms", 340 * time.Microsecond: "0.3 ms", 12400 * time.Microsecond: "12 ms", 999 * time.Millisecond: "999 ms",
		4250 * time.Millisecond: "4.2 s", 90 * time.Second: "90.0 s",
	} {
		if got := took(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestLogLines(t *testing.T) {
	say := func(log *zap.Logger) {
		log = log.With(zap.String("device", "pump-7"), zap.String("cloud", "tencent"))
		log.Debug("never")
		log.Info("state", zap.String("state", "online"))
		log.Warn("no session", zap.Int("attempt", 2), zap.String("reason", "the cloud is away"),
			zap.Error(errors.New("refused")))
		log.Error("something else")
	}
	a, s := newAccount(Style{})
	say(zap.New(newLogCore(a, false)))
	holds(t, s.String(), `pump-7 +bridge +warn: the cloud is away$`, `pump-7 +bridge +error: something else$`)
	lacks(t, s.String(), "never|online|attempt")

	a, s = newAccount(Style{})
	say(zap.New(newLogCore(a, true)))
	holds(t, s.String(), `info: state state=online$`, `warn: no session attempt=2 reason=the cloud is away error=refused$`)
	lacks(t, s.String(), "never")
}
