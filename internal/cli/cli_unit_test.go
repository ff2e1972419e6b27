package cli

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

func noEnv(string) (string, bool) { return "", false }

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestFailedWriteFails(t *testing.T) {
	for _, args := range [][]string{
		{"version"}, {"version", "--json"}, {"help"}, {"--help"}, {"completion", "bash"},
	} {
		var stderr bytes.Buffer
		code := Run(context.Background(), args, strings.NewReader(""), fullDisk{}, &stderr, noEnv)
		if code != exitFailed || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%q: status %d, %q", args, code, stderr.String())
		}
	}
}

// An empty command line must not become the process's own, which is what cobra makes of nil.
func TestNilArguments(t *testing.T) {
	own := os.Args
	defer func() { os.Args = own }()
	os.Args = []string{"bridged", "frobnicate"}
	var stdout, stderr bytes.Buffer
	if code := Run(context.Background(), nil, strings.NewReader(""), &stdout, &stderr, noEnv); code != exitOK {
		t.Errorf("status %d, %q", code, stderr.String())
	}
}

func TestEnvironmentIsTheGivenOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	const text = `
clouds:
  lab: {provider: generic, url: "ws://127.0.0.1:1"}
devices:
  - {name: press, login: {anonymous: true}, username: press, password: {env: PRESS_PASSWORD}}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(name string) (string, bool) { return "from-" + name, true }
	var stdout, stderr bytes.Buffer
	args := []string{"sign", "press", "--reveal", "-c", file}
	if code := Run(context.Background(), args, strings.NewReader(""), &stdout, &stderr, env); code != exitOK {
		t.Errorf("status %d, %q", code, stderr.String())
	}
	if !strings.Contains(stdout.String(), "from-PRESS_PASSWORD") {
		t.Errorf("got %q", stdout.String())
	}
}

func TestEveryCommandIsExplained(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" || c.Example == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		if c.Args == nil {
			t.Errorf("%s: does not check its arguments", c.CommandPath())
		}
		for _, line := range strings.Split(c.Long+"\n"+c.Example, "\n") {
			if len(line) > 120 {
				t.Errorf("%s: a line of %d columns: %s", c.CommandPath(), len(line), line)
			}
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	root := newRoot(&options{lookupEnv: noEnv})
	root.InitDefaultHelpCmd()
	visit(root)
}

func TestReportPrintsOneLine(t *testing.T) {
	var w bytes.Buffer
	lines := errors.Join(errors.New("first"), errors.New("second"))
	if code := report(&w, failed(lines, "do\r\nthis\n")); code != exitFailed {
		t.Errorf("status %d", code)
	}
	if want := "error: first; second\nhint: do; this\n"; w.String() != want {
		t.Errorf("got %q, want %q", w.String(), want)
	}
}

func TestUnreadableConfigurationHints(t *testing.T) {
	tests := []struct {
		err  error
		hint string
	}{
		{fs.ErrNotExist, "config.example.yaml"},
		{fs.ErrPermission, "as a user who may read it"},
		{errors.New("is a directory"), "another file with -c"},
	}
	for _, tt := range tests {
		var w bytes.Buffer
		if code := report(&w, badConfig(tt.err)); code != exitUsage || !strings.Contains(w.String(), tt.hint) {
			t.Errorf("%v: status %d, %q", tt.err, code, w.String())
		}
	}
}

func TestReadBuild(t *testing.T) {
	info := &debug.BuildInfo{
		Main: debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-11-22T05:00:00Z"},
			{Key: "vcs.modified", Value: "true"}, {Key: "GOARCH", Value: "arm"},
		},
	}
	var w bytes.Buffer
	readBuild(info).print(&w)
	if want := "bridged v1.2.3\nrevision abc (2026-11-22T05:00:00Z, modified)\ngo"; !strings.HasPrefix(w.String(), want) {
		t.Errorf("got %q, want %q...", w.String(), want)
	}
	if b := readBuild(nil); b.Version != "(devel)" || b.Revision != "" {
		t.Errorf("without build information: %+v", b)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"pump-1", "pump-2", "pump-10", "boiler"}
	for name, want := range map[string][]string{
		"pump-3":  {"pump-1", "pump-2"},
		"Boiler":  {"boiler"},
		"boi":     {"boiler"},
		"bolier":  {"boiler"},
		"turbine": nil,
	} {
		if diff := cmp.Diff(want, nearest(name, known)); diff != "" {
			t.Errorf("nearest(%q), -want +got:\n%s", name, diff)
		}
	}
	if got := nearest("pump", []string{"pump-1", "pump-2", "pump-3", "pump-4"}); len(got) != 3 {
		t.Errorf("too many suggestions: %q", got)
	}
}
