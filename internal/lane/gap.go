package lane

import "time"

// gap is the part of a lane that is on disk only: count messages with sequence numbers from lo to before hi. Those in
// memory are all before or all behind it. It moves backwards as messages are read, and grows at its end as messages are
// stored and let go of. Its zero value has none.
type gap struct {
	lo, hi  uint64
	count   int
	bytes   int64
	oldest  time.Duration // when the first was accepted, since the lane's epoch, or somewhat earlier
	loading bool          // a piece is being read
	failed  bool          // it could not be read
	early   map[uint64]struct{}
}

const (
	// A piece of a gap is read at once, and kept in memory when more has been stored: messages and bytes.
	pieceMessages = 64
	pieceBytes    = 128 << 10
	// loadBelow is how many messages must be left in memory for more to be read.
	loadBelow = pieceMessages / 2
)

func (g *gap) holds(seq uint64) bool { return g.count > 0 && seq >= g.lo && seq < g.hi }

// doneLocked takes note of a message that was delivered on an earlier connection and is acknowledged only now that it is
// on disk only. It is not to be delivered again.
func (g *gap) doneLocked(seq uint64) {
	if g.early == nil {
		g.early = make(map[uint64]struct{})
	}
	g.early[seq] = struct{}{}
}

// frontLocked is how many entries of q are before the gap: those that may be delivered.
func (l *Lane) frontLocked() int {
	if l.gap.count == 0 {
		return l.q.n
	}
	return l.q.index(l.gap.lo)
}

// firstLocked is the sequence number of the oldest message, or where it would be.
func (l *Lane) firstLocked() uint64 {
	if l.gap.count == 0 {
		return l.q.first()
	}
	return min(l.q.first(), l.gap.lo)
}

// headLocked returns the sequence number of the oldest live message and when it was accepted.
func (l *Lane) headLocked() (seq uint64, at time.Duration, ok bool) {
	front := l.frontLocked()
	for i := range l.q.n {
		if i == front {
			break
		}
		if e := l.q.at(i); e.state != gone {
			return e.seq, e.at, true
		}
	}
	if l.gap.count > 0 {
		return l.gap.lo, l.gap.oldest, true
	}
	return 0, 0, false
}

// evictLocked lets go of messages that are on disk and not needed soon: all but the next ones, if there is a consumer.
// They become part of the gap.
func (l *Lane) evictLocked() {
	start, stop := l.q.index(l.cursor), l.q.index(l.disk.saved)
	switch {
	case l.gap.count > 0:
		start = l.q.index(l.gap.hi)
	case l.reader != nil && l.spool.pressed():
		start++
	case l.reader != nil:
		start += pieceMessages
	}
	if start >= stop {
		return
	}
	g := &l.gap
	var freed int64
	for i := start; i < stop; i++ {
		e := l.q.at(i)
		if e.state == gone {
			continue // and reported, as everything that is stored
		}
		if g.count == 0 {
			g.lo, g.oldest = e.seq, e.at
		}
		if !e.msg.Expires.IsZero() {
			l.expiring--
		}
		g.count++
		freed += e.msg.Size()
	}
	g.hi = l.disk.saved
	g.bytes += freed
	l.q.cut(start, stop)
	l.freeLocked(freed)
}

// loadLocked has the next piece of the gap read, if there is one. Spool.load ends with loaded.
func (l *Lane) loadLocked() bool {
	if l.gap.count == 0 {
		return false
	}
	if !l.gap.loading && !l.gap.failed {
		l.gap.loading = true
		l.spool.load(l)
	}
	return true
}

// piece is a part of a gap that is to be read.
type piece struct {
	from, before uint64
	// holes are records that are still on disk and not to be delivered.
	holes map[uint64]struct{}
}

func (l *Lane) nextPiece() piece {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := piece{from: l.gap.lo, before: l.gap.hi, holes: make(map[uint64]struct{})}
	for _, gone := range [][]uint64{l.disk.gone, l.disk.flying.gone} {
		for _, seq := range gone {
			if seq >= p.from && seq < p.before {
				p.holes[seq] = struct{}{}
			}
		}
	}
	return p
}

// loaded takes a piece of the gap as it was read from the store.
func (l *Lane) loaded(p piece, records []Record, err error) {
	l.mu.Lock()
	g := &l.gap
	g.loading = false
	var r *Reader
	switch {
	case g.count == 0: // it was dropped meanwhile
	case g.lo != p.from: // and another one has come
		l.loadLocked()
	case err != nil:
		g.failed = true // the spool's next tick tries again
		l.unsaved.Store(true)
	default:
		l.insertLocked(p, records)
		if l.cfg.MaxAge > 0 || l.expiring > 0 {
			l.sweepLocked()
		}
		if l.cfg.OnFull == DropOldest {
			l.roomLocked() // it may have waited for this
		}
		r = l.reader
	}
	l.unlockAndCall()
	if r != nil {
		r.Pump()
	}
}

// insertLocked takes as many records as there is memory for, but at least one if there is nothing else to be delivered.
func (l *Lane) insertLocked(p piece, records []Record) {
	g := &l.gap
	at := l.frontLocked()
	must := l.q.index(l.cursor) == at
	entries := make([]entry, 0, len(records))
	last := p.before
	if full(records) {
		last = records[len(records)-1].Seq + 1
	}
	var size int64
	for i := range records {
		if _, hole := p.holes[records[i].Seq]; hole {
			continue
		}
		e := l.restoreLocked(&records[i])
		n := e.msg.Size()
		if !l.cfg.Budget.reserve(n, must && len(entries) == 0) {
			last = e.seq
			break
		}
		if !e.msg.Expires.IsZero() {
			l.expiring++
		}
		size += n
		entries = append(entries, e)
	}
	l.q.insert(at, entries)
	g.count -= len(entries)
	g.bytes -= size
	g.lo = last
	if len(entries) > 0 {
		g.oldest = entries[len(entries)-1].at
	}
	if g.count > 0 && g.lo >= g.hi { // they are not there
		l.dropGapLocked(Damaged)
	}
	for seq := range g.early {
		if seq < last {
			delete(g.early, seq)
			l.doneLocked(seq, Delivered, 0)
		}
	}
	if g.count == 0 {
		*g = gap{}
	}
}

// full says whether a piece is as large as was asked for, so that there may be more.
func full(records []Record) bool {
	var size int64
	for i := range records {
		size += records[i].Message.Size()
	}
	return len(records) >= pieceMessages || size >= pieceBytes
}

// dropGapLocked ends everything that is on disk only.
func (l *Lane) dropGapLocked(reason Reason) {
	g := &l.gap
	if g.count == 0 {
		return
	}
	l.count.Dropped[reason] += uint64(g.count)
	l.count.LastDropped = reason
	l.live -= g.count
	l.bytes -= g.bytes
	l.disk.forget(l, g.lo, g.count, g.bytes)
	*g = gap{loading: g.loading}
	l.roomLocked()
}
