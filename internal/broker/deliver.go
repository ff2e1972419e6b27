package broker

import (
	"math"
	"slices"

	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/lane"
)

const (
	// maxUnfinished bounds a session's packet identifiers in use: the window, and QoS 2 messages whose PUBCOMP is due.
	maxUnfinished = 1024
	// flushAt is how much is gathered before it is written, in bytes; keepBuffer is how large a buffer stays allocated.
	flushAt    = 32 << 10
	keepBuffer = 4 << 10
)

// Ready implements lane.Consumer: the device takes what it is sent.
func (l *link) Ready() bool {
	if l.nc.Pending() >= sendReady {
		return false // drained is called when the device has taken it
	}
	s := l.session
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link == l && s.out.InFlight() < min(maxUnfinished, l.req.receiveMax)
}

// Deliver implements lane.Consumer.
func (l *link) Deliver(d lane.Delivery) {
	m, s := &d.Message, l.session
	size := publishSize(l.req.version, m)
	if len(m.Topic) > math.MaxUint16 {
		l.reader.Drop(d.Seq, lane.TopicLimit)
		return
	}
	if l.req.maxPacket > 0 && size > l.req.maxPacket {
		l.reader.Drop(d.Seq, lane.TooLarge) // MQTT 5, 3.1.2-25
		return
	}
	var id uint16
	if m.QoS > 0 {
		var release bool
		s.mu.Lock()
		// Otherwise the lane has taken the message back, or the device has it and its PUBREL was sent again.
		ok := s.link == l && !s.out.Received(d.Seq)
		if ok {
			id, _, ok = s.out.Assign(d.Seq, m.QoS)
			release = s.out.Doubtful(id)
		}
		s.mu.Unlock()
		if !ok {
			return
		}
		if release {
			l.out = appendAck(l.out, pubrel, id)
		}
	}
	if int64(size) > l.largest.Load() {
		l.largest.Store(int64(size)) // nobody else does
	}
	l.out = slices.Grow(l.out, size)
	l.out = appendPublish(l.out, l.req.version, m, d.Dup, id)
	if len(l.out) >= flushAt {
		l.Flush()
	}
}

// Flush implements lane.Consumer.
func (l *link) Flush() {
	if len(l.out) == 0 {
		return
	}
	l.send(l.out)
	l.out = l.out[:0]
	if cap(l.out) > keepBuffer {
		l.out = nil
	}
}

// puback ends the delivery of a QoS 1 message to the device. Its reason code makes no difference: a device that
// refuses a message gets no other.
func (l *link) puback(id uint16) {
	s := l.session
	s.mu.Lock()
	seq, ok := s.out.Ack(id)
	s.mu.Unlock()
	if ok {
		l.reader.Done(seq)
	}
}

// pubrec releases a QoS 2 message that the device has. It is the device's when PUBCOMP comes: until then the device may
// not have passed it on.
func (l *link) pubrec(pk *packets.Packet) {
	if pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
		l.puback(pk.PacketID) // refused, which ends it as well (MQTT 5, 4.3.3)
		return
	}
	s := l.session
	s.mu.Lock()
	s.out.Receive(pk.PacketID)
	s.mu.Unlock()
	l.respond(pubrel, pk.PacketID)
}

// pubcomp ends the delivery of a QoS 2 message to the device.
func (l *link) pubcomp(id uint16) {
	s := l.session
	s.mu.Lock()
	seq, ok := s.out.Complete(id)
	s.mu.Unlock()
	if ok {
		l.reader.Done(seq)
	}
}
