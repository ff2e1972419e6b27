package lane

import (
	"time"

	"bridged/internal/mqtt"
)

// Consumer delivers a lane's messages to the far side. Its methods are called one at a time and must not block.
type Consumer interface {
	// Ready says whether another message can be delivered now. After it said no, the consumer calls Pump.
	Ready() bool
	// Deliver sends a message. A QoS 0 message is done with that; for others the consumer calls Done later.
	Deliver(d Delivery)
	// Flush is called after a run of Deliver calls.
	Flush()
}

// Delivery is a message on its way to the far side.
type Delivery struct {
	Seq     uint64 // names the message in Done
	Dup     bool   // it was delivered before, on a connection that is gone
	Message mqtt.Message
}

// Window bounds what is delivered and not done. A message larger than Bytes is delivered alone. Zero means no bound.
type Window struct {
	Messages int
	Bytes    int64
}

// Reader is a consumer's hold on a lane, from Attach to Detach.
type Reader struct {
	l      *Lane
	c      Consumer
	window Window

	// Protected by the lane's mutex.
	inFlight      int
	inFlightBytes int64
	started       bool
	pumping       bool
	again         bool
}

// Attach makes c the lane's consumer, in place of any other. What was delivered and is not done is delivered again,
// before anything else. Deliveries begin with Start; until then Attach calls neither the consumer nor a source.
func (l *Lane) Attach(c Consumer, w Window) *Reader {
	r := &Reader{l: l, c: c, window: w}
	l.mu.Lock()
	l.rewindLocked()
	l.reader, l.away = r, false
	l.mu.Unlock()
	return r
}

// Start lets deliveries begin. The caller must not hold a lock that the consumer's or a source's methods take.
func (r *Reader) Start() {
	l := r.l
	l.mu.Lock()
	r.started = true
	if l.mustTakeLocked() {
		l.roomLocked() // what comes in can leave again, even if the disk fails
	}
	l.unlockAndCall()
	r.Pump()
}

// rewindLocked puts what is in flight back into the queue. A QoS 0 message that is just being delivered is done: it may
// not come twice.
func (l *Lane) rewindLocked() {
	for i := range l.q.index(l.cursor) {
		switch e := l.q.at(i); {
		case e.state != inFlight:
		case e.msg.QoS == 0:
			l.finishLocked(e, Delivered, 0)
		default:
			e.state = queued
		}
	}
	l.trimLocked()
	l.cursor = l.firstLocked()
	l.reader = nil
}

// Detach ends the reader; a Deliver that is under way elsewhere may still finish. If hold is set the lane holds what it
// has and what comes, for the next consumer, and a lane with a spool stores it; otherwise the session is over, and both
// are dropped. Detach does nothing if another consumer has been attached since.
func (r *Reader) Detach(hold bool) {
	l := r.l
	l.mu.Lock()
	if l.reader == r {
		l.rewindLocked()
		l.holdLocked(hold)
		l.awayLocked()
	}
	l.unlockAndCall()
}

// Expect says that a consumer, if there is none, will come as soon as there is something for it: messages are not
// stored just because it is not there.
func (l *Lane) Expect() {
	l.mu.Lock()
	l.away = false
	l.mu.Unlock()
}

// Away takes Expect back.
func (l *Lane) Away() {
	l.mu.Lock()
	if l.reader == nil {
		l.awayLocked()
	}
	l.unlockAndCall()
}

// Hold says whether the lane holds messages while no consumer is attached. Turning it off drops what is queued,
// unless a consumer is attached.
func (l *Lane) Hold(hold bool) {
	l.mu.Lock()
	if l.reader == nil {
		l.holdLocked(hold)
	} else {
		l.hold = hold
	}
	l.unlockAndCall()
}

func (l *Lane) holdLocked(hold bool) {
	l.hold = hold
	if hold {
		return
	}
	l.dropGapLocked(SessionEnded)
	for i := range l.q.n {
		if e := l.q.at(i); e.state != gone {
			l.finishLocked(e, Dropped, SessionEnded)
		}
	}
	l.trimLocked()
}

