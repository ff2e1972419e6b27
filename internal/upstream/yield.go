package upstream

import (
	"math"
	"time"
)

// yieldWithin is how long a session that another one is to follow may take to deliver what it has begun.
const yieldWithin = 5 * time.Second

// yieldLocked has the session end for another one, which the device needs: with its will, or without what the cloud has
// kept. Before that it delivers what the lane holds now. To end at once would send messages twice that are on their
// way, and have the cloud publish a will that is due before messages that the device sent earlier. What the device
// sends meanwhile waits for the next session, and so do its subscriptions.
//
// The number of messages may be one too low, if one is just being handed out: that one waits, too.
func (s *session) yieldLocked(reason string) {
	w := s.w
	if !s.established {
		s.endLocked(!s.abort, reason) // a will that is due is left to the cloud
	}
	if s.ending.Load() {
		return
	}
	if w.reset {
		s.deaf.Store(true) // what the cloud has kept is not the new session's
	}
	if !s.yielding.Load() {
		now := time.Now()
		s.yieldUntil, s.yieldReason = now.Add(yieldWithin), reason
		w.setStateLocked(Draining, reason)
		w.flow.mu.Lock()
		c := w.cfg.Up.Counters()
		s.yieldLeft = c.Queued - c.InFlight
		s.yielding.Store(true)
		w.flow.mu.Unlock()
	}
	w.settleLocked(time.Now())
}

// yieldedLocked ends a session that yields if it has delivered what it should, or takes too long.
func (s *session) yieldedLocked(now time.Time) {
	w := s.w
	c := w.cfg.Up.Counters()
	w.flow.mu.Lock()
	done := s.yieldLeft <= 0 && c.InFlight == 0 || c.Queued == 0
	w.flow.mu.Unlock()
	if done || !now.Before(s.yieldUntil) {
		s.endLocked(!s.abort, s.yieldReason)
	}
}

// stopYieldingLocked has a session that yields deliver everything after all: bridged stops, and no other will follow.
// It returns whether the lane is to be pumped.
func (s *session) stopYieldingLocked() bool {
	if !s.yielding.Load() || s.ending.Load() {
		return false
	}
	s.w.flow.mu.Lock()
	s.yieldLeft = math.MaxInt
	s.w.flow.mu.Unlock()
	s.yieldUntil = time.Now().Add(math.MaxInt64) // Stop has a bound of its own
	return true
}
