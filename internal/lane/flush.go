package lane

import (
	"context"
)

// flush waits until each of the lanes has stored or finished what was before a sequence number.
type flush struct {
	lanes map[*Lane]uint64
	done  chan error
}

// Flush stores what is not settled in these lanes, in all if there are none, and returns when that is done or has
// failed. Run must be at work.
func (s *Spool) Flush(ctx context.Context, lanes ...*Lane) error {
	f := flush{lanes: make(map[*Lane]uint64), done: make(chan error, 1)}
	if len(lanes) == 0 {
		lanes = s.all()
	}
	for _, l := range lanes {
		l.mu.Lock()
		if l.unsavedLocked() != nil {
			f.lanes[l] = l.q.end()
			s.store(l)
		}
		l.mu.Unlock()
	}
	s.mu.Lock()
	s.flushes = append(s.flushes, f)
	s.mu.Unlock()
	wake(s.toWrite)
	select {
	case err := <-f.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flushed tells those who wait for their lanes to be stored how it went. The rest waits for the next commit.
func (s *Spool) flushed(flushes []flush, err error) {
	if err == nil && s.limited.Load() {
		err = ErrDiskLimit
	}
	for _, f := range flushes {
		for l, seq := range f.lanes {
			if l.savedTo(seq) {
				delete(f.lanes, l)
			}
		}
		switch {
		case len(f.lanes) == 0:
			f.done <- nil
		case err != nil:
			f.done <- err
		default:
			s.mu.Lock()
			s.flushes = append(s.flushes, f)
			s.mu.Unlock()
		}
	}
}
