package broker

import (
	"slices"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"

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
// Every message passes through it, which keeps them in order. Only the link's reading goroutine calls put and close.
type parking struct {
	room   chan struct{} // holds one: a message has left, or nobody offers any more
	memory *lane.Budget

	mu       sync.Mutex // protects the following fields; never held while the lane is called
	queue    []parked   // the first may be on offer
	bytes    int64      // of queue
	offering bool       // a goroutine offers; no other may
	refused  bool       // the lane has refused the first, and Room was not called since
	closed   bool
}

// put appends a message, or returns false if it must wait for room.
func (p *parking) put(m parked) bool {
	size := m.message.Size()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.queue); n > 0 {
		if n >= maxParked || p.bytes+size > maxParkedBytes || !p.memory.Take(size) {
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
			p.wake()
		}
	}
	p.offering = false
	p.wake()
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

func (p *parking) wake() {
	select {
	case p.room <- struct{}{}:
	default:
	}
}

// close ends the offering and returns what the lane has not taken. A goroutine that offers is waited for, which is
// soon: lanes do not block.
func (p *parking) close() []parked {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for p.offering {
		p.mu.Unlock()
		<-p.room
		p.mu.Lock()
	}
	rest := p.queue
	p.queue, p.bytes = nil, 0
	return rest // whoever takes them gives their memory back
}

// offer hands a message to the up lane, or parks it while that is full. When no more can be parked it waits, and so
// does the device, which is not read meanwhile.
func (l *link) offer(m mqtt.Message, token mqtt.Token) error {
	for !l.parking.put(parked{message: m, token: token}) {
		l.uncork()
		select {
		case <-l.parking.room:
		case <-l.closed:
			l.forget(token)
			return packets.ErrRejectPacket
		}
	}
	l.parking.offer(l.take)
	return nil
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
	for _, p := range l.parking.close() {
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
