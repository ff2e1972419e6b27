package governor

import (
	"container/list"
	"time"
)

// forget is how long an endpoint that nobody dials is remembered.
const forget = time.Hour

// endpoint is one cloud's address.
type endpoint struct {
	gate
	key   string
	queue list.List     // of *waiter, first come, first served
	turn  *list.Element // in Governor.ready, nil if it is not there
	// wake is for the next token, or for being forgotten.
	wake   entry
	failed int // attempts in a row without a session
	users  int // waiters, also those that their identity's limit holds, and leases
}

func (g *Governor) endpointLocked(key string) *endpoint {
	e := g.endpoints[key]
	if e == nil {
		e = &endpoint{gate: newGate(g.cfg.Endpoint), key: key}
		e.wake.due = func(now time.Time) {
			if e.users == 0 {
				delete(g.endpoints, key)
				return
			}
			g.placeLocked(e, now)
		}
		g.endpoints[key] = e
	}
	return e
}

// placeLocked puts an endpoint where it belongs after any change: among those that can take a dial now, on the agenda
// for its next token, or, with nothing to do, for being forgotten.
func (g *Governor) placeLocked(e *endpoint, now time.Time) {
	able := e.queue.Len() > 0 && e.room()
	token := e.bucket.at()
	if able && !token.After(now) {
		if e.turn == nil {
			e.turn = g.ready.PushBack(e)
		}
		g.agenda.drop(&e.wake)
		return
	}
	if e.turn != nil {
		g.ready.Remove(e.turn)
		e.turn = nil
	}
	switch {
	case able:
		g.agenda.set(&e.wake, token)
	case e.users == 0:
		g.agenda.set(&e.wake, now.Add(forget))
	default: // a lease that ends or becomes slow brings it back
		g.agenda.drop(&e.wake)
	}
}
