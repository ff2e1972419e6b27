package governor

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bridged/internal/credentials"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	tencent = credentials.Rate{Count: 1, Per: 5 * time.Second}
	alibaba = credentials.Rate{Count: 5, Per: time.Minute}
)

// pass lets the bubble's time pass.
func pass(d time.Duration) { <-time.After(d) }

// wait is Wait for a dial that is granted sooner or later.
func wait(t *testing.T, g *Governor, d Dial) *Lease {
	t.Helper()
	l, err := g.Wait(t.Context(), d)
	if err != nil {
		t.Error(err) // not Fatal: it is called by other goroutines, too
	}
	return l
}

// now is Wait for a dial that can start at once.
func now(t *testing.T, g *Governor, d Dial) *Lease {
	t.Helper()
	d.OnHold = func(h Hold) { t.Fatalf("%s at %s has to wait: %+v", d.Identity, d.Endpoint, h) }
	return wait(t, g, d)
}

// granted says whether a dial could start at once. It does not start.
func granted(g *Governor, d Dial) bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.OnHold = func(Hold) { cancel() }
	l, err := g.Wait(ctx, d)
	if err != nil {
		return false
	}
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	l.g.total.bucket.back()
	l.endpoint.bucket.back()
	l.g.endLocked(l, time.Now())
	return true
}

// clean fails the test if the governor holds anything that is over.
func (g *Governor) clean(t *testing.T) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting != 0 || g.total.open != 0 || g.total.slow != 0 || g.ready.Len() != 0 {
		t.Errorf("waiting %d, open %d, slow %d, ready %d; want none", g.waiting, g.total.open, g.total.slow, g.ready.Len())
	}
	for key, e := range g.endpoints {
		if e.open != 0 || e.slow != 0 || e.users != 0 || e.queue.Len() != 0 || e.turn != nil {
			t.Errorf("endpoint %s: open %d, slow %d, users %d, queue %d", key, e.open, e.slow, e.users, e.queue.Len())
		}
	}
	for key, id := range g.identities {
		if id.busy || id.queue.Len() != 0 || id.expiry.pos == 0 {
			t.Errorf("identity %s: busy %t, queue %d, expires %t", key, id.busy, id.queue.Len(), id.expiry.pos > 0)
		}
	}
	if want := len(g.endpoints) + len(g.identities); len(g.agenda) > want+1 { // and the next token
		t.Errorf("%d entries on the agenda, want at most %d", len(g.agenda), want+1)
	}
}

func (g *Governor) sizes() (endpoints, identities, entries int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.endpoints), len(g.identities), len(g.agenda)
}
