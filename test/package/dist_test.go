package pack

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// maxSize is the most that the program may have, in bytes.
const maxSize = 20 << 20

// dist makes what is released for amd64, once for all tests, and returns the directory.
var dist = func() func(tb testing.TB) string {
	var made string
	var once sync.Once
	return func(tb testing.TB) string {
		tb.Helper()
		once.Do(func() {
			dir := filepath.Join(filepath.Dir(bridged), "dist")
			makeDist(tb, top, dir)
			made = dir
		})
		if made == "" {
			tb.Fatal("there is no release")
		}
		return made
	}
}()

// makeDist runs scripts/dist of a source tree.
func makeDist(tb testing.TB, tree, dir string, env ...string) {
	tb.Helper()
	nfpm := os.Getenv("NFPM")
	if nfpm == "" {
		tool, err := filepath.Glob(top + "/.cache/nfpm-*/nfpm")
		if err != nil || len(tool) == 0 {
			tb.Fatal(`there is no nfpm: run "make setup"`)
		}
		if nfpm, err = filepath.Abs(tool[len(tool)-1]); err != nil {
			tb.Fatal(err)
		}
	}
	cmd := exec.CommandContext(within(tb), "sh", "-c", "umask 077; exec scripts/dist amd64")
	cmd.Dir = tree
	cmd.Env = append(append(os.Environ(), "DIST="+dir, "NFPM="+nfpm), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
}

// find returns the only file in dir that matches.
func find(tb testing.TB, dir, pattern string) string {
	tb.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		tb.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

func TestBinary(t *testing.T) {
	t.Parallel()
	dir := dist(t)
	path := find(t, dir, "bridged-*-linux-amd64")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() > maxSize {
		t.Errorf("%d bytes, at most %d", info.Size(), maxSize)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Error("not stripped")
	}
	if f.Section(".interp") != nil {
		t.Error("not static")
	}
	revision := strings.TrimSpace(run(t, "git", "-C", top, "rev-parse", "HEAD"))
	version := run(t, path, "version")
	if !strings.Contains(version, "revision "+revision+" (20") || strings.Contains(version, "(devel)") {
		t.Errorf("version %q, at %s", version, revision)
	}
	check := exec.CommandContext(within(t), "sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil || strings.Count(string(out), ": OK") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
}

// Another directory, time zone, locale and umask make no difference.
func TestReproducible(t *testing.T) {
	t.Parallel()
	first, second := dist(t), t.TempDir()
	tree := filepath.Join(t.TempDir(), "elsewhere")
	run(t, "git", "clone", "--quiet", "--shared", top, tree)
	// What is not committed, or removed, is so there as well.
	run(t, "bash", "-c", `cd "$1" && git ls-files -z --cached --others --exclude-standard |
		while IFS= read -r -d "" f; do if [ -e "$f" ]; then printf "%s\0" "$f"; else rm -f "$2/$f"; fi; done |
		tar --null -T - -cf - | tar -xf - -C "$2"`, "bash", top, tree)
	makeDist(t, tree, second, "TZ=Asia/Shanghai", "LC_ALL=de_DE.UTF-8", "LANG=de_DE.UTF-8")
	sums := func(dir string) string { return read(t, filepath.Join(dir, "SHA256SUMS")) }
	if a, b := sums(first), sums(second); a != b || len(a) < 3*64 {
		t.Errorf("first\n%ssecond\n%s", a, b)
	}
}

func TestRPM(t *testing.T) {
	t.Parallel()
	path := find(t, dist(t), "*.x86_64.rpm")
	files := strings.Fields(run(t, "rpm", "-qlp", path))
	for _, want := range []string{
		"/usr/bin/bridged", "/usr/lib/systemd/system/bridged.service", "/usr/lib/sysusers.d/bridged.conf",
		"/usr/lib/tmpfiles.d/bridged.conf", "/usr/share/man/man1/bridged.1.gz",
		"/usr/share/bash-completion/completions/bridged", "/usr/share/zsh/site-functions/_bridged",
		"/usr/share/fish/vendor_completions.d/bridged.fish", "/usr/share/doc/bridged/configuration.md",
		"/usr/share/doc/bridged/examples/config.yaml", "/usr/share/licenses/bridged/LICENSE",
	} {
		if !strings.Contains(" "+strings.Join(files, " ")+" ", " "+want+" ") {
			t.Errorf("no %s", want)
		}
	}
	if out := run(t, "rpm", "-K", "--nosignature", path); !strings.Contains(out, "digests OK") {
		t.Error(out)
	}
	scripts := run(t, "rpm", "-qp", "--qf", "%{POSTIN}\n%{PREUN}\n%{POSTUN}\n", path)
	if strings.Contains(scripts, "(none)") {
		t.Errorf("scripts are missing:\n%s", scripts)
	}
	run(t, "sh", "-n", "-c", scripts)
}
