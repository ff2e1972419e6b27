package netns

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// bridged is the program under test.
var bridged string

// patience is how long something that has to happen may take, on a machine that is busy with all the other tests.
const patience = 100 * time.Second

// parallel is how many tests run at once. They wait for timers most of the time.
const parallel = "16"

func TestMain(m *testing.M) {
	flag.Parse()
	err := flag.Set("test.parallel", parallel)
	dir, mkErr := os.MkdirTemp("", "bridged-netns-")
	bridged = filepath.Join(dir, "bridged")
	if err = errors.Join(err, mkErr, sweepSpaces()); err == nil {
		err = build(bridged)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}))
}

func build(program string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "build", "-race", "-o", program, "bridged/cmd/bridged").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// until waits for a condition. progress tells how far it is when it does not come true; it may be nil.
func until(tb testing.TB, what string, cond func() bool, progress func() string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-ctx.Done():
			if progress != nil {
				what += ": " + progress()
			}
			tb.Fatalf("still not so after %s: %s", patience, what)
		}
	}
}
