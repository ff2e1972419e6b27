package cloudsim

import "github.com/eclipse/paho.mqtt.golang/packets"

// sendLocked queues a packet.
func (cn *conn) sendLocked(b []byte) {
	if cn.out.add(b, cn.cloud.faults.of(cn.device).delay, false) {
		cn.cloud.wg.Go(cn.write)
	}
}

// sendRawLocked queues bytes that are no packet, or not even a frame.
func (cn *conn) sendRawLocked(b []byte, framed bool) {
	if cn.out.add(b, 0, !framed) {
		cn.cloud.wg.Go(cn.write)
	}
}

func (cn *conn) sendIDLocked(first byte, id uint16) { cn.sendLocked(encodeID(first, id)) }

func (cn *conn) sendPublishLocked(m *outgoing, dup bool) {
	p := &packets.PublishPacket{
		FixedHeader: packets.FixedHeader{MessageType: packets.Publish, Dup: dup, Qos: m.qos, Retain: m.retain},
		TopicName:   m.topic, MessageID: m.id, Payload: m.payload,
	}
	cn.sendLocked(encode(p))
}

// answerLocked acknowledges something from the device, or withholds it.
func (cn *conn) answerLocked(b []byte) {
	if cn.cloud.faults.of(cn.device).acks {
		cn.heldAcks = append(cn.heldAcks, b...)
		return
	}
	cn.sendLocked(b)
}

// releaseLocked sends what was withheld and reports whether there was anything.
func (cn *conn) releaseLocked(acks, subacks bool) bool {
	n := 0
	for _, held := range []*[]byte{&cn.heldAcks, &cn.heldSubacks} {
		if send := held == &cn.heldAcks && acks || held == &cn.heldSubacks && subacks; send && len(*held) > 0 {
			cn.sendLocked(*held)
			*held, n = nil, n+1
		}
	}
	if acks {
		cn.unacked = nil
	}
	return n > 0
}
