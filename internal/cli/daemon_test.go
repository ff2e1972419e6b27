package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"bridged/internal/bridge"
	"bridged/internal/cloudsim"
	"bridged/internal/config"
	"bridged/internal/demo"
)

// A cloud that acknowledges messages and loses them makes the demo fail, and so would a bridge.
func TestDemoExitsWithFaults(t *testing.T) {
	o := &options{lookupEnv: noEnv}
	root := newRoot(o)
	for _, c := range root.Commands() {
		if c.Name() == "demo" {
			root.RemoveCommand(c)
		}
	}
	root.AddCommand(newDemo(o, func(d *demo.Options) {
		d.Drain = 200 * time.Millisecond
		d.Tamper = func(name string, c *cloudsim.Options) {
			if name == "aliyun" {
				rules := cloudsim.RulesFor(c.Kind)
				rules.Uplink, rules.DropExcess = cloudsim.Rate{Count: 1, Per: time.Hour}, true
				c.Rules = &rules
			}
		}
	}))
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetArgs([]string{"demo", "--for", "1s", "--listen", "127.0.0.1:0"})
	if status := report(&stderr, root.ExecuteContext(context.Background())); status != exitFailed {
		t.Errorf("status %d", status)
	}
	if want := "message 2 was lost: acknowledged, and never arrived"; !strings.Contains(stdout.String(), want) {
		t.Errorf("no %q in:\n%s", want, stdout.String())
	}
	if !strings.HasPrefix(stderr.String(), "error: the demo found ") {
		t.Errorf("%q", stderr.String())
	}
}

func TestUntilSignal(t *testing.T) {
	self := func(s syscall.Signal) {
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Error(err)
		}
	}
	t.Run("the end of the function", func(t *testing.T) {
		want := errors.New("its error")
		err := untilSignal(context.Background(), endings, func(context.Context) error { return want })
		if !errors.Is(err, want) {
			t.Error(err)
		}
	})
	t.Run("the end of the context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		err := untilSignal(ctx, endings, func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE} {
		t.Run("a signal: "+s.String(), func(t *testing.T) {
			err := untilSignal(context.Background(), terminalEndings, func(ctx context.Context) error {
				self(s)
				<-ctx.Done()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("a second signal", func(t *testing.T) {
		stuck, gone := make(chan struct{}), make(chan struct{})
		err := untilSignal(context.Background(), terminalEndings, func(ctx context.Context) error {
			defer close(gone)
			self(syscall.SIGTERM)
			<-ctx.Done()
			self(syscall.SIGPIPE) // is none
			self(syscall.SIGINT)
			<-stuck
			return nil
		})
		if !errors.Is(err, errSecondSignal) {
			t.Error(err)
		}
		close(stuck)
		<-gone
	})
}

func TestExplainStart(t *testing.T) {
	listening := func(port int, cause syscall.Errno) error {
		return fmt.Errorf("listen on it: %w", &net.OpError{
			Op: "listen", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4zero, Port: port}, Err: os.NewSyscallError("bind", cause),
		})
	}
	file := func(cause error) error {
		return fmt.Errorf("state_dir: %w", &fs.PathError{Op: "mkdir", Path: "/var/lib/bridged", Err: cause})
	}
	for _, test := range []struct {
		name string
		err  error
		hint string // its beginning
	}{
		{"port in use", listening(1883, syscall.EADDRINUSE),
			"choose another port, or see who has this one: ss -ltnp 'sport = :1883'"},
		{"privileged port", listening(883, syscall.EACCES),
			"ports below 1024 need a privilege: choose 1883, or write AmbientCapa"},
		{"forbidden port", listening(1883, syscall.EACCES), ""},
		{"foreign address", listening(1883, syscall.EADDRNOTAVAIL), "this machine has no such address"},
		{"not allowed", file(syscall.EACCES), "let "},
		{"no directory", file(syscall.ENOTDIR), "a file is where a directory is needed"},
		{"read-only", file(syscall.EROFS), "the file system is read-only"},
		{"full", file(syscall.ENOSPC), "make room on that file system"},
		{"locked", fmt.Errorf("state_dir x: %w", bridge.ErrLocked), "stop that process first"},
		{"anything else", errors.New("anything else"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := explainStart(test.err)
			var stderr bytes.Buffer
			if status := report(&stderr, err); status != exitFailed || !errors.Is(err, test.err) {
				t.Errorf("status %d, %v", status, err)
			}
			_, hint, found := strings.Cut(stderr.String(), "\nhint: ")
			if found != (test.hint != "") || !strings.HasPrefix(hint, test.hint) {
				t.Errorf("hint %q, want %q", hint, test.hint)
			}
		})
	}
	if explainStart(nil) != nil {
		t.Error("an error of nothing")
	}
	if err := misused(errors.New("x"), "y"); explainStart(fmt.Errorf("z: %w", err)).Error() != "z: x" {
		t.Error("an explained error is explained again")
	}
}

func TestLogger(t *testing.T) {
	say := func(c config.Log) string {
		var b bytes.Buffer
		log := newLogger(&b, c.JSON, c.Level, false)
		log.Debug("hidden")
		log.Info("state", zap.String("device", "pump-7"), zap.Duration("backoff", 1500*time.Millisecond))
		return b.String()
	}
	var line struct {
		Time                        time.Time
		Level, Msg, Device, Backoff string
	}
	text := say(config.Log{Level: zapcore.InfoLevel, JSON: true})
	if err := json.Unmarshal([]byte(text), &line); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	if line.Level != "info" || line.Msg != "state" || line.Device != "pump-7" || line.Backoff != "1.5s" {
		t.Errorf("%q", text)
	}
	if time.Since(line.Time) > patience {
		t.Errorf("the time is not now: %q", text)
	}
	want := "\tinfo\tstate\t" + `{"device": "pump-7", "backoff": "1.5s"}` + "\n"
	if text := say(config.Log{Level: zapcore.InfoLevel}); !strings.HasSuffix(text, want) {
		t.Errorf("%q", text)
	}
	if text := say(config.Log{Level: zapcore.WarnLevel, JSON: true}); text != "" {
		t.Errorf("%q", text)
	}
}

func TestStyle(t *testing.T) {
	env := func(pairs ...string) LookupEnv {
		return func(name string) (string, bool) {
			for _, p := range pairs {
				if key, value, _ := strings.Cut(p, "="); key == name {
					return value, true
				}
			}
			return "", false
		}
	}
	for _, test := range []struct {
		env  LookupEnv
		want demo.Style
	}{
		{env("TERM=xterm", "LANG=C.UTF-8"), demo.Style{Colour: true}},
		{env("TERM=xterm", "LANG=de_DE.utf8"), demo.Style{Colour: true}},
		{env("TERM=xterm"), demo.Style{Colour: true, ASCII: true}},
		{env("TERM=xterm", "LANG=de_DE.UTF-8", "LC_ALL=C"), demo.Style{Colour: true, ASCII: true}},
		{env("TERM=xterm", "LANG=C", "LC_CTYPE=de_DE.UTF-8"), demo.Style{Colour: true}},
		{env("TERM=dumb", "LANG=C.UTF-8"), demo.Style{}},
		{env("TERM=xterm", "LANG=C.UTF-8", "NO_COLOR=1"), demo.Style{}},
	} {
		if got := terminalStyle(test.env); got != test.want {
			t.Errorf("%+v, want %+v", got, test.want)
		}
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if got := styleOf(&output{w: file}, env("TERM=xterm")); got != (demo.Style{}) {
		t.Errorf("a file gets %+v", got)
	}
}
