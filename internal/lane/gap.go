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
	retry   time.Duration // when it is tried again
	early   map[uint64]Reason
}

const (
	// A piece of a gap is read at once, and kept in memory when more has been stored: messages and bytes.
	pieceMessages = 64
	pieceBytes    = 128 << 10
	// pressedShare is the part of a piece that is kept when memory is getting short.
	pressedShare = 8
)

func (g *gap) holds(seq uint64) bool { return g.count > 0 && seq >= g.lo && seq < g.hi }

// doneLocked takes note of a message that was delivered on an earlier connection and is acknowledged (or dropped, if
// there is a reason) only now that it is on disk only. It is not to be delivered again.
func (g *gap) doneLocked(seq uint64, reason Reason) {
	if g.early == nil {
		g.early = make(map[uint64]Reason)
	}
	if _, ok := g.early[seq]; !ok {
		g.early[seq] = reason
	}
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

// aheadLocked is how much of what is on disk is kept in memory for the consumer.
func (l *Lane) aheadLocked() (messages int, bytes int64) {
	if l.spool.pressed() {
		return pieceMessages / pressedShare, pieceBytes / pressedShare
	}
	return pieceMessages, pieceBytes
}

// evictLocked lets go of messages that are on disk and not needed soon: all but the next ones, if there is a consumer.
// They become part of the gap.
func (l *Lane) evictLocked() {
	start, stop := l.q.index(l.cursor), l.q.index(l.disk.saved)
	if l.gap.count > 0 {
		start = l.q.index(l.gap.hi)
	} else {
		start = l.neededLocked(start, stop)
	}
	if start >= stop {
		return
	}
	g := &l.gap
	if seq, at, n := l.letGoLocked(start, stop); n > 0 {
		if g.count == n {
			g.lo, g.oldest = seq, at
		}
		g.hi = l.disk.saved
	}
}

// evictFrontLocked makes the gap begin earlier, where the messages before it are not needed soon.
func (l *Lane) evictFrontLocked() {
	stop := l.frontLocked()
	if l.gap.count == 0 {
		return
	}
	if start := l.neededLocked(l.q.index(l.cursor), stop); start < stop {
		if seq, at, n := l.letGoLocked(start, stop); n > 0 {
			l.gap.lo, l.gap.oldest = seq, at
		}
	}
}

// neededLocked returns the end of the messages from the i-th to before the j-th that the consumer will want soon: at
// least one, if there is a consumer.
func (l *Lane) neededLocked(i, j int) int {
	if l.reader == nil {
		return i
	}
	messages, bytes := l.aheadLocked()
	for ; i < j && messages > 0 && bytes > 0; i++ {
		if e := l.q.at(i); e.state != gone {
			messages--
			bytes -= e.msg.Size()
		}
	}
	return i
}

// letGoLocked moves n entries, from the i-th to before the j-th but for those that are gone, to the gap. It returns the
// first one's sequence number and time.
func (l *Lane) letGoLocked(i, j int) (seq uint64, at time.Duration, n int) {
	var size int64
	for k := i; k < j; k++ {
		e := l.q.at(k)
		if e.state == gone {
			continue // and reported, as everything that is stored
		}
		if n++; n == 1 {
			seq, at = e.seq, e.at
		}
		if !e.msg.Expires.IsZero() {
			l.expiring--
		}
		size += e.msg.Size()
	}
	l.q.cut(i, j)
	l.gap.count += n
	l.gap.bytes += size
	l.freeLocked(size)
	if l.live == l.gap.count {
		l.roomLocked() // one may come in, however much memory other lanes hold
	}
	return seq, at, n
}

// loadLocked has the next piece of the gap read, if there is one. Spool.load ends with loaded.
func (l *Lane) loadLocked() bool {
	if l.gap.count == 0 {
		return false
	}
	if !l.gap.failed { // otherwise the tick tries again
		l.requestLocked()
	}
	return true
}

func (l *Lane) requestLocked() {
	if !l.gap.loading {
		l.gap.loading = true
		l.spool.load(l)
	}
}

// brokenLocked notes whether the gap could be read.
func (l *Lane) brokenLocked(broken bool) {
	if l.gap.failed == broken {
		return
	}
	l.gap.failed = broken
	if broken {
		l.spool.broken.Add(1)
		l.gap.retry = time.Since(l.epoch) + retryEvery
		l.attendLocked()
	} else {
		l.spool.broken.Add(-1)
	}
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
	case err != nil:
		l.brokenLocked(true)
	case g.lo != p.from: // it is not the same gap
		l.brokenLocked(false)
		l.loadLocked()
	default:
		l.brokenLocked(false)
		if l.insertLocked(p, records) {
			r = l.reader // else there was no memory, nor need for it: reading it again would not help
		}
		if l.sweepLocked() {
			r = l.reader // for what it waited for
		}
	}
	if l.cfg.OnFull == DropOldest {
		l.roomLocked() // it may have waited for this
	}
	l.unlockAndCall()
	if r != nil {
		r.Pump()
	}
}

// insertLocked takes as many records as there is memory for, but at least one if there is nothing else to be delivered.
// It returns whether the gap has become smaller.
func (l *Lane) insertLocked(p piece, records []Record) bool {
	g := &l.gap
	at := l.frontLocked()
	must := !l.waitsLocked(at)
	entries := make([]entry, 0, len(records))
	last := p.before
	if full(records) {
		last = records[len(records)-1].Seq + 1
	}
	messages, bytes := l.aheadLocked()
	var size int64
	for i := range records {
		if _, hole := p.holes[records[i].Seq]; hole {
			continue
		}
		e := l.restoreLocked(&records[i])
		n := e.msg.Size()
		first := must && len(entries) == 0
		enough := len(entries) >= messages || size >= bytes
		if enough && !first || !l.cfg.Budget.reserve(n, first) {
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
	if surplus := len(entries) - g.count; surplus > 0 {
		l.surplusLocked(surplus, size, last < g.hi)
	}
	g.count -= len(entries)
	g.bytes -= size
	g.lo = last
	if len(entries) > 0 {
		g.oldest = entries[len(entries)-1].at
	}
	if g.count > 0 && g.lo >= g.hi { // they are not there
		l.dropGapLocked(Damaged)
	}
	for seq, reason := range g.early {
		if seq >= last {
			continue
		}
		delete(g.early, seq)
		if reason == 0 {
			l.doneLocked(seq, Delivered, 0)
		} else {
			l.doneLocked(seq, Dropped, reason)
		}
	}
	if g.count == 0 {
		*g = gap{}
	}
	return last > p.from
}

// surplusLocked is for a store that has more messages than it said: one that was mended may bring back some that were
// deleted. They count as accepted once more. If there may be more of them the gap goes on.
func (l *Lane) surplusLocked(n int, size int64, more bool) {
	if more {
		n++ // counted as damaged if it is not there
	}
	size = max(0, size-l.gap.bytes)
	l.count.Accepted += uint64(n)
	l.live += n
	l.bytes += size
	l.disk.live += n
	l.disk.bytes += size
	_ = l.spool.disk.reserve(size, true)
	l.gap.count += n
	l.gap.bytes += size
}

// waitsLocked says whether a message before the i-th entry waits for delivery.
func (l *Lane) waitsLocked(i int) bool {
	for j := l.q.index(l.cursor); j < i; j++ {
		if l.q.at(j).state == queued {
			return true
		}
	}
	return false
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
	l.disk.forget(l, g.count, g.bytes)
	l.disk.ended = true
	l.brokenLocked(false)
	*g = gap{loading: g.loading}
	l.roomLocked()
}
