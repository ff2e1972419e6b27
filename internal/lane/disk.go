package lane

import "time"

// disk is what a lane knows of its records in the store.
type disk struct {
	saved  uint64   // every live message before this sequence number is on disk, and settled
	live   int      // messages on disk, or on their way there
	bytes  int64    // of live
	gone   []uint64 // finished, and not deleted yet
	ended  bool     // a gap has come to its end: its records go when State.Head has passed them
	wanted bool     // the spool has been asked to look
	last   *State   // as of the last commit; not changed, and shared where it says nothing
	flying *flight  // the same
}

var (
	untouched = &State{Head: 1, Next: 1}
	unknown   = new(State) // other than any
	grounded  = new(flight)
)

// flight is what is being committed.
type flight struct {
	end   uint64
	gone  []uint64
	ended bool
	more  bool // there was not enough room for everything
	marks
}

// forget takes n messages out of the books. Their records are deleted with some later commit.
func (d *disk) forget(l *Lane, n int, size int64) {
	d.live -= n
	d.bytes -= size
	l.spool.disk.free(size)
	l.attendLocked()
}

// deletes says that there is something to be deleted.
func (d *disk) deletes() bool { return len(d.gone) > 0 || d.ended }

// savedTo says whether everything before a sequence number is on disk, or finished.
func (l *Lane) savedTo(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.unsavedLocked()
	return e == nil || e.seq >= seq
}

// unsavedLocked returns the oldest message that is not on disk, nil if there is none.
func (l *Lane) unsavedLocked() *entry {
	for i := l.q.index(l.disk.saved); i < l.q.n; i++ {
		if e := l.q.at(i); e.state != gone {
			return e
		}
	}
	return nil
}

// offeredLocked has a new message stored, if it is not to wait for the far side.
func (l *Lane) offeredLocked(qos byte) {
	if l.spool == nil {
		return
	}
	l.attendLocked()
	if l.eagerLocked() || l.cfg.Always && qos > 0 {
		l.spool.store(l)
	}
}

// eagerLocked says that there is no point in waiting for the far side.
func (l *Lane) eagerLocked() bool { return l.away && l.reader == nil || l.gap.count > 0 }

func (l *Lane) awayLocked() {
	l.away = true
	if l.spool != nil && l.unsavedLocked() != nil {
		l.spool.store(l)
	}
}

// attendLocked has the spool's timer look at the lane until there is nothing to do any more.
func (l *Lane) attendLocked() {
	if !l.unsaved && l.spool != nil {
		l.unsaved = true
		l.spool.attend(l)
	}
}

// tick has what is due stored, and returns whether there may be more to do. pressed says that memory is getting short,
// tidy that deletions are due.
func (l *Lane) tick(now time.Time, pressed, tidy bool) bool {
	l.mu.Lock()
	e, age := l.unsavedLocked(), now.Sub(l.epoch)
	waits := e != nil && (pressed || l.cfg.Always || l.eagerLocked() || age-e.at >= l.cfg.SpillAfter)
	deletes := l.disk.deletes() || l.marks.pending()
	if waits || deletes && tidy || l.stage == leaving {
		l.spool.store(l)
	}
	if l.gap.failed && age >= l.gap.retry {
		l.gap.retry = age + retryEvery
		l.requestLocked()
	}
	l.unsaved = e != nil || deletes || l.gap.failed || l.stage == leaving
	unsaved := l.unsaved
	l.unlockAndCall()
	return unsaved
}

// evict lets go of what is on disk and not needed soon.
func (l *Lane) evict() {
	l.mu.Lock()
	l.evictFrontLocked()
	l.evictLocked()
	l.unlockAndCall()
}

// collectLocked gathers what is to be committed, of about quota bytes. ok is false if there is nothing. Afterwards
// either committed or failed is called. In the end it includes a ledger that has changed.
func (l *Lane) collectLocked(quota int64, end bool) (c Change, size int64, ok bool) {
	d := &l.disk
	d.wanted = false
	if l.stage == released {
		return Change{}, 0, false
	}
	f := flight{end: l.q.end()}
	for i := l.q.index(d.saved); i < l.q.n; i++ {
		e := l.q.at(i)
		if e.state == gone {
			continue
		}
		n := e.msg.Size()
		f.more = size > 0 && size+n > quota
		if f.more || !l.spool.reserve(n) {
			f.end = e.seq
			break
		}
		e.stored = true
		d.live++
		d.bytes += n
		size += n
		c.Put = append(c.Put, l.recordLocked(e))
		l.marks.storeLocked(e)
	}
	c.State = l.stateLocked(f.end)
	if len(c.Put) == 0 && !d.deletes() && !l.marks.pending() && (!end || c.State == *d.last) {
		return Change{}, 0, false
	}
	for _, seq := range d.gone {
		if seq >= c.State.Head { // the others go with the head
			f.gone = append(f.gone, seq)
		}
	}
	f.ended = d.ended || len(f.gone) < len(d.gone)
	d.gone, d.ended = nil, false
	c.Key, c.Gone = l.key, l.doubtfulLocked(f.gone, f.end)
	f.marks, c.Unmark, c.Mark, c.Fresh = l.marks.takeLocked()
	d.flying, d.last = &f, &c.State
	return c, size, true
}

