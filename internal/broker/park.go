package broker

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// The bounds of a parking. A message is parked in any case when it is alone.
const (
	maxParked      = 64
	maxParkedBytes = 256 << 10
	// keepParked is for how many messages memory stays allocated.
	keepParked = 4
)

// parked is a message on its way to the up lane.
type parked struct {
	message mqtt.Message
	token   mqtt.Token
	taken   int64 // memory
}

// parking holds a link's messages until the up lane takes them, so that the device is read while the lane is full.
// None overtakes those that it holds. Calls of empty, put and close do not overlap.
type parking struct {
	room   func() // is called when a message has left after put has refused one
	memory *lane.Budget

	mu       sync.Mutex // protects the following fields; never held while the lane is called
	queue    []parked   // the first may be on offer
	bytes    int64      // of queue
	wanted   bool       // room is to be called
	offering bool       // a goroutine offers; no other may
	refused  bool       // the lane has refused the first, and Room was not called since
	closed   bool
	idle     chan struct{} // close waits on it until nobody offers; nil if it does not
}

// empty says whether a message may be offered without being parked: there is none before it. Only put adds some.
func (p *parking) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) == 0 && !p.offering
}

// put appends a message, or returns false if it must wait for room, which is called then.
func (p *parking) put(m parked) bool {
	size := m.message.Size()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.queue); n > 0 {
		if n >= maxParked || p.bytes+size > maxParkedBytes || !p.memory.Take(size) {
			p.wanted = true
			return false
		}
		m.taken = size
	}
	p.queue = append(p.queue, m)
	p.bytes += size
	return true
}

// offer has the lane take what is parked, in order, until it refuses. Between a refusal and Room it does nothing, since
// each refusal has the lane call Room once more.
func (p *parking) offer(take func(parked) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.offering {
		return
	}
	p.offering = true
	for len(p.queue) > 0 && !p.refused && !p.closed {
		next := p.queue[0]
		p.refused = true // so that a Room which comes before the answer is not lost
		p.mu.Unlock()
		taken := take(next)
		if taken {
			p.memory.Give(next.taken)
		}
		p.mu.Lock()
		if taken {
			p.refused = false
			p.popLocked()
			p.roomLocked()
		}
	}
	p.offering = false
	if p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// roomLocked has put tried again. It unlocks mu for that.
func (p *parking) roomLocked() {
	if p.wanted {
		p.wanted = false
		p.mu.Unlock()
		p.room()
		p.mu.Lock()
	}
}

// retry is offer after the lane has called Room.
func (p *parking) retry(take func(parked) bool) {
	p.mu.Lock()
	p.refused = false
	p.mu.Unlock()
	p.offer(take)
}

func (p *parking) popLocked() {
	p.bytes -= p.queue[0].message.Size()
	p.queue = slices.Delete(p.queue, 0, 1)
	if len(p.queue) == 0 && cap(p.queue) > keepParked {
		p.queue = nil
	}
}

// close ends the offering and returns what the lane has not taken. A goroutine that offers is waited for, which is
// soon: lanes do not block.
func (p *parking) close() []parked {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.offering {
		idle := make(chan struct{})
		p.idle = idle
		p.mu.Unlock()
		<-idle
		p.mu.Lock()
	}
	rest := p.queue
	p.queue, p.bytes = nil, 0
	return rest // whoever takes them gives their memory back
}

// errHeld says that the device is not read for the time being: what it sent last is held until it can be parked.
var errHeld = errors.New("no more messages can be parked")

// offer hands a message to the up lane, or parks it while that is full. When no more can be parked it holds it, and
// returns errHeld.
func (l *link) offer(m mqtt.Message, token mqtt.Token) error {
	p := parked{message: m, token: token}
	if l.parking.empty() && l.take(p) {
		return nil
	}
	if !l.parking.put(p) {
		held := p // so that p itself takes no memory
		l.held = &held
		return errHeld
	}
	l.parking.offer(l.take)
	return nil
}

// unhold parks the message that is held, or returns errHeld if it still must wait.
func (l *link) unhold() error {
	switch {
	case l.held == nil:
		return nil
	case l.parking.put(*l.held):
		l.held = nil
		l.deadlineSet = time.Time{}    // the device was not read, so its silence counts from now on
		_ = l.SetDeadline(time.Time{}) // fails only if the link has ended, as reading will
		l.parking.offer(l.take)
		return nil
	case l.over():
		return net.ErrClosed
	case l.nc.Err() != nil:
		return l.nc.Err()
	case l.nc.Lost():
		return io.ErrUnexpectedEOF // what is unread was not acknowledged
	}
	return errHeld
}

// take offers a message to the up lane.
func (l *link) take(p parked) bool {
	if p.message.QoS == 0 {
		return l.device.setup().Up.Offer(p.message, nil, 0) // never refused
	}
	return l.device.setup().Up.Offer(p.message, l.session, p.token)
}

// unpark gives up what the lane has not taken, when the link ends. The device was not told that it has been received.
func (l *link) unpark() {
	rest := l.parking.close()
	if l.held != nil {
		rest = append(rest, *l.held)
		l.held = nil
	}
	for _, p := range rest {
		l.parking.memory.Give(p.taken)
		if p.message.QoS == 0 {
			l.take(p) // nobody will repeat it, and the lane counts it if it is lost
		} else {
			l.forget(p.token)
		}
	}
}

// forget makes the message a new one when the device repeats it. That of QoS 0 has no token.
func (l *link) forget(token mqtt.Token) {
	s := l.session
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in.Forget(token)
}
