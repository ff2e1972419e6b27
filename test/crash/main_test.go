package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
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
const patience = time.Minute

// parallel is how many tests run at once. They wait for timers most of the time.
const parallel = "4"

var seed = flag.Uint64("crash.seed", 0, "repeat the random moments of a run (0: new ones)")

func TestMain(m *testing.M) {
	flag.Parse()
	err := flag.Set("test.parallel", parallel)
	dir, mkErr := os.MkdirTemp("", "bridged-crash-")
	bridged = filepath.Join(dir, "bridged")
	if err = errors.Join(err, mkErr); err == nil {
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

// random returns the test's source of random numbers, and prints its seed.
func random(tb testing.TB) *rand.Rand {
	tb.Helper()
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	tb.Logf("-run '^%s$' -crash.seed=%d", tb.Name(), s)
	return rand.New(rand.NewPCG(s, 0))
}

// between is a random duration.
func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(high-low)))
}

// wait waits for a time, and says whether ctx goes on.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// until waits for a condition. progress tells how far it is when it does not come true; it may be nil.
func until(tb testing.TB, what string, cond func() bool, progress func() string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	for !cond() {
		if !wait(ctx, 5*time.Millisecond) {
			if progress != nil {
				what += ": " + progress()
			}
			tb.Fatalf("still not so after %s: %s", patience, what)
		}
	}
}
