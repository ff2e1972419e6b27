package boltstore

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
)

// childMode is the environment variable that makes the test binary a child, and says which.
const childMode = "BOLTSTORE_TEST_CHILD"

// child runs in the test binary of its own that a test started.
func child(mode string, args []string) int {
	var err error
	switch mode {
	case "script":
		err = runScript(args[0], atoi(args[1]), atoi(args[2]), atoi(args[3]))
	default:
		err = runMounted(mode, args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// childCommand starts the test binary again as a child, by way of another program if there is one. Between fork and
// exec a child has the locks of all stores that are open, so tests with children run beside no others that open a store
// twice.
func childCommand(t testing.TB, mode string, by []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	all := append(append(by[:len(by):len(by)], self), args...)
	cmd := exec.CommandContext(t.Context(), all[0], all[1:]...)
	cmd.Env = append(os.Environ(), childMode+"="+mode, "GORACE=atexit_sleep_ms=0") // it would sleep for a second
	cmd.Stderr = os.Stderr
	return cmd
}

const scriptLanes = 8

// scriptOf is the script that a child runs.
func scriptOf(seed int) *script {
	sc := newScript(uint64(seed), scriptLanes)
	sc.large = 3000
	return sc
}

// retries is how often a child tries again before it gives up.
const retries = 50

// runScript commits a script's batches, after some that were committed before, and says "ack N" after the Nth, on
// standard output. After an error it tries again. It opens the store anew now and then, and ends without closing it.
func runScript(dir string, seed, before, batches int) error {
	runtime.LockOSThread() // strace counts system calls by thread
	sc := scriptOf(seed)
	for range before {
		sc.next()
	}
	s, err := openAgain(dir)
	if err != nil {
		return err
	}
	for n := before + 1; n <= batches; n++ {
		b := sc.next()
		if err := again(func() error { return s.Commit(b) }); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(os.Stdout, "ack %d\n", n); err != nil {
			return err
		}
		if n%15 == 0 {
			if err := again(s.Maintain); err != nil {
				return err
			}
		}
		if n%50 == 0 {
			if n%100 == 0 {
				if err := s.Close(); err != nil {
					return err
				}
			} else if err := s.abandon(); err != nil {
				return err
			}
			if s, err = openAgain(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

func openAgain(dir string) (s *Store, err error) {
	err = again(func() error {
		s, err = open(dir, Options{}, small)
		return err
	})
	return s, err
}

func again(f func() error) (err error) {
	for range retries {
		if err = f(); err == nil {
			return nil
		}
		if _, err := fmt.Fprintln(os.Stdout, "error"); err != nil {
			return err
		}
	}
	return err
}

// abandon lets go of the files as a process does that is killed.
func (s *Store) abandon() error {
	s.h.stuck.Store(true)
	return errors.Join(s.h.close(), s.lock.Close())
}
