package upstream

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/pulse"
)

const (
	tickEvery = time.Second
	// pingWithin is how long a PINGREQ may go without anything coming back, at most.
	pingWithin = 20 * time.Second
	// noKeepalive stands for the keepalive when none is announced, to notice a dead connection all the same.
	noKeepalive = 5 * time.Minute
)

// Keeper serves the timers of all workers with one goroutine: keepalive, stalled messages, linger, answers that are
// overdue. And it passes on to all of them what concerns many. Workers may come and go at any time. The zero value has
// none.
type Keeper struct {
	// Also is called every second, if there is one. It is set before Run.
	Also func()

	pulse pulse.Pulse

	mu      sync.Mutex // protects the following field
	workers []*Worker  // replaced, not changed, when one goes
}

// NewKeeper returns a keeper for these workers.
func NewKeeper(workers []*Worker) *Keeper {
	return &Keeper{pulse: pulse.Pulse{Name: "the keeper of the cloud sessions"}, workers: workers}
}

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

// Pulse is that of the goroutine that Run is.
func (k *Keeper) Pulse() *pulse.Pulse { return &k.pulse }

// Run serves until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	defer k.pulse.End()
	before := time.Now()
	for {
		k.pulse.Beat()
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			if k.Also != nil {
				k.Also()
			}
			for _, w := range k.all() {
				w.look(now, before)
			}
			before = now
		}
	}
}

// Recovered tells workers that wait that their cloud's address works again. It does not block.
func (k *Keeper) Recovered(endpoint string) {
	for _, w := range k.all() {
		if w.cfg.Target.URL.Host == endpoint {
			w.hurry((*governor.Retry).Recovered)
		}
	}
}

// ClockChanged tells workers that wait that the gateway has learnt the time. It does not block.
func (k *Keeper) ClockChanged() {
	for _, w := range k.all() {
		w.hurry((*governor.Retry).ClockChanged)
	}
}

// epoch is from when Worker.due counts, in nanoseconds.
var epoch = time.Now()

// look serves the timers if something is due, or if the session has heard or sent something since the round before. It
// is made for many workers that do nothing, and takes no lock for those.
func (w *Worker) look(now, before time.Time) {
	if !w.running.Load() {
		return
	}
	if int64(now.Sub(epoch)) < w.due.Load() {
		if s := w.watched.Load(); s == nil || !s.heard.Load() && !s.sent.Load() {
			return
		}
	}
	w.tick(now, before)
}

// soon has the timers served in the next round, since something has begun that takes a limited time.
func (w *Worker) soon() { w.due.Store(0) }

// tick serves the timers. before is when the Keeper looked last.
func (w *Worker) tick(now, before time.Time) {
	w.mu.Lock()
	w.due.Store(math.MaxInt64)
	calls := w.subs.overdue(w, now)
	if s := w.live; s != nil && s.established && !s.ending.Load() {
		s.tickLocked(now, before)
		s.probeLocked(now)
	}
	w.settleLocked(now)
	s := w.live
	w.watched.Store(s)
	w.due.CompareAndSwap(math.MaxInt64, int64(w.dueLocked(now).Sub(epoch))) // unless something has begun meanwhile
	w.mu.Unlock()
	w.flushSession(s)
	call(calls)
	call(w.saveOverdue(now))
}

// dueLocked is when something may be due next if nothing happens until then.
func (w *Worker) dueLocked(now time.Time) time.Time {
	s := w.live
	switch {
	case w.stopping, !w.present && !w.awaited && !w.cfg.Always, len(w.subs.waiting) > 0, w.record.waits():
		return now
	case s == nil || !s.established || s.ending.Load():
		return now.Add(time.Hour) // a change of state comes first
	case s.yielding.Load(), s.waiting.Load(), len(s.exchanges) > 0, s.oldest.seq != 0, s.probes():
		return now
	}
	every, within := pinging(w.cfg.Keepalive)
	switch {
	case !s.pingAt.IsZero():
		return s.pingAt.Add(within)
	case s.lastSent.Before(s.lastHeard):
		return s.lastSent.Add(every)
	}
	return s.lastHeard.Add(every)
}

// tickLocked keeps the session alive and notices when it is not (MQTT 3.1.1, 3.1.2.10).
func (s *session) tickLocked(now, before time.Time) {
	w := s.w
	if s.heard.Swap(false) {
		s.lastHeard, s.pingAt = now, time.Time{}
	}
	if s.sent.Swap(false) {
		s.lastSent = latest(s.ticked, before) // it was after that; to be on the safe side
	}
	s.ticked = now
	every, within := pinging(w.cfg.Keepalive)
	switch {
	case s.waiting.Load(): // nothing is read, so nothing can be heard
		s.lastHeard, s.pingAt = now, time.Time{}
		s.oldest = oldest{}
	case !s.pingAt.IsZero() && now.Sub(s.pingAt) >= within:
		s.cutLocked(failure.KeepaliveLost, "no PINGRESP within %s", within)
	case s.stalledLocked(now):
		s.cutLocked(failure.Stalled, "the oldest message waits for more than %s", w.cfg.StallTimeout)
	case s.pingAt.IsZero() && (now.Sub(s.lastSent) >= every || now.Sub(s.lastHeard) >= every):
		s.pingAt, s.lastSent = now, now
		s.append(func(b []byte) []byte { return append(b, 0xC0, 0) })
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// pinging is after how long a time without a packet one way or the other a ping is due, and how long its answer may
// take. Both together, and the two seconds by which a Keeper may be late, are the keepalive: a link that has silently
// died is noticed within that time.
func pinging(keepalive time.Duration) (every, within time.Duration) {
	if keepalive == 0 {
		keepalive = noKeepalive
	}
	within = min(keepalive/3, pingWithin)
	return max(keepalive-within-2*tickEvery, keepalive/3), within
}

// cutLocked ends the session for a reason that the Keeper has found.
func (s *session) cutLocked(kind failure.Kind, detail string, after time.Duration) {
	if s.lost == nil {
		s.lost = failure.New(kind, failure.StageOnline, nil, detail, after)
	}
	_ = s.nc.Close() // the reader finds out
}

// oldest is the first message of a session that the cloud has not acknowledged.
type oldest struct {
	seq   uint64    // 0: there is none
	end   int64     // how many bytes the connection had carried when it was found to be the oldest: it was among them
	since time.Time // since when the other side has them all, zero if it does not
}

// stalledLocked says whether the cloud has kept its oldest message waiting for too long. The time counts from when the
// other side had the message: on a slow link large messages take long, and there is another watch on links that take
// nothing at all (package netconn).
func (s *session) stalledLocked(now time.Time) bool {
	w, o := s.w, &s.oldest
	if w.cfg.StallTimeout == 0 {
		return false
	}
	w.flow.mu.Lock()
	seq := w.flow.out.Oldest()
	w.flow.mu.Unlock()
	switch {
	case seq == 0:
		*o = oldest{}
		return false
	case seq != o.seq:
		*o = oldest{seq: seq, end: s.nc.Written()}
	}
	if o.since.IsZero() && s.nc.Taken() >= o.end {
		o.since = now
	}
	return !o.since.IsZero() && now.Sub(o.since) >= w.cfg.StallTimeout
}
