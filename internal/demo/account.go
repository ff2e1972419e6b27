package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Style is how to print.
type Style struct {
	// Colour is for terminals.
	Colour bool
	// ASCII leaves out every character that a terminal without UTF-8 cannot show.
	ASCII bool
}

// tone is a colour, by what it says.
type tone string

const (
	plain tone = ""
	dim   tone = "2"
	bold  tone = "1"
	good  tone = "32" // green
	upper tone = "36" // cyan
	lower tone = "35" // magenta
	alarm tone = "33" // yellow
	bad   tone = "1;31"
)

// mark stands between a device and its cloud and says what a line is about.
type mark string

const (
	up      mark = "→"
	down    mark = "←"
	online  mark = "+"
	offline mark = "-"
	event   mark = "!"
	local   mark = " "
)

// account prints one line per event. Its methods may be called from any goroutine.
type account struct {
	style  Style
	device int // widths of the columns
	cloud  int

	mu sync.Mutex // protects the following field, and the order of lines
	w  io.Writer
}

// line is one event.
type line struct {
	device string
	mark   mark
	cloud  string
	text   string
	tone   tone // of the text
}

const clock = "15:04:05.000"

func (a *account) print(l line) {
	subject := fmt.Sprintf("%s %s %s", pad(l.device, a.device), a.mark(l.mark), pad(l.cloud, a.cloud))
	tones := map[mark]tone{up: upper, down: lower, online: good, offline: alarm, event: alarm}
	if l.device == "" {
		tones[l.mark] = l.tone
	}
	now := time.Now().Format(clock)
	a.write(a.paint(dim, now) + " " + a.paint(tones[l.mark], subject) + " " + a.paint(l.tone, l.text) + "\n")
}

// message prints a message and what became of it, in columns.
func (a *account) message(device string, dir mark, cloud, kind string, payload []byte, outcome string, t tone) {
	text := fmt.Sprintf("%s %s", pad(kind, 9), pad(printable(payload), 20))
	a.print(line{device: device, mark: dir, cloud: cloud, text: text + " " + a.paint(t, outcome)})
}

// lateAfter is how long a message may be unacknowledged before that is worth a line.
const lateAfter = 500 * time.Millisecond

// acknowledged prints a message that its receiver acknowledged, and how soon.
func (a *account) acknowledged(device string, dir mark, cloud, kind string, payload []byte, after time.Duration) {
	t := dim
	if after >= lateAfter {
		t = alarm
	}
	a.message(device, dir, cloud, kind, payload, "PUBACK "+took(after), t)
}

// text prints text as it is.
func (a *account) text(s string) {
	if a.style.ASCII {
		s = asciiOnly.Replace(s)
	}
	a.write(s)
}

func (a *account) write(s string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = io.WriteString(a.w, s) // whoever gave the writer learns of its errors
}

func (a *account) paint(t tone, s string) string {
	if t == plain || !a.style.Colour {
		return s
	}
	return "\x1b[" + string(t) + "m" + s + "\x1b[0m"
}

var (
	asciiOnly  = strings.NewReplacer("→", "->", "←", "<-", "─", "-", "▶", ">")
	asciiMarks = map[mark]string{up: "->", down: "<-"}
)

// mark returns a mark in as many columns as every other.
func (a *account) mark(m mark) string {
	if !a.style.ASCII {
		return string(m)
	}
	if s, ok := asciiMarks[m]; ok {
		return s
	}
	return string(m) + " "
}

// pad fills s with spaces to a width.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-len([]rune(s))))
}

const maxShown = 60 // characters of a payload

// printable is a payload for a terminal: without control characters, and not too long.
func printable(payload []byte) string {
	s := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, strings.ToValidUTF8(string(payload), "."))
	if r := []rune(s); len(r) > maxShown {
		return fmt.Sprintf("%s... (%d bytes)", string(r[:maxShown]), len(payload))
	}
	return s
}

// took is a duration for people.
func took(d time.Duration) string {
	switch ms := d.Seconds() * 1000; {
	case ms >= 1000:
		return fmt.Sprintf("%.1f s", ms/1000)
	case ms >= 10:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.1f ms", ms)
	}
}
