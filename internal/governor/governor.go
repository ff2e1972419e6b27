package governor

import (
	"container/list"
	"context"
	"sync"
	"time"

	"bridged/internal/credentials"
)

// Dial is what is asked for.
type Dial struct {
	// Endpoint is the cloud's address: host and port.
	Endpoint string
	// Identity is whom the cloud's limit applies to, Limit that limit. The key must be the same for the same device at
	// the cloud, whatever it is called here, and differ between providers.
	Identity string
	Limit    credentials.Rate
	// OnHold is called, before Wait blocks, if the dial cannot start at once. It may be nil.
	OnHold func(Hold)
}

// Hold is why a dial has to wait.
type Hold struct {
	// Limited says that the identity's connect limit is why; otherwise others dial first.
	Limited bool
	// Ahead is how many of the same endpoint come first.
	Ahead int
	// For is how long it takes at least.
	For time.Duration
}

// Reason is a sentence for a person.
func (h Hold) Reason() string {
	if h.Limited {
		return "the cloud limits how often a device may connect"
	}
	return "other devices of this cloud are connecting"
}

// Governor grants dials. See the package comment.
type Governor struct {
	cfg Config

	mu         sync.Mutex // protects the following fields, and those of endpoints, identities, waiters and leases
	total      gate
	token      entry // the next of total
	endpoints  map[string]*endpoint
	ready      list.List // of *endpoint: those that can take a dial now, the next first
	identities map[string]*identity
	agenda     agenda
	timer      *time.Timer
	timerAt    time.Time // zero: it is not set
	waiting    int
	granted    uint64
}

// waiter is a dial that was asked for and has not been granted.
type waiter struct {
	dial     Dial
	endpoint *endpoint
	id       *identity     // nil: no limit
	line     *list.Element // in id.queue
	place    *list.Element // in endpoint.queue, nil before the limit allows the dial
	wake     entry         // for that
	granted  chan struct{} // closed when lease is set
	lease    *Lease
}

// New returns a governor.
func New(cfg Config) *Governor {
	cfg = cfg.withDefaults()
	g := &Governor{
		cfg:        cfg,
		total:      newGate(cfg.Total),
		endpoints:  make(map[string]*endpoint),
		identities: make(map[string]*identity),
	}
	g.token.due = func(time.Time) {} // the pump that runs it does what is to be done
	g.timer = time.AfterFunc(time.Hour, g.tick)
	g.timer.Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.restoreLocked(cfg.Used, now)
	g.pumpLocked(now)
	return g
}

// Wait blocks until the dial may start. The lease must be ended with Connected or Done. The error is the context's.
func (g *Governor) Wait(ctx context.Context, d Dial) (*Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g.mu.Lock()
	now := time.Now()
	w := g.joinLocked(d, now)
	g.pumpLocked(now)
	lease, hold := w.lease, g.holdLocked(w, now)
	g.mu.Unlock()
	if lease != nil {
		return lease, nil
	}
	if d.OnHold != nil {
		d.OnHold(hold)
	}
	select {
	case <-w.granted:
		return w.lease, nil
	case <-ctx.Done():
		g.leave(w)
		return nil, ctx.Err()
	}
}

func (g *Governor) joinLocked(d Dial, now time.Time) *waiter {
	w := &waiter{
		dial:     d,
		endpoint: g.endpointLocked(d.Endpoint),
		id:       g.identityLocked(d.Identity, d.Limit, now),
		granted:  make(chan struct{}),
	}
	w.wake.due = func(now time.Time) { g.enqueueLocked(w, now) }
	g.waiting++
	w.endpoint.users++
	if w.id == nil {
		g.enqueueLocked(w, now)
		return w
	}
	w.line = w.id.queue.PushBack(w)
	g.advanceLocked(w.id, now)
	return w
}

