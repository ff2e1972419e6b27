package upstream

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	tickEvery = time.Second
	// pingWithin is how long a PINGREQ may go without anything coming back.
	pingWithin = 20 * time.Second
	// noKeepalive is how often to ping when no keepalive is announced, to notice a dead connection all the same.
	noKeepalive = 5 * time.Minute
)

// Keeper serves the timers of all workers with one goroutine: keepalive, linger, answers that are overdue.
// Workers may come and go at any time. The zero value has none.
type Keeper struct {
	mu      sync.Mutex // protects the following field
	workers []*Worker  // replaced, not changed, when one goes
}

// NewKeeper returns a keeper for these workers.
func NewKeeper(workers []*Worker) *Keeper { return &Keeper{workers: workers} }

// Add has the keeper serve a worker, too.
func (k *Keeper) Add(w *Worker) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.workers = append(k.workers, w)
}

// Remove takes a worker back, which has ended. Its timers may be served once more.
func (k *Keeper) Remove(w *Worker) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.workers = slices.DeleteFunc(slices.Clone(k.workers), func(other *Worker) bool { return other == w })
}

// all is a snapshot.
func (k *Keeper) all() []*Worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.workers[:len(k.workers):len(k.workers)]
}

// Run serves until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			for _, w := range k.all() {
				if w.running.Load() {
					w.tick(now)
				}
			}
		}
	}
}

func (w *Worker) tick(now time.Time) {
	w.mu.Lock()
	calls := w.subs.overdue(w, now)
	if s := w.live; s != nil && s.established && !s.ending.Load() {
		s.tickLocked(now)
		s.probeLocked(now)
	}
	w.settleLocked(now)
	s := w.live
	w.mu.Unlock()
	w.flushSession(s)
	call(calls)
	call(w.saveOverdue(now))
}

// tickLocked keeps the session alive and notices when it is not (MQTT 3.1.1, 3.1.2.10).
func (s *session) tickLocked(now time.Time) {
	w := s.w
	if s.heard.Swap(false) {
		s.lastHeard, s.pingAt = now, time.Time{}
	}
	if s.sent.Swap(false) {
		s.lastSent = s.ticked // it was after that; to be on the safe side
	}
	s.ticked = now
	every := w.cfg.Keepalive
	if every == 0 {
		every = noKeepalive
	}
	every -= min(every/4, 10*time.Second)
	switch {
	case s.waiting.Load(): // nothing is read, so nothing can be heard
		s.lastHeard, s.pingAt = now, time.Time{}
	case !s.pingAt.IsZero() && now.Sub(s.pingAt) >= pingWithin:
		s.lost = fail(ClassNetwork, Online, nil, "the cloud does not answer any more (no PINGRESP within %s)", pingWithin)
		_ = s.nc.Close() // the reader finds out
	case s.pingAt.IsZero() && (now.Sub(s.lastSent) >= every || now.Sub(s.lastHeard) >= every):
		s.pingAt, s.lastSent = now, now
		s.append(func(b []byte) []byte { return append(b, 0xC0, 0) })
	}
}
