package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go/parser"
	"go/token"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const module = "bridged/"

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Deps", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}

// forbidden lists what a package must not depend on, directly or by way of others.
var forbidden = map[string][]string{
	"internal/mqtt":        {"internal/"},
	"internal/netconn":     {"internal/"},
	"internal/credentials": {"internal/"},
	"internal/failure":     {"internal/"},
	"internal/clock":       {"internal/"},
	"internal/pulse":       {"internal/"},
	"internal/reference":   {"internal/"},
	"internal/systemd": {
		"internal/broker", "internal/upstream", "internal/lane", "internal/bridge", "internal/config", "internal/transport",
	},
	"internal/governor": {
		"internal/broker", "internal/upstream", "internal/lane", "internal/bridge", "internal/config", "internal/transport",
		"internal/clock", "internal/failure",
	},
	"internal/transport": {
		"internal/broker", "internal/upstream", "internal/lane", "internal/bridge", "internal/config", "internal/governor",
		"internal/clock", "internal/mqtt",
	},
	"internal/wire": {
		"internal/broker", "internal/upstream", "internal/lane", "internal/bridge", "internal/config", "internal/governor",
		"internal/clock", "internal/mqtt",
	},
	"internal/doctor": {"internal/cloudsim", "internal/cli"},
	"internal/enroll": {"internal/broker", "internal/upstream", "internal/lane", "internal/bridge"},
	"internal/topicmap": {
		"internal/broker", "internal/upstream", "internal/lane", "internal/bridge", "internal/config",
	},
	"internal/lane": {
		"internal/broker", "internal/upstream", "internal/bridge", "internal/config", "internal/credentials",
	},
	"internal/broker": {
		"internal/upstream", "internal/bridge", "internal/config", "internal/credentials", "internal/cloudsim",
	},
	"internal/upstream": {"internal/broker", "internal/bridge", "internal/config", "internal/cloudsim"},
	"internal/config":   {"internal/broker", "internal/upstream", "internal/lane", "internal/bridge"},
	"internal/bridge":   {"internal/cloudsim", "internal/cli", "internal/admin"},
	"internal/admin":    {"internal/cloudsim", "internal/cli", "internal/control", "internal/demo"},
	"internal/control":  {"internal/"},
	// The simulated clouds check signatures by code of their own: shared code would hide shared bugs.
	"internal/cloudsim": {
		"internal/credentials", "internal/broker", "internal/upstream", "internal/lane", "internal/bridge", "internal/config",
	},
}

// allowed are exceptions from forbidden.
var allowed = map[string]string{"internal/topicmap": "internal/mqtt", "internal/netconn": "internal/pulse"}

func TestDependencies(t *testing.T) {
	seen := 0
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		rules, ok := forbidden[name]
		if !ok {
			continue
		}
		seen++
		for _, dep := range p.Deps {
			dep, ours := strings.CutPrefix(dep, module)
			if !ours || allowed[name] == dep {
				continue
			}
			for _, bad := range rules {
				if dep == bad || strings.HasSuffix(bad, "/") && strings.HasPrefix(dep, bad) {
					t.Errorf("%s depends on %s", name, dep)
				}
			}
		}
	}
	if seen != len(forbidden) {
		t.Errorf("%d of %d packages with rules exist", seen, len(forbidden))
	}
}

// The simulated clouds are for tests, demo and sim only, and test code stays out of the program.
func TestProgramHasNoTestCode(t *testing.T) {
	for _, p := range list(t) {
		if slices.Contains(p.Imports, "testing") && p.ImportPath != module+"internal/testdevice" {
			t.Errorf("%s imports testing", p.ImportPath)
		}
		if p.ImportPath == module+"cmd/bridged" && slices.Contains(p.Deps, "testing") {
			t.Error("the program contains package testing")
		}
	}
}

func TestOnePackageComment(t *testing.T) {
	for _, p := range list(t) {
		comments := 0
		for _, f := range p.GoFiles {
			path := filepath.Join(p.Dir, f)
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil {
				comments++
			}
		}
		if len(p.GoFiles) > 0 && comments != 1 {
			t.Errorf("%s has %d package comments, want 1", p.ImportPath, comments)
		}
	}
}

func TestOnlyMainExits(t *testing.T) {
	mayExit := []string{
		module + "cmd/bridged", module + "cmd/gendocs", module + "bench", module + "bench/tunnel",
		module + "internal/testdevice",
	}
	for _, p := range list(t) {
		if slices.Contains(mayExit, p.ImportPath) {
			continue
		}
		for _, f := range p.GoFiles {
			path := filepath.Join(p.Dir, f)
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, bad := range []string{"os.Exit(", "log.Fatal", ".Fatal(\""} {
				if strings.Contains(string(src), bad) {
					t.Errorf("%s contains %s", path, bad)
				}
			}
		}
	}
}
