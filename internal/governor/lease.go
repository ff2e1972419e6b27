package governor

import "time"

// Lease is a dial that may start. It ends with Connected or Done, whichever comes first.
type Lease struct {
	g        *Governor
	endpoint *endpoint
	id       *identity // nil: no limit
	// The governor's mutex protects the following fields.
	open    bool
	sent    bool
	slow    bool
	slowing entry
}

// Sent says that CONNECT is about to be sent, which is what the cloud counts. A dial that ends without does not count
// towards the identity's limit. One that was sent counts from the end of the lease: where the link is slow or loses
// packets it arrives seconds later, and the next one must not follow it too closely there.
func (l *Lease) Sent() {
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	if l.open && l.id != nil {
		l.id.record(time.Now())
		l.sent = true
	}
}

// Connected ends the lease with success: the cloud has accepted CONNECT.
func (l *Lease) Connected() { l.end(true) }

// Done ends the lease. It does nothing after Connected.
func (l *Lease) Done() { l.end(false) }

// recovered is after how many attempts in a row without a session an endpoint counts as one that was away.
const recovered = 3

func (l *Lease) end(connected bool) {
	g, e := l.g, l.endpoint
	g.mu.Lock()
	if !l.open {
		g.mu.Unlock()
		return
	}
	back := connected && e.failed >= recovered
	if connected {
		e.failed = 0
	} else {
		e.failed++
	}
	now := time.Now()
	g.endLocked(l, now)
	g.pumpLocked(now)
	g.mu.Unlock()
	if back {
		g.cfg.Recovered(e.key)
	}
}

// endLocked gives back what a lease holds.
func (g *Governor) endLocked(l *Lease, now time.Time) {
	l.open = false
	g.agenda.drop(&l.slowing)
	g.total.leave(l.slow)
	l.endpoint.leave(l.slow)
	l.endpoint.users--
	g.placeLocked(l.endpoint, now)
	if l.id != nil {
		if l.sent {
			l.id.sent[len(l.id.sent)-1] = now
		}
		l.id.busy = false
		g.advanceLocked(l.id, now)
		g.restLocked(l.id, now)
	}
}

// slowLocked makes room for another dial beside one that takes long.
func (g *Governor) slowLocked(l *Lease, now time.Time) {
	l.slow = true
	g.total.slow++
	l.endpoint.slow++
	g.placeLocked(l.endpoint, now)
}

// Counts are of dials.
type Counts struct {
	Waiting int // for their turn; in all, also for what their identity may
	Open    int // under way
	Slow    int // of these
}

// Stats is how things are.
type Stats struct {
	Counts
	// Granted is how many dials were granted since the start.
	Granted uint64
	// Endpoints has those that were dialled within the last hour.
	Endpoints map[string]Counts
}

// Stats returns how things are.
func (g *Governor) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Stats{
		Counts:    Counts{Waiting: g.waiting, Open: g.total.open, Slow: g.total.slow},
		Granted:   g.granted,
		Endpoints: make(map[string]Counts, len(g.endpoints)),
	}
	for key, e := range g.endpoints {
		s.Endpoints[key] = Counts{Waiting: e.queue.Len(), Open: e.open, Slow: e.slow}
	}
	return s
}
