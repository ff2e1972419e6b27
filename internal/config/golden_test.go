package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is found into the golden files")

// Each archive is a configuration with its files, and the file "want" with the problems it must give, one a line. Lines
// of its comment are "chmod MODE FILE" and "env NAME=VALUE"; other files are private to their owner. "$DIR" stands for
// the directory.

// TestFaults has one fault in each archive, unless its name begins with "several".
func TestFaults(t *testing.T) {
	golden(t, "testdata/faults/*.txtar", func(t *testing.T, name string, c *Config, err error) []Problem {
		var faults Faults
		if !errors.As(err, &faults) {
			t.Fatalf("the error is %v, want Faults", err)
		}
		if c != nil {
			t.Error("a configuration came with the faults")
		}
		if several := strings.HasPrefix(filepath.Base(name), "several"); several == (len(faults) == 1) {
			t.Errorf("%d faults", len(faults))
		}
		return faults
	})
}

// TestWarnings has configurations that are accepted with warnings.
func TestWarnings(t *testing.T) {
	golden(t, "testdata/warnings/*.txtar", func(t *testing.T, _ string, c *Config, err error) []Problem {
		if err != nil {
			t.Fatal(err)
		}
		return c.Warnings
	})
}

func golden(t *testing.T, pattern string, problems func(*testing.T, string, *Config, error) []Problem) {
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no archives %s: %v", pattern, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir, env, want := unpack(t, a)
			c, err := Load(filepath.Join(dir, "config.yaml"), envOf(env))
			var got strings.Builder
			for _, p := range problems(t, name, c, err) {
				if p.File == "" || p.Line < 1 || p.Column < 1 || p.What == "" {
					t.Errorf("no position or text: %+v", p)
				}
				if strings.Contains(p.String(), "hunter") { // what the archives have for secrets
					t.Errorf("shows a secret: %s", p)
				}
				got.WriteString(strings.ReplaceAll(p.String(), dir, "$DIR") + "\n")
			}
			if want.Data == nil || string(want.Data) == got.String() {
				return
			}
			if *update {
				want.Data = []byte(got.String())
				if err := os.WriteFile(name, txtar.Format(a), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("got:\n%swant:\n%s", got.String(), want.Data)
		})
	}
}

// unpack writes an archive's files and returns what else it says.
func unpack(t *testing.T, a *txtar.Archive) (dir string, env map[string]string, want *txtar.File) {
	t.Helper()
	files := make(map[string]string)
	for i := range a.Files {
		if f := &a.Files[i]; f.Name == "want" {
			want = f
		} else {
			files[f.Name] = string(f.Data)
		}
	}
	if want == nil {
		t.Fatal("the archive has no file want")
	}
	dir, env = writeFiles(t, files), make(map[string]string)
	for line := range strings.Lines(string(a.Comment)) {
		switch words := strings.SplitN(strings.TrimSpace(line), " ", 3); words[0] {
		case "chmod":
			mode := os.FileMode(0)
			for _, c := range words[1] {
				mode = mode<<3 | os.FileMode(c-'0')
			}
			if err := os.Chmod(filepath.Join(dir, words[2]), mode); err != nil {
				t.Fatal(err)
			}
		case "env":
			name, value, _ := strings.Cut(words[1], "=")
			env[name] = strings.ReplaceAll(value, "$DIR", dir)
		default:
			t.Fatalf("unknown line in the comment: %q", line)
		}
	}
	return dir, env, want
}
