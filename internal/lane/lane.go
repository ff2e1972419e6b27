package lane

import (
	"sync"
	"time"

	"bridged/internal/mqtt"
)

// Source offers messages to a lane.
type Source interface {
	// Settled is called exactly once for each message that was taken with a source: t is the token of its Offer.
	Settled(t mqtt.Token, o Outcome)
	// Room is called once after Offer returned false, as soon as it is worth trying again.
	Room()
}

// Batcher is a Source that gathers what it makes of settled messages. Its type must be comparable.
type Batcher interface {
	Source
	// SettledAll is called after each run of Settled calls, which may be a single one: there is no other for now.
	SettledAll()
}

// Outcome is how a message was settled.
type Outcome byte

const (
	// Delivered means that the far side acknowledged the message.
	Delivered Outcome = iota + 1
	// Dropped means that a rule dropped it; the counters say which.
	Dropped
	// Stored means that it is on disk, and will be delivered.
	Stored
)

// Policy decides what happens to a QoS 1 or 2 message when the lane is full. QoS 0 is always dropped then.
type Policy byte

const (
	// Block takes no further messages: Offer returns false.
	Block Policy = iota
	// DropOldest drops the oldest message that is not in flight.
	DropOldest
	// DropNewest drops the message that is offered.
	DropNewest
)

// Config is what a lane is allowed. Zero numbers mean no limit.
type Config struct {
	MaxMessages int           // messages held
	MaxBytes    int64         // bytes held, as Message.Size counts them
	MaxAge      time.Duration // undelivered messages older than this are dropped
	OnFull      Policy
	DropQoS0    bool    // drop QoS 0 while no consumer is attached
	Budget      *Budget // shared by the lanes of the process, nil for none

	// What the far side can take at all. A message beyond it is dropped when it is offered.
	MaxPayload     int64 // bytes
	MaxTopicBytes  int
	MaxTopicLevels int

	// Hold says whether the lane holds messages before its first consumer is attached.
	Hold bool

	// The rest is for lanes with a Spool.

	// SpillAfter is how long a message may be unsettled before it is stored.
	SpillAfter time.Duration
	// Always has each message of QoS 1 and 2 stored before it is settled or delivered.
	Always bool
	// Away says that the first consumer is not expected soon, so that messages are stored at once until it comes.
	Away bool
}

// Lane is one direction of one device. See the package comment.
type Lane struct {
	cfg   *Config   // protected by mu but for Budget; not changed, and shared with other lanes; see Reconfigure
	epoch time.Time // ages are counted from here, so that setting the clock does not change them
	spool *Spool    // nil: the lane lives in memory only
	key   Key
	// unsaved says that the spool's timer looks at the lane: there may be something to be stored. See attendLocked.
	unsaved    bool        // protected by mu
	savedMarks []mqtt.Mark // as of the start

	mu       sync.Mutex // protects the following fields
	q        ring       // what is in memory
	gap      gap        // what is on disk only, somewhere in the middle of q
	disk     disk
	marks    marks
	cursor   uint64 // sequence number of the next message for the consumer, or less
	release  uint64 // sequence number of the next message to be reported as settled, or less
	sent     uint64 // highest sequence number that was delivered: again it would be a repetition
	live     int    // messages that are neither delivered nor dropped
	bytes    int64  // of live
	expiring int    // live messages in memory with a time of their own to expire
	reader   *Reader
	stage    stage
	hold     bool
	away     bool // no consumer is expected soon
	calling  bool // somebody is making calls
	due      bool // the reader is to be pumped; only while corked
	corks    int  // calls of Cork without Uncork
	count    Counters
	blocked  []Source // whose Offer was refused
	calls    []call   // for sources, in order
}

type entry struct {
	seq     uint64
	msg     mqtt.Message
	from    Source // nil if nobody waits for the outcome, or not any more
	token   mqtt.Token
	at      time.Duration // since the lane's epoch
	outcome Outcome       // 0 until settled
	state   state
	stored  bool // it is on disk, or on its way there
	// doubtful says that a commit has failed which had it: it may be on disk.
	doubtful bool
}

type state byte

const (
	queued state = iota
	inFlight
	gone // delivered or dropped: a place holder until the entries before it are gone too
)

// spent says whether the entry is of no more use.
func (e *entry) spent() bool { return e.state == gone && e.from == nil }

// New returns an empty lane that lives in memory only. See Spool.Lane for others.
func New(cfg Config) *Lane { return newLane(&cfg) }