// Pump delivers what may be delivered. If another goroutine is delivering, that one goes on for this call too. The
// caller must not hold a lock that the consumer's or a source's methods take.
func (r *Reader) Pump() {
	l := r.l
	l.mu.Lock()
	if r.pumping {
		r.again = true
		l.mu.Unlock()
		return
	}
	r.pumping = true
	for {
		r.again = false
		n := r.runLocked()
		if n > 0 {
			l.mu.Unlock()
			r.c.Flush()
			l.mu.Lock()
		}
		if !r.again {
			break
		}
	}
	r.pumping = false
	l.unlockAndCall()
}

// runLocked delivers until the lane is empty, the window full or the consumer not ready, and returns how many.
func (r *Reader) runLocked() (n int) {
	l := r.l
	for l.reader == r && r.started {
		e := r.nextLocked()
		if e == nil {
			return n
		}
		seq := e.seq
		l.mu.Unlock()
		ready := r.c.Ready()
		l.mu.Lock()
		if !ready {
			return n
		}
		// The lane may have changed meanwhile: look again before handing the message out.
		again := r.nextLocked()
		if again == nil || again.seq != seq || l.reader != r {
			continue
		}
		e = again
		e.state = inFlight
		r.inFlight++
		r.inFlightBytes += e.msg.Size()
		l.cursor = seq + 1
		d := Delivery{Seq: seq, Dup: seq <= l.sent && e.msg.QoS > 0, Message: e.msg}
		l.sent = max(l.sent, seq)
		l.mu.Unlock()
		r.c.Deliver(d)
		n++
		l.mu.Lock()
		if d.Message.QoS == 0 {
			l.doneLocked(seq, Delivered, 0)
		}
	}
	return n
}

// nextLocked finds the next message that the window lets through, dropping what has become too old. It has more read
// from disk in time.
func (r *Reader) nextLocked() *entry {
	l := r.l
	front := l.frontLocked()
	i := l.q.index(l.cursor)
	if l.gap.count > 0 {
		if ahead, _ := l.aheadLocked(); front-i < ahead/2 {
			l.loadLocked()
		}
	}
	for ; i < front; i++ {
		e := l.q.at(i)
		l.cursor = e.seq
		switch {
		case e.state == gone:
		case (l.cfg.MaxAge > 0 || l.expiring > 0) && l.expiredLocked(e, time.Now()):
			l.finishLocked(e, Dropped, Expired)
		case l.cfg.Always && e.msg.QoS > 0 && e.outcome == 0 && l.spool.works(): // committed comes back here
			return nil
		case r.window.Messages > 0 && r.inFlight >= r.window.Messages,
			r.window.Bytes > 0 && r.inFlight > 0 && r.inFlightBytes+e.msg.Size() > r.window.Bytes:
			return nil
		default:
			return e
		}
	}
	l.cursor = l.q.end()
	if l.gap.count > 0 {
		l.cursor = l.gap.lo
		l.loadLocked()
	}
	l.trimLocked()
	return nil
}

// Done says that the far side acknowledged a message, and delivers more if that opened the window. It may come from a
// consumer that is no longer attached; a message that is done already is left alone.
func (r *Reader) Done(seq uint64) { r.l.end(seq, Delivered, 0) }

// Drop is like Done for a message that the far side can never take, for a reason that only the consumer knows.
func (r *Reader) Drop(seq uint64, reason Reason) { r.l.end(seq, Dropped, reason) }

func (l *Lane) end(seq uint64, o Outcome, reason Reason) {
	l.mu.Lock()
	l.doneLocked(seq, o, reason)
	current := l.reader
	if l.cursor == l.q.end() {
		current = nil // nothing waits
	}
	l.unlockAndPump(current)
}

func (l *Lane) doneLocked(seq uint64, o Outcome, reason Reason) {
	switch e := l.q.find(seq); {
	case e != nil && e.state != gone:
		l.finishLocked(e, o, reason)
		l.trimLocked()
	case e == nil && l.gap.holds(seq) && seq <= l.sent:
		l.gap.doneLocked(seq, reason) // it is known to be there, and what it is, when it has been read
	}
}
