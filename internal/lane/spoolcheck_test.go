package lane

import (
	"fmt"
	"time"
)

// check holds the lane against its model, while nothing moves.
func (s *spoolLane) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrong != nil {
		return s.wrong
	}
	c := s.l.Counters()
	if err := checkLedger(c); err != nil {
		return err
	}
	live, err := s.l.contents(s.run.store)
	if err != nil {
		return err
	}
	if len(live) != c.Queued {
		return fmt.Errorf("the lane holds %v, and counts %d", live, c.Queued)
	}
	if err := s.checkDroppedLocked(live, &c); err != nil {
		return err
	}
	if err := s.checkOrderLocked(live); err != nil {
		return err
	}
	if err := s.checkStuckLocked(live); err != nil {
		return err
	}
	s.ended, s.rejected = false, 0
	return nil
}

// checkDroppedLocked finds out what has been dropped since the last check, and whether a rule allows it.
func (s *spoolLane) checkDroppedLocked(live []int, c *Counters) error {
	there := make(map[int]bool, len(live))
	for i, n := range live {
		if i > 0 && n <= live[i-1] {
			return fmt.Errorf("the lane holds %v", live)
		}
		there[n] = true
	}
	var dropped, old, early int
	oldest := 0 // of those that wait
	for _, n := range live {
		if m := s.message(n); m.delivered == 0 || s.conn == nil || m.delivered != s.conn.n {
			oldest = n
			break
		}
	}
	for _, m := range s.messages {
		m.early = m.early || s.l.isEarly(m.seq)
		switch {
		case there[m.n] && m.fate != alive && !m.early:
			return fmt.Errorf("message %d is held, its fate is %d", m.n, m.fate)
		case m.fate == lost && m.early && there[m.n]:
			m.late = true
			continue
		case !there[m.n] && m.fate == alive:
			m.fate, m.step = lost, s.run.step.Load()
			fallthrough
		case m.fate == lost && (m.late || m.step == s.run.step.Load()):
			m.late = false
			dropped++
			switch {
			case s.expired(m):
				old++
			case s.ended || m.early || m.delivered > 0 && s.rejected > 0:
			case m.born == m.step: // perhaps when it was offered
			case s.cfg.OnFull == DropOldest && (oldest == 0 || m.n < oldest):
			default:
				return fmt.Errorf("message %d was dropped, with %v left: %+v", m.n, live, c.Dropped)
			}
		}
	}
	if s.ended { // it is not known of what is on disk only whether it was acknowledged late
		for _, m := range s.messages {
			if m.early && m.fate == acked && !there[m.n] {
				early++
			}
		}
	}
	if got := c.DroppedTotal() - s.dropped; got > uint64(dropped+early) || got+uint64(s.rejected) < uint64(dropped) {
		return fmt.Errorf("%d were dropped, %d were counted: %+v after %+v", dropped, got, c.Dropped, s.drops)
	}
	if n := c.Dropped[Expired] - s.drops[Expired]; n > uint64(old) {
		return fmt.Errorf("%d have expired, %d were dropped for that", old, n)
	}
	s.dropped, s.drops = c.DroppedTotal(), c.Dropped
	return nil
}

// expired says that a message is too old.
func (s *spoolLane) expired(m *spoolMessage) bool {
	return s.cfg.MaxAge > 0 && time.Since(m.at) > s.cfg.MaxAge ||
		!m.m.Expires.IsZero() && !time.Now().Before(m.m.Expires)
}

// checkOrderLocked looks for messages that were passed by: what the connection got and has not acknowledged comes
// before everything else.
func (s *spoolLane) checkOrderLocked(live []int) error {
	if s.conn == nil {
		return nil
	}
	waiting := 0
	for _, n := range live {
		m := s.message(n)
		switch {
		case m.fate != alive: // acknowledged while it was on disk only
		case m.delivered != s.conn.n:
			waiting = n
		case waiting > 0:
			return fmt.Errorf("message %d was delivered before %d", n, waiting)
		}
	}
	return nil
}

