package pack

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const units = top + "/deploy/systemd/"

func read(tb testing.TB, path string) string {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

// systemd finds nothing wrong with the unit, nor with the example of credentials.
func TestUnit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unit := filepath.Join(dir, "bridged.service")
	// It is not installed here.
	text := strings.ReplaceAll(read(t, units+"bridged.service"), "/usr/bin/bridged", bridged)
	write(t, unit, text)
	dropIn := unit + ".d"
	if err := os.Mkdir(dropIn, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dropIn, "credentials.conf"), read(t, units+"credentials.conf"))
	if out := run(t, "systemd-analyze", "verify", "--man=no", unit); out != "" {
		t.Error(out)
	}
	out := run(t, "systemd-analyze", "security", "--offline=true", "--threshold=15", unit)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	t.Log(lines[len(lines)-1])
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
}

// spared are calls that the unit refuses and bridged can do without: asking the kernel whether the clock is
// synchronised is the same call as setting it. Where that is refused bridged looks for the mark that systemd-timesyncd
// leaves.
var spared = []string{"adjtimex"}

// The unit's filter of system calls lets everything through that bridged does: an outage, storing, TLS.
func TestSystemCalls(t *testing.T) {
	t.Parallel()
	counts := filepath.Join(t.TempDir(), "counts")
	run(t, "strace", "-f", "-qq", "-c", "-U", "name", "-o", counts,
		bridged, "demo", "--for", "5s", "--listen", "127.0.0.1:0")
	sets := systemCallSets(t)
	var allowed []string
	for line := range strings.Lines(read(t, units+"bridged.service")) {
		rule, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		if !ok {
			continue
		}
		refused, deny := strings.CutPrefix(rule, "~")
		for set := range strings.FieldsSeq(refused) {
			for _, name := range expand(sets, set) {
				if deny {
					allowed = slices.DeleteFunc(allowed, func(other string) bool { return other == name })
				} else {
					allowed = append(allowed, name)
				}
			}
		}
	}
	used := 0
	for _, name := range strings.Fields(read(t, counts)) {
		if strings.HasPrefix(name, "-") || name == "syscall" || name == "total" {
			continue
		}
		used++
		if !slices.Contains(allowed, name) && !slices.Contains(spared, name) {
			t.Errorf("%s is used, and the unit does not allow it", name)
		}
	}
	for _, name := range []string{"fdatasync", "mmap", "accept4"} { // they were needed
		if !strings.Contains(read(t, counts), name) {
			t.Errorf("%s was not used: this proves little", name)
		}
	}
	if len(allowed) < 200 || used < 30 {
		t.Errorf("%d calls allowed, %d used", len(allowed), used)
	}
}

// systemCallSets are systemd's sets of system calls, by name.
func systemCallSets(tb testing.TB) map[string][]string {
	tb.Helper()
	sets, set := make(map[string][]string), ""
	for s := bufio.NewScanner(strings.NewReader(run(tb, "systemd-analyze", "syscall-filter"))); s.Scan(); {
		word := strings.TrimSpace(s.Text())
		switch {
		case word == "" || strings.HasPrefix(word, "#"):
		case !strings.HasPrefix(s.Text(), " "):
			set = word
		default:
			sets[set] = append(sets[set], word)
		}
	}
	return sets
}

func expand(sets map[string][]string, set string) (calls []string) {
	for _, name := range sets[set] {
		if strings.HasPrefix(name, "@") {
			calls = append(calls, expand(sets, name)...)
		} else {
			calls = append(calls, name)
		}
	}
	return calls
}