// doubtfulLocked adds to what is to be deleted the messages that do not fit any more, though an attempt to store them
// that failed may have succeeded: the store must have nothing behind State.Next.
func (l *Lane) doubtfulLocked(finished []uint64, end uint64) []uint64 {
	finished = finished[:len(finished):len(finished)]
	for i := l.q.index(end); i < l.q.n; i++ {
		if e := l.q.at(i); e.state == gone {
			continue
		} else if !e.doubtful {
			break
		}
		finished = append(finished, l.q.at(i).seq)
	}
	return finished
}

// stateLocked is the lane without what is not before end.
func (l *Lane) stateLocked(end uint64) State {
	s := State{
		Head: end, Next: end, Sent: min(l.sent, end-1), Queued: l.disk.live, Bytes: l.disk.bytes,
		Delivered: l.count.Delivered, Dropped: l.count.Dropped,
	}
	if seq, at, ok := l.headLocked(); ok && seq < end {
		s.Head, s.Oldest = seq, l.wall(at)
	}
	s.Accepted = s.Delivered + uint64(s.Queued) + l.count.DroppedTotal()
	return s
}

// committed settles what is on disk now.
func (l *Lane) committed() {
	l.mu.Lock()
	f := l.disk.flying
	l.disk.flying = grounded
	i, stop := l.q.index(l.disk.saved), l.q.index(f.end)
	l.disk.saved = f.end
	for ; i < stop; i++ {
		if e := l.q.at(i); e.outcome == 0 {
			l.settleLocked(e, Stored)
		}
	}
	l.evictLocked()
	l.trimLocked()
	if f.more {
		l.spool.store(l)
	}
	r := l.reader
	if !l.cfg.Always {
		r = nil // nothing waited for this
	}
	l.unlockAndCall()
	for _, done := range f.waiting {
		done()
	}
	if r != nil {
		r.Pump()
	}
}

// failed takes back what collectLocked did, to be tried again. What the store has of it all the same is doubtful.
func (l *Lane) failed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &l.disk
	for i := l.q.index(d.saved); i < l.q.index(d.flying.end); i++ {
		if e := l.q.at(i); e.stored && e.state != gone {
			e.stored, e.doubtful = false, true
			n := e.msg.Size()
			d.live--
			d.bytes -= n
			l.spool.disk.free(n)
		}
	}
	d.gone = append(d.flying.gone, d.gone...)
	d.ended = d.ended || d.flying.ended
	l.marks.giveBackLocked(d.flying.marks)
	d.flying, d.last = grounded, unknown
	l.attendLocked()
	l.spool.store(l)
}

// rewrite has the lane's ledger stored again.
func (l *Lane) rewrite() {
	l.mu.Lock()
	l.disk.ended, l.disk.last = true, unknown
	l.attendLocked()
	l.spool.store(l)
	l.mu.Unlock()
}

// recordLocked is a message as it is stored. Times are the wall clock's as of the lane's beginning and what has passed
// since, so that setting the clock meanwhile does not age messages.
func (l *Lane) recordLocked(e *entry) Record {
	m := e.msg
	if !m.Expires.IsZero() {
		m.Expires = l.wall(m.Expires.Sub(l.epoch))
	}
	return Record{Seq: e.seq, At: l.wall(e.at), Message: m}
}

func (l *Lane) wall(d time.Duration) time.Time { return l.epoch.Add(d).Round(0) }

// restoreLocked is the reverse of recordLocked.
func (l *Lane) restoreLocked(r *Record) entry {
	at := l.sinceEpoch(r.At)
	m := r.Message
	if !m.Expires.IsZero() { // it lives as long as it had to live, whatever the clock says
		m.Expires = l.epoch.Add(at + m.Expires.Sub(r.At))
	}
	return entry{seq: r.Seq, msg: m, at: at, outcome: Stored, stored: true}
}

// sinceEpoch places a time of the store. One of a gateway whose clock was not set, or is not set now, becomes now.
func (l *Lane) sinceEpoch(t time.Time) time.Duration {
	now := time.Since(l.epoch)
	if unset(t) {
		return now
	}
	return min(t.Sub(l.epoch), now)
}

// unset says that a clock which showed this time was not set.
func unset(t time.Time) bool { return t.Year() < 2020 }

// resume makes the lane what the store has of it.
func (l *Lane) resume(s Saved) {
	st := &s.State
	next := max(1, st.Next)
	l.q.next, l.cursor, l.release, l.sent = next, next, next, st.Sent
	l.count = Counters{Accepted: st.Accepted, Delivered: st.Delivered, Dropped: st.Dropped}
	for r := range st.Dropped {
		if st.Dropped[r] > 0 {
			l.count.LastDropped = Reason(r)
		}
	}
	l.live, l.bytes = st.Queued, st.Bytes
	l.disk = disk{saved: next, live: st.Queued, bytes: st.Bytes, last: untouched, flying: grounded}
	if *st != *untouched {
		last := *st
		l.disk.last = &last
	}
	l.marks.restore(s.Marks)
	l.savedMarks = s.Marks
	if st.Queued > 0 {
		l.cursor = st.Head
		l.gap = gap{lo: st.Head, hi: st.Next, count: st.Queued, bytes: st.Bytes, oldest: l.sinceEpoch(st.Oldest)}
	}
}