// checkStuckLocked looks for what should have happened long ago.
func (s *spoolLane) checkStuckLocked(live []int) error {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.blocked) > 1 || len(l.blocked) == 1 != (s.refused > 0) {
		return fmt.Errorf("%d calls of Room are due, the refused message has %d bytes", len(l.blocked), s.refused)
	}
	if !s.run.healthy(2 * time.Second) {
		return nil
	}
	e, works := l.unsavedLocked(), time.Since(s.run.faulty) > time.Second
	if e != nil && works && time.Since(l.epoch)-e.at > l.cfg.SpillAfter+time.Second && time.Since(s.asOf) > time.Second {
		return fmt.Errorf("message %d is not stored, %d bytes are", e.seq, s.run.spool.disk.Used())
	}
	// A lane with nothing in memory may take a message, unless it would have to stay: nobody reads it, and the disk
	// fails or is full.
	leaves := l.reader != nil && l.reader.started || s.run.spool.Status().Fault == nil
	b := s.cfg.Budget
	room := b.roomy() && b.Used()+s.refused <= b.limit.Load() || l.live == l.gap.count && leaves
	if s.refused > 0 && l.fitsLocked(s.refused) && room {
		return fmt.Errorf(
			"the source waits for room for %d bytes, and there is: %d messages (%d on disk only), memory %d of %d",
			s.refused, l.live, l.gap.count, b.Used(), b.limit.Load())
	}
	return s.checkStalledLocked(live)
}

// checkStalledLocked looks for a message that could be delivered and is not. The lane has a moment for it.
func (s *spoolLane) checkStalledLocked(live []int) error {
	c := s.conn
	if c == nil || !c.started || !c.ready {
		s.stalled = stall{}
		return nil
	}
	var next *spoolMessage
	flying := 0
	var bytes int64
	for _, n := range live {
		m := s.message(n)
		if m.fate != alive {
			continue
		}
		if m.delivered != c.n {
			next = m
			break
		}
		flying++
		bytes += m.m.Size()
	}
	if next == nil || flying >= c.window.Messages || flying > 0 && bytes+next.m.Size() > c.window.Bytes {
		s.stalled = stall{}
		return nil
	}
	if s.stalled.n != next.n || s.stalled.conn != c.n {
		s.stalled = stall{n: next.n, conn: c.n, since: time.Now()}
	}
	if d := time.Since(s.stalled.since); d > time.Second {
		return fmt.Errorf("message %d has not been delivered for %v", next.n, d)
	}
	return nil
}

// contents lists the live messages, from memory and from the store, and holds the lane's books against them.
func (l *Lane) contents(store *fakeStore) (live []int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var bytes int64
	saved, savedBytes := 0, int64(0)
	front := l.frontLocked()
	for i := range l.q.n + 1 {
		if i == front && l.gap.count > 0 {
			n, size := l.gapLocked(store)
			if len(n) != l.gap.count || size != l.gap.bytes {
				return nil, fmt.Errorf("the gap %+v has %v on disk, %d bytes", l.gap, n, size)
			}
			live = append(live, n...)
			bytes += size
			saved += len(n)
			savedBytes += size
		}
		if i == l.q.n {
			break
		}
		e := l.q.at(i)
		if e.state == gone {
			continue
		}
		live = append(live, number(&e.msg))
		bytes += e.msg.Size()
		if e.stored {
			saved++
			savedBytes += e.msg.Size()
		}
		if e.stored != (e.seq < l.disk.saved || e.seq < l.disk.flying.end) {
			return nil, fmt.Errorf("message %d: stored %v, saved to %d", e.seq, e.stored, l.disk.saved)
		}
	}
	switch {
	case bytes != l.bytes:
		return nil, fmt.Errorf("%v have %d bytes, counted are %d", live, bytes, l.bytes)
	case saved != l.disk.live, savedBytes != l.disk.bytes:
		return nil, fmt.Errorf("%d messages are on disk, counted are %d", saved, l.disk.live)
	}
	return live, nil
}

// gapLocked lists the messages that are on disk only.
func (l *Lane) gapLocked(store *fakeStore) (numbers []int, bytes int64) {
	holes := make(map[uint64]bool)
	for _, seq := range append(l.disk.gone[:len(l.disk.gone):len(l.disk.gone)], l.disk.flying.gone...) {
		holes[seq] = true
	}
	for _, r := range store.records(l.key) {
		if r.Seq >= l.gap.lo && r.Seq < l.gap.hi && !holes[r.Seq] {
			numbers = append(numbers, number(&r.Message))
			bytes += r.Message.Size()
		}
	}
	return numbers, bytes
}

// isEarly says whether a message was acknowledged while it was on disk only.
func (l *Lane) isEarly(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.gap.early[seq]
	return ok
}
