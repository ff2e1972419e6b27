package lane

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// stage is how far a lane of a spool is on its way back.
type stage byte

const (
	open     stage = iota
	leaving        // nothing is taken any more, and what there is is being stored
	released       // it is not the spool's any more
)

// departure is a lane that is to be released.
type departure struct {
	lane *Lane
	done chan error
}

// ErrAttached means that a lane has a consumer, and so cannot be released.
var ErrAttached = errors.New("the lane has a consumer")

// Release gives a lane back: what it holds is stored, with its ledger, and it becomes Unclaimed, so that Lane may be
// called for its name again. The lane has no consumer any more, and its sources do not expect to be told of anything:
// Offer returns false from now on. If Release returns an error the lane is as it was. Run must be at work.
func (s *Spool) Release(ctx context.Context, l *Lane) error {
	d := departure{lane: l, done: make(chan error, 1)}
	l.mu.Lock()
	if l.reader != nil || l.stage != open {
		l.mu.Unlock()
		return fmt.Errorf("%s %s: %w", l.key.Device, l.key.Direction, ErrAttached)
	}
	l.stage = leaving
	l.attendLocked()
	s.mu.Lock()
	s.leaving = append(s.leaving, d)
	s.mu.Unlock()
	s.store(l)
	l.mu.Unlock()
	select {
	case err := <-d.done:
		return err
	case <-ctx.Done():
	}
	s.mu.Lock()
	i := slices.IndexFunc(s.leaving, func(other departure) bool { return other.lane == l })
	if i >= 0 {
		s.leaving = slices.Delete(s.leaving, i, i+1)
	}
	s.mu.Unlock()
	if i < 0 {
		return <-d.done // the writer is at it in this moment
	}
	l.stay()
	return ctx.Err()
}

// stay takes leaving back.
func (l *Lane) stay() {
	l.mu.Lock()
	l.stage = open
	l.roomLocked()
	l.unlockAndCall()
}

// depart releases the lanes that are leaving and have everything on disk. If err says that they cannot be stored they
// stay. It is the writer's: nothing is being committed.
func (s *Spool) depart(err error) {
	s.mu.Lock()
	all := s.leaving
	s.leaving = nil
	s.mu.Unlock()
	if err == nil && s.limited.Load() {
		err = ErrDiskLimit
	}
	for _, d := range all {
		saved, ok := d.lane.depart()
		switch {
		case ok:
			s.mu.Lock()
			s.saved[saved.Key] = saved
			s.lanes = slices.DeleteFunc(slices.Clone(s.lanes), func(l *Lane) bool { return l == d.lane })
			s.mu.Unlock()
			d.done <- nil
		case err != nil:
			d.lane.stay()
			d.done <- err
		default:
			s.mu.Lock()
			s.leaving = append(s.leaving, d) // the tick comes back here
			s.mu.Unlock()
		}
	}
}

// depart lets go of everything, if it is on disk and nothing is being read, and returns what a later lane needs.
func (l *Lane) depart() (Saved, bool) {
	l.mu.Lock()
	defer l.unlockAndCall()
	d := &l.disk
	if l.unsavedLocked() != nil || d.deletes() || l.marks.pending() || l.gap.loading ||
		l.stateLocked(l.q.end()) != *d.last {
		return Saved{}, false
	}
	l.evictFrontLocked()
	l.evictLocked()
	l.trimLocked()
	l.brokenLocked(false)
	l.stage, l.blocked = released, nil
	return Saved{Key: l.key, State: *d.last, Marks: l.marks.all()}, true
}

// Reconfigure changes what the lane is allowed, but for the Budget, and for Hold and Away, which only say how it
// begins. What is queued stays, also beyond bounds that are lower now: they hold for what comes.
func (l *Lane) Reconfigure(cfg Config) {
	l.mu.Lock()
	cfg.Budget, cfg.Hold, cfg.Away = l.cfg.Budget, l.cfg.Hold, l.cfg.Away
	if l.cfg = &cfg; l.spool != nil {
		l.cfg = l.spool.share(l.key.Direction, &cfg)
	}
	l.attendLocked() // it may be time to store what could wait so far
	l.sweepLocked()
	l.roomLocked()
	r := l.reader
	l.unlockAndCall()
	if r != nil {
		r.Pump()
	}
}
