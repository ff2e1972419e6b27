package bridge

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bridged/internal/cloudsim"
)

// More devices than the process may have connections for are complained of before they come, also when a reload adds
// them.
func TestTooFewFiles(t *testing.T) {
	const allowed = 300
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	less := before
	less.Cur = allowed
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &less); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	})
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	yaml := func(devices int) string {
		var more strings.Builder
		for i := range devices - 1 {
			fmt.Fprintf(&more, "  - {name: dev%d, cloud: lab, login: {username: u, password: p}}\n", i)
		}
		return genericYAML(c, "") + more.String()
	}
	r := run(t, yaml((allowed-spareFiles)/2))
	told := func() int {
		return r.logs.FilterMessageSnippet("files open").Len()
	}
	if told() != 0 {
		t.Error("complained of enough files")
	}
	if _, err := r.bridge.Reload(t.Context(), load(t, r.dir, yaml((allowed-spareFiles)/2+1))); err != nil {
		t.Fatal(err)
	}
	if told() != 1 {
		t.Errorf("told %d times after a reload", told())
	}
	r = runIn(t, t.TempDir(), yaml((allowed-spareFiles)/2+1))
	until(t, "it is told at the start", func() bool { return told() == 1 })
}
