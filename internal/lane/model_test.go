package lane

import (
	"time"

	"bridged/internal/mqtt"
)

// The model says in plain words what a lane does: a list of messages that is searched from the front each time.

type modelMessage struct {
	m       mqtt.Message
	from    bool // a source waits
	token   mqtt.Token
	at      time.Time
	state   state
	outcome Outcome
	told    bool
	dup     bool
	seq     uint64 // as it was delivered, 0 if it was not
}

type modelLane struct {
	cfg      Config
	budget   *modelBudget
	messages []*modelMessage // that were accepted, in order
	attached *modelReader    // nil if none
	hold     bool
	blocked  int // refusals that were not answered
	count    Counters

	// What the lane must say next.
	settled   []settlement
	rooms     int
	delivered []*modelMessage
}

type modelReader struct {
	window  Window
	started bool
	ready   bool
	lowers  bool // to QoS 0: Done is called from Deliver
}

type modelBudget struct {
	limit, used int64
	waiting     []*modelLane
}

// live calls f for the messages that are in the lane, in order, until it returns false.
func (l *modelLane) live(f func(*modelMessage) bool) {
	for _, m := range l.messages {
		if m.state != gone && !f(m) {
			return
		}
	}
}

func (l *modelLane) sums() (queued int, bytes int64, flying int, flyingBytes int64) {
	l.live(func(m *modelMessage) bool {
		queued++
		bytes += m.m.Size()
		if m.state == inFlight {
			flying++
			flyingBytes += m.m.Size()
		}
		return true
	})
	return
}

func (l *modelLane) offer(m mqtt.Message, from bool, t mqtt.Token) bool {
	reason, taken := l.admit(&m)
	if !taken {
		l.blocked++
		return false
	}
	l.count.Accepted++
	mm := &modelMessage{m: m, from: from, token: t, at: time.Now()}
	l.messages = append(l.messages, mm)
	if reason != 0 {
		l.drop(mm, reason)
		return true
	}
	l.budget.used += m.Size()
	l.pump()
	return true
}

func (l *modelLane) admit(m *mqtt.Message) (Reason, bool) {
	size := m.Size()
	switch {
	case l.cfg.MaxPayload > 0 && int64(len(m.Payload)) > l.cfg.MaxPayload, size > l.cfg.MaxBytes, size > l.budget.limit:
		return TooLarge, true
	case len(m.Topic) > l.cfg.MaxTopicBytes:
		return TopicLimit, true
	case l.attached == nil && !l.hold:
		return NoSession, true
	case l.attached == nil && m.QoS == 0 && l.cfg.DropQoS0:
		return QoS0Away, true
	}
	for {
		queued, bytes, _, _ := l.sums()
		own := queued < l.cfg.MaxMessages && bytes+size <= l.cfg.MaxBytes
		if own && (queued == 0 || l.budget.used+size <= l.budget.limit) {
			return 0, true
		}
		switch {
		case m.QoS == 0 || l.cfg.OnFull == DropNewest:
			return QueueFull, true
		case l.cfg.OnFull == Block:
			if own {
				l.budget.waiting = append(l.budget.waiting, l)
			}
			return 0, false
		}
		oldest := l.next()
		if oldest == nil {
			return QueueFull, true
		}
		l.finish(oldest, Dropped, QueueFull)
	}
}

// next is the oldest message that is not in flight.
func (l *modelLane) next() (next *modelMessage) {
	l.live(func(m *modelMessage) bool {
		if m.state == queued {
			next = m
		}
		return next == nil
	})
	return next
}

func (l *modelLane) drop(m *modelMessage, reason Reason) {
	m.state, m.outcome = gone, Dropped
	l.count.Dropped[reason]++
	l.count.LastDropped = reason
	l.report()
}

func (l *modelLane) finish(m *modelMessage, o Outcome, reason Reason) {
	if m.state == gone {
		return
	}
	m.state, m.outcome = gone, o
	if o == Delivered {
		l.count.Delivered++
		l.report()
	} else {
		l.drop(m, reason)
	}
	l.budget.used -= m.m.Size()
	if l.budget.used < l.budget.limit-l.budget.limit/8 {
		for _, w := range l.budget.waiting {
			w.room()
		}
		l.budget.waiting = nil
	}
	l.room()
}

func (l *modelLane) room() {
	l.rooms += l.blocked
	l.blocked = 0
}

// report tells the outcomes that are due, in the order of the messages.
func (l *modelLane) report() {
	for _, m := range l.messages {
		if !m.from || m.told {
			continue
		}
		if m.outcome == 0 {
			return
		}
		m.told = true
		l.settled = append(l.settled, settlement{m.token, m.outcome})
	}
}

func (l *modelLane) expired(m *modelMessage) bool {
	return l.cfg.MaxAge > 0 && time.Since(m.at) > l.cfg.MaxAge || !m.m.Expires.IsZero() && !time.Now().Before(m.m.Expires)
}

func (l *modelLane) pump() {
	r := l.attached
	for r != nil && r.started {
		m := l.next()
		if m == nil {
			return
		}
		if l.expired(m) {
			l.finish(m, Dropped, Expired)
			continue
		}
		_, _, flying, bytes := l.sums()
		if flying >= r.window.Messages || flying > 0 && bytes+m.m.Size() > r.window.Bytes || !r.ready {
			return
		}
		m.state = inFlight
		l.delivered = append(l.delivered, m)
		if m.m.QoS == 0 || r.lowers {
			l.finish(m, Delivered, 0)
		}
	}
}

// rewind makes what is in flight wait again.
func (l *modelLane) rewind() {
	l.live(func(m *modelMessage) bool {
		if m.state == inFlight {
			m.state, m.dup = queued, true
		}
		return true
	})
	l.attached = nil
}

func (l *modelLane) setHold(hold bool) {
	l.hold = hold
	if hold || l.attached != nil {
		return
	}
	l.live(func(m *modelMessage) bool {
		l.finish(m, Dropped, SessionEnded)
		return true
	})
}

func (l *modelLane) sweep() {
	l.live(func(m *modelMessage) bool {
		if m.state == queued && l.expired(m) {
			l.finish(m, Dropped, Expired)
		}
		return true
	})
}
