package broker

import (
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/mqtt"
)

// publish takes a message from the device.
func (l *link) publish(pk *packets.Packet) error {
	if code := pk.PublishValidate(0); code != packets.CodeSuccess {
		return l.violation(code)
	}
	if !mqtt.ValidTopic(pk.TopicName) {
		return l.violation(packets.ErrTopicNameInvalid)
	}
	h := &pk.FixedHeader
	m := mqtt.Message{Topic: pk.TopicName, Payload: pk.Payload, QoS: h.Qos, Retain: h.Retain}
	if l.req.version == 5 {
		if after := pk.Properties.MessageExpiryInterval; after > 0 {
			m.Expires = time.Now().Add(time.Duration(after) * time.Second)
		}
		if stripped(&pk.Properties) {
			l.device.stripped.Add(1)
		}
	}
	if m.QoS == 0 {
		return l.offer(m, 0)
	}
	s := l.session
	s.mu.Lock()
	arrival, token := s.in.Publish(pk.PacketID, h.Dup, &m)
	s.acknowledgeLocked()
	s.mu.Unlock()
	if arrival == mqtt.Fresh {
		if m.QoS == 2 {
			s.marks.Unmark(pk.PacketID, func() {}) // one that is there is of another message
		}
		return l.offer(m, token)
	}
	return nil // its acknowledgement was sent again, or will follow
}

// pubrel ends the delivery of a QoS 2 message from the device.
func (l *link) pubrel(id uint16) error {
	if id == 0 {
		return l.violation(packets.ErrProtocolViolationNoPacketID)
	}
	l.session.release(id)
	return nil
}

// respond sends PUBREL or PUBCOMP, whether or not the identifier is known. MQTT 5 has a reason code for one that is not
// (0x92), which comes up after lost connections only. But some libraries take it for the failure of a message that was
// delivered, so it is not sent.
func (l *link) respond(kind byte, id uint16) {
	var b [ackSize]byte
	l.send(appendAck(b[:0], kind, id))
}

// disconnect handles DISCONNECT.
func (l *link) disconnect(pk *packets.Packet) error {
	if p := &pk.Properties; l.req.version == 5 && p.SessionExpiryIntervalFlag {
		if l.req.expiry == 0 && p.SessionExpiryInterval > 0 { // MQTT 5, 3.14.2.2.2
			return l.violation(packets.ErrProtocolViolationZeroNonZeroExpiry)
		}
		l.req.expiry = p.SessionExpiryInterval
	}
	if pk.ReasonCode == packets.CodeDisconnect.Code {
		l.end(goodbye)
	} else {
		l.end(ending{err: errLeft}) // any other reason keeps the will due (MQTT 5, 3.14.4-3)
	}
	return packets.ErrRejectPacket
}
