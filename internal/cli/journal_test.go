package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// To the journal each line begins with its priority, in both formats.
func TestPriorities(t *testing.T) {
	for _, json := range []bool{true, false} {
		var b bytes.Buffer
		log := newLogger(&b, json, zapcore.DebugLevel, true).With(zap.String("device", "a"))
		log.Debug("one")
		log.Info("two")
		log.Warn("three")
		log.Error("four")
		var got []string
		for line := range strings.Lines(b.String()) {
			got = append(got, line[:3])
			if json != strings.HasPrefix(line[3:], "{") || !strings.Contains(line, "device") {
				t.Errorf("%q", line)
			}
		}
		if want := "<7> <6> <4> <3>"; strings.Join(got, " ") != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestIsJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	env := func(value string) LookupEnv {
		return func(name string) (string, bool) { return value, name == "JOURNAL_STREAM" && value != "" }
	}
	this := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	if !isJournal(f, env(this)) {
		t.Error("the journal's stream is not recognised")
	}
	if isJournal(f, env("")) || isJournal(f, env("1"+this)) || isJournal(new(bytes.Buffer), env(this)) {
		t.Error("something else is taken for the journal")
	}
}