// advanceLocked sends the first of an identity's waiters on its way if it is not, as soon as the limit allows it.
func (g *Governor) advanceLocked(id *identity, now time.Time) {
	first := id.queue.Front()
	if id.busy || first == nil {
		return
	}
	w := first.Value.(*waiter)
	if w.place != nil || w.wake.pos > 0 {
		return
	}
	if at := id.allowed(w.dial.Limit); at.After(now) {
		g.agenda.set(&w.wake, at)
		return
	}
	g.enqueueLocked(w, now)
}

// enqueueLocked lets a waiter queue for its endpoint.
func (g *Governor) enqueueLocked(w *waiter, now time.Time) {
	w.place = w.endpoint.queue.PushBack(w)
	g.placeLocked(w.endpoint, now)
}

// removeLocked takes a waiter out of everything.
func (g *Governor) removeLocked(w *waiter, now time.Time) {
	g.waiting--
	w.endpoint.users--
	g.agenda.drop(&w.wake)
	if w.place != nil {
		w.endpoint.queue.Remove(w.place)
	}
	if w.id != nil {
		w.id.queue.Remove(w.line)
	}
	g.placeLocked(w.endpoint, now)
}

// leave is for a waiter that does not want to dial any more. It may have been granted the dial meanwhile.
func (g *Governor) leave(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if l := w.lease; l != nil {
		g.granted--
		g.total.bucket.back()
		w.endpoint.bucket.back()
		g.endLocked(l, now)
	} else {
		g.removeLocked(w, now)
		if w.id != nil {
			g.advanceLocked(w.id, now)
			g.restLocked(w.id, now)
		}
	}
	g.pumpLocked(now)
}

// holdLocked says why a waiter waits.
func (g *Governor) holdLocked(w *waiter, now time.Time) Hold {
	if w.place == nil {
		return Hold{Limited: true, For: max(0, w.wake.at.Sub(now))}
	}
	e := w.endpoint
	ahead := e.queue.Len() - 1 // it has just joined
	return Hold{Ahead: ahead, For: max(0, e.bucket.at().Sub(now)) + time.Duration(ahead)*e.bucket.every}
}

// pumpLocked does everything that can be done now, and sets the timer for what comes next.
func (g *Governor) pumpLocked(now time.Time) {
	g.agenda.run(now)
	for e := g.turnLocked(); e != nil; e = g.turnLocked() {
		if at := g.total.bucket.at(); at.After(now) {
			g.agenda.set(&g.token, at)
			break
		}
		g.grantLocked(e.queue.Front().Value.(*waiter), now)
		if e.turn != nil {
			g.ready.MoveToBack(e.turn)
		}
	}
	g.setTimerLocked(now)
}

// spare is how many dials of an endpoint may always be under way, so that others which never answer cannot use up what
// the process may.
const spare = 4

// turnLocked is the endpoint whose turn it is, nil if none can take a dial.
func (g *Governor) turnLocked() *endpoint {
	for t := g.ready.Front(); t != nil; t = t.Next() {
		if e := t.Value.(*endpoint); e.open < spare || g.total.room() {
			return e
		}
	}
	return nil
}

func (g *Governor) grantLocked(w *waiter, now time.Time) {
	g.total.enter(now)
	w.endpoint.enter(now)
	w.endpoint.users++
	g.granted++
	l := &Lease{g: g, endpoint: w.endpoint, id: w.id, open: true}
	l.slowing.due = func(now time.Time) { g.slowLocked(l, now) }
	g.agenda.set(&l.slowing, now.Add(g.cfg.SlowAfter))
	if w.id != nil {
		w.id.busy = true
	}
	g.removeLocked(w, now)
	w.lease = l
	close(w.granted)
}

func (g *Governor) setTimerLocked(now time.Time) {
	next := g.agenda.next()
	if next.Equal(g.timerAt) {
		return
	}
	g.timerAt = next
	if next.IsZero() {
		g.timer.Stop()
		return
	}
	g.timer.Reset(next.Sub(now))
}

func (g *Governor) tick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timerAt = time.Time{}
	g.pumpLocked(time.Now())
}
