package soak

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	soakTime = flag.Duration("soak.time", 25*time.Second, "how long things go wrong")
	seed     = flag.Uint64("soak.seed", 0, "repeat the random moments of a run (0: new ones)")
)

func TestMain(m *testing.M) {
	if os.Getenv(asBridged) != "" {
		os.Exit(bridgedMain())
	}
	goleak.VerifyTestMain(m)
}

// patience is how long it may take until everything is well again. Who was refused again and again, or seems to be at
// war with another holder of its identity, waits for minutes, the longer the longer it has been going on.
func patience() time.Duration { return 5*time.Minute + *soakTime }

// until waits for a condition.
func until(tb testing.TB, what string, cond func() bool, progress func() string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience())
	defer cancel()
	for !cond() {
		if !wait(ctx, 10*time.Millisecond) {
			tb.Fatalf("still not so after %s: %s: %s", patience(), what, progress())
		}
	}
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

// dice is a source of random numbers for one goroutine.
type dice struct{ *rand.Rand }

func newDice(seed uint64, of string) dice {
	h := uint64(0)
	for _, r := range of {
		h = h*31 + uint64(r)
	}
	return dice{rand.New(rand.NewPCG(seed, h))}
}

func (d dice) between(low, high time.Duration) time.Duration {
	return low + time.Duration(d.Int64N(int64(high-low)))
}

func (d dice) oneIn(n int) bool { return d.IntN(n) == 0 }

// text is the payload of a device's message: its number, the device, and some more, so that sizes vary.
func text(device string, n int) []byte {
	return fmt.Appendf(nil, "%d %s %0*d", n, device, 1+n*37%700, n)
}

// order is what arrived of one device's numbered messages. One may come again.
type order struct {
	next  int
	again int
	wrong []string // the first few
}

func (o *order) take(device string, payload []byte) {
	n := -1
	if _, err := fmt.Sscanf(string(payload), "%d ", &n); err != nil || string(payload) != string(text(device, n)) {
		o.complain("not a message of %s: %.60q", device, payload)
		return
	}
	switch {
	case n == o.next:
		o.next++
	case n < o.next:
		o.again++
	default:
		o.complain("%d came when %d was next", n, o.next)
		o.next = n + 1
	}
}

func (o *order) complain(format string, args ...any) {
	if len(o.wrong) < 10 {
		o.wrong = append(o.wrong, fmt.Sprintf(format, args...))
	}
}
