package upstream

import (
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
	"bridged/internal/wire"
)

// parking holds messages from the cloud that the down lane has refused, in order, until it takes them. They are not
// acknowledged. As long as there is space the session goes on reading, so that the way up does not suffer from a
// device that is slow; then reading waits, and the cloud with it. It outlives connections: what the cloud sends again
// meanwhile is recognised by the Inbox. flow.mu protects it.
type parking struct {
	cars     []parked
	bytes    int64
	crowded  atomic.Bool // it is full; written under flow.mu
	short    bool        // memory was short when the last one came
	offering bool        // a goroutine is at it
	again    bool        // there may be room since it last looked
	room     sync.Cond   // for those who wait until nobody is at it
}

type parked struct {
	m     mqtt.Message
	token mqtt.Token
	taken int64 // from Config.Memory
}

// The space of a parking, in messages and bytes. One message more fits in any case, also if memory is short.
const (
	parkMessages = 128
	parkBytes    = 1 << 20
)

func (p *parking) full() bool {
	return len(p.cars) > parkMessages || p.bytes > parkBytes || p.short && len(p.cars) > 0
}

// offerDown hands a message of QoS 1 or 2 to the down lane, behind those that it has refused.
func (s *session) offerDown(m mqtt.Message, t mqtt.Token) {
	w := s.w
	w.flow.mu.Lock()
	empty := len(w.flow.parking.cars) == 0
	w.flow.mu.Unlock()
	if empty && w.cfg.Down.Offer(m, w, t) { // only this goroutine parks, so it stays empty
		return
	}
	if empty {
		w.log.Debug("the queue to the device takes no more: further messages wait in the cloud")
	}
	p := &w.flow.parking
	car := parked{m: m, token: t}
	if w.cfg.Memory.Take(m.Size()) {
		car.taken = m.Size()
	}
	w.flow.mu.Lock()
	p.cars = append(p.cars, car)
	p.bytes += m.Size()
	p.short = car.taken == 0
	p.crowded.Store(p.full())
	w.flow.mu.Unlock()
	w.Room() // it may have come before the message was parked
}

// full says whether nothing is read for the time being, since no more can be parked. Readable is called when that is
// over, and when the session is to end or its connection has ended: then reading finds out why.
func (s *session) full() bool {
	w := s.w
	if !w.flow.parking.crowded.Load() { // nearly always
		if s.waiting.Load() {
			s.waiting.Store(false)
		}
		return false
	}
	w.flow.mu.Lock()
	defer w.flow.mu.Unlock()
	full := w.flow.parking.full() && !s.ending.Load() && !s.closed && s.nc.Err() == nil && !s.nc.Lost()
	s.waiting.Store(full)
	return full
}

// Room offers parked messages again. It is for the down lane.
func (w *Worker) Room() {
	p := &w.flow.parking
	w.flow.mu.Lock()
	defer w.flow.mu.Unlock()
	p.again = true
	if p.offering {
		return
	}
	p.offering = true
	for p.again {
		p.again = false
		for len(p.cars) > 0 {
			next := p.cars[0]
			w.flow.mu.Unlock()
			taken := w.cfg.Down.Offer(next.m, w, next.token)
			if taken {
				w.cfg.Memory.Give(next.taken)
			}
			w.flow.mu.Lock()
			if !taken {
				break
			}
			p.cars[0] = parked{}
			p.cars = p.cars[1:]
			p.bytes -= next.m.Size()
		}
	}
	p.offering = false
	if len(p.cars) == 0 {
		p.cars = nil
	}
	p.room.Broadcast()
	p.crowded.Store(p.full())
	if s := w.flow.live; s != nil && s.waiting.Load() && !p.full() {
		s.nc.Kick()
	}
}

// oversize drops a message from the cloud that is too large for the queue. It is acknowledged, or it would come again.
func (s *session) oversize(p *wire.Oversize) {
	w := s.w
	var token mqtt.Token
	var from lane.Source
	if p.Qos > 0 {
		m := mqtt.Message{Topic: p.TopicName, QoS: p.Qos}
		t, fresh := s.arrive(p.MessageID, p.Dup, &m)
		if !fresh {
			return
		}
		token, from = t, w
	}
	w.log.Warn("dropped a message from the cloud that is too large for the queue to the device",
		zap.String("topic", p.TopicName), zap.Int("bytes", p.RemainingLength))
	w.cfg.Down.Refuse(lane.TooLarge, from, token)
}
