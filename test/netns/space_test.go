package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// network is the namespaces of a test, and the links between them.
type network struct {
	tb     testing.TB
	number int32
	links  int
}

var networks atomic.Int32

func root() bool { return os.Getuid() == 0 }

func newNetwork(tb testing.TB) *network {
	tb.Helper()
	if !root() {
		tb.Skip("network namespaces and TUN interfaces can be made by root only: run this as root")
	}
	return &network{tb: tb, number: networks.Add(1)}
}

// space is a network namespace. Nothing leads out of it but links.
type space struct {
	tb   testing.TB
	name string
}

const (
	// spacesDir is where iproute2 keeps the names of namespaces.
	spacesDir   = "/run/netns"
	spacePrefix = "bridged-test-"
)

// space makes a namespace. Its name tells whose it is, also after the test was killed.
func (n *network) space(role string) *space {
	n.tb.Helper()
	s := &space{tb: n.tb, name: fmt.Sprintf("%s%d-%d-%s", spacePrefix, os.Getpid(), n.number, role)}
	if err := ip("", "netns", "add", s.name); err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() {
		if err := ip("", "netns", "del", s.name); err != nil {
			n.tb.Error(err)
		}
	})
	s.ip("link set lo up")
	return s
}

// sweepSpaces removes what tests that were killed have left.
func sweepSpaces() error {
	if !root() {
		return nil
	}
	left, err := filepath.Glob(filepath.Join(spacesDir, spacePrefix+"*"))
	var errs []error
	for _, path := range left {
		name := filepath.Base(path)
		digits, _, _ := strings.Cut(strings.TrimPrefix(name, spacePrefix), "-")
		pid, notOurs := strconv.Atoi(digits)
		if notOurs != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		errs = append(errs, ip("", "netns", "del", name))
	}
	return errors.Join(append(errs, err)...)
}

// ip runs the command of that name with lines for it to read, or with arguments.
func ip(batch string, args ...string) error {
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(batch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s%s", strings.Join(args, " "), err, out, batch)
	}
	return nil
}

// ip runs commands of ip in the namespace.
func (s *space) ip(commands ...string) {
	s.tb.Helper()
	if err := ip(strings.Join(commands, "\n"), "-n", s.name, "-batch", "-"); err != nil {
		s.tb.Fatal(err)
	}
}

// do calls f on a thread that is in the namespace, so that the sockets which f opens are. It ends the test if f does.
func (s *space) do(f func()) {
	s.tb.Helper()
	done, returned := make(chan struct{}), false
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread is not fit for anything else and ends with the goroutine
		if err := s.enter(); err != nil {
			s.tb.Error(err)
			return
		}
		f()
		returned = true
	}()
	if <-done; !returned {
		s.tb.FailNow()
	}
}

func (s *space) enter() error {
	f, err := os.Open(filepath.Join(spacesDir, s.name))
	if err != nil {
		return err
	}
	return errors.Join(unix.Setns(int(f.Fd()), unix.CLONE_NEWNET), f.Close())
}