func newLane(cfg *Config) *Lane {
	return &Lane{
		cfg: cfg, hold: cfg.Hold, away: cfg.Away, epoch: time.Now(), q: ring{next: 1}, cursor: 1, release: 1,
		disk: disk{last: untouched, flying: grounded},
	}
}

// Offer hands a message over. From learns when it is settled, with the given token; it may be nil for QoS 0.
//
// Offer returns false if the lane is full and its policy is Block: then nothing happened, and from.Room is called when
// there is room. It also returns false while the lane is being released; Room is called if that fails. It never blocks.
func (l *Lane) Offer(m mqtt.Message, from Source, t mqtt.Token) bool {
	l.mu.Lock()
	live := l.live
	reason, taken := Reason(0), false
	for l.stage == open {
		if reason, taken = l.admitLocked(&m); taken || !l.due {
			break
		}
		l.catchUp() // that may make room
		l.mu.Lock()
		live = l.live
	}
	if !taken {
		if from != nil {
			l.blocked = append(l.blocked, from)
		}
		var r *Reader
		if l.live < live {
			r = l.reader // what was dropped may have been too large for the window, and what is behind it is not
		}
		l.unlockAndPump(r)
		return false
	}
	l.count.Accepted++
	if reason != 0 {
		l.refuseLocked(reason, from, t)
		l.unlockAndPump(nil)
		return true
	}
	l.q.push(entry{msg: m, from: from, token: t, at: time.Since(l.epoch)})
	l.live++
	l.bytes += m.Size()
	if !m.Expires.IsZero() {
		l.expiring++
	}
	l.offeredLocked(m.QoS)
	l.unlockAndPump(l.reader)
	return true
}

// admitLocked decides whether a message is queued (0, true), dropped (reason, true) or not taken (0, false); in the
// first case it makes room and reserves memory. One that does not fit is not taken as long as the reader is to be
// pumped. A lane with nothing in memory may always take a message: however much memory other lanes hold, a device whose
// cloud is well goes on.
func (l *Lane) admitLocked(m *mqtt.Message) (Reason, bool) {
	size := m.Size()
	switch {
	case l.cfg.MaxPayload > 0 && int64(len(m.Payload)) > l.cfg.MaxPayload,
		l.cfg.MaxBytes > 0 && size > l.cfg.MaxBytes,
		!l.cfg.Budget.fits(size):
		return TooLarge, true
	case l.cfg.MaxTopicBytes > 0 && len(m.Topic) > l.cfg.MaxTopicBytes,
		l.cfg.MaxTopicLevels > 0 && mqtt.Levels(m.Topic) > l.cfg.MaxTopicLevels:
		return TopicLimit, true
	case l.reader == nil && !l.hold:
		return NoSession, true
	case l.reader == nil && m.QoS == 0 && l.cfg.DropQoS0:
		return QoS0Away, true
	}
	for {
		own := l.fitsLocked(size)
		if own && l.cfg.Budget.reserve(size, l.mustTakeLocked()) {
			return 0, true
		}
		if l.due {
			return 0, false
		}
		policy := l.cfg.OnFull
		if own && l.spool.works() {
			policy = Block // the disk makes room in memory
			l.spool.store(l)
		}
		switch {
		case m.QoS == 0 || policy == DropNewest:
			return QueueFull, true
		case policy == Block:
			if own && l.cfg.Budget.wait(l, size) {
				continue // there is room by now
			}
			return 0, false
		case l.dropOldestLocked():
		case !l.gap.failed && l.loadLocked():
			return 0, false // until the oldest has been read
		default:
			return QueueFull, true // everything older is in flight, or cannot be read
		}
	}
}

// mustTakeLocked says that a message may come in although memory is short, since none is in memory. Not so if it could
// not leave: the far side is away, and the disk fails.
func (l *Lane) mustTakeLocked() bool {
	return l.live == l.gap.count && (l.spool == nil || l.reader != nil || l.spool.works())
}

// fitsLocked says whether the lane's own bounds let a message of this size in.
func (l *Lane) fitsLocked(size int64) bool {
	return (l.cfg.MaxMessages == 0 || l.live < l.cfg.MaxMessages) &&
		(l.cfg.MaxBytes == 0 || l.bytes+size <= l.cfg.MaxBytes)
}

// refuseLocked drops a message that was not queued. Its report still waits for those of the messages before it.
func (l *Lane) refuseLocked(reason Reason, from Source, t mqtt.Token) {
	l.count.Dropped[reason]++
	l.count.LastDropped = reason
	if from != nil {
		l.settleLocked(l.q.push(entry{from: from, token: t, state: gone}), Dropped)
		l.trimLocked()
	}
}

// dropOldestLocked drops the oldest message that is not in flight, or returns false if there is none in memory.
func (l *Lane) dropOldestLocked() bool {
	for i := l.q.index(l.cursor); i < l.frontLocked(); i++ {
		if e := l.q.at(i); e.state == queued {
			l.cursor = e.seq + 1
			l.finishLocked(e, Dropped, QueueFull)
			l.trimLocked()
			return true
		}
	}
	return false
}

// finishLocked ends a live message: it is accounted for, settled, and its memory is free.
func (l *Lane) finishLocked(e *entry, o Outcome, reason Reason) {
	size := e.msg.Size()
	if e.state == inFlight && l.reader != nil {
		l.reader.inFlight--
		l.reader.inFlightBytes -= size
	}
	if !e.msg.Expires.IsZero() {
		l.expiring--
	}
	l.live--
	l.bytes -= size
	switch {
	case e.stored:
		l.disk.gone = append(l.disk.gone, e.seq)
		l.disk.forget(l, 1, size)
	case e.doubtful:
		l.disk.gone = append(l.disk.gone, e.seq)
	}
	e.state = gone
	e.msg = mqtt.Message{}
	if o == Delivered {
		l.count.Delivered++
	} else {
		l.count.Dropped[reason]++
		l.count.LastDropped = reason
	}
	l.settleLocked(e, o)
	l.freeLocked(size)
	l.roomLocked()
}

// freeLocked gives memory back and wakes those who wait for it.
func (l *Lane) freeLocked(size int64) {
	for _, waiting := range l.cfg.Budget.free(size) {
		if waiting == l {
			l.roomLocked()
			continue
		}
		l.calls = append(l.calls, call{other: waiting})
	}
}

// settleLocked records the outcome of a message and queues the reports that have become due, in order.
func (l *Lane) settleLocked(e *entry, o Outcome) {
	if e.outcome == 0 {
		e.outcome = o
	}
	for i := l.q.index(l.release); i < l.q.n; i++ {
		e := l.q.at(i)
		if e.outcome == 0 && e.from != nil {
			l.release = e.seq
			return
		}
		if e.from != nil {
			l.calls = append(l.calls, call{from: e.from, token: e.token, outcome: e.outcome})
			e.from = nil
		}
	}
	l.release = l.q.end()
}

// trimLocked lets go of the entries that are gone and reported.
func (l *Lane) trimLocked() {
	for l.q.n > 0 && l.q.at(0).spent() {
		l.q.pop()
	}
	if l.gap.count == 0 {
		l.cursor = max(l.cursor, l.q.first())
	}
}

// Sweep drops what has become too old, and gives back memory that an empty lane does not need. It is called now and
// then, for lanes whose consumer is away or slow. If there is one the caller must not hold a lock that its methods
// take.
func (l *Lane) Sweep() {
	l.mu.Lock()
	var r *Reader
	if l.sweepLocked() {
		r = l.reader
	}
	l.q.rest()
	l.unlockAndCall()
	if r != nil {
		r.Pump()
	}
}

// sweepLocked returns whether it has dropped something: what the window held back, and what is behind that on disk, may
// have its turn now.
func (l *Lane) sweepLocked() (dropped bool) {
	if l.cfg.MaxAge == 0 && l.expiring == 0 {
		return false
	}
	now := time.Now()
	for i := l.q.index(l.cursor); i < l.q.n; i++ {
		e := l.q.at(i)
		if e.state != queued {
			continue
		}
		if l.expiredLocked(e, now) {
			l.finishLocked(e, Dropped, Expired)
			dropped = true
		} else if l.expiring == 0 {
			break // the rest is younger
		}
	}
	l.trimLocked()
	if l.gap.count > 0 && l.cfg.MaxAge > 0 && now.Sub(l.epoch)-l.gap.oldest > l.cfg.MaxAge {
		l.loadLocked() // to look at
	}
	return dropped
}

func (l *Lane) expiredLocked(e *entry, now time.Time) bool {
	return l.cfg.MaxAge > 0 && now.Sub(l.epoch)-e.at > l.cfg.MaxAge ||
		!e.msg.Expires.IsZero() && !now.Before(e.msg.Expires)
}

// Empty says whether the lane holds no message.
func (l *Lane) Empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live == 0
}
