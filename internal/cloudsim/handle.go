package cloudsim

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// handle does what a packet asks. An error ends the connection.
func (cn *conn) handle(p packets.ControlPacket) error {
	c := cn.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	if cn.ended || c.dropNowLocked(cn) {
		return errEnded
	}
	switch p := p.(type) {
	case *packets.PublishPacket:
		return c.publishedLocked(cn, p)
	case *packets.PubackPacket:
		c.pubackLocked(cn, p.MessageID)
	case *packets.PubrecPacket:
		c.pubrecLocked(cn, p.MessageID)
	case *packets.PubrelPacket:
		delete(cn.session.inbound, p.MessageID)
		cn.answerLocked(encodeID(typePubcomp, p.MessageID))
	case *packets.PubcompPacket:
		c.pubcompLocked(cn, p.MessageID)
	case *packets.SubscribePacket:
		return c.subscribeLocked(cn, p)
	case *packets.UnsubscribePacket:
		return c.unsubscribeLocked(cn, p)
	case *packets.PingreqPacket:
		cn.sendLocked(encode(packets.NewControlPacket(packets.Pingresp)))
	case *packets.DisconnectPacket:
		return errDisconnect
	default: // a second CONNECT (MQTT 3.1.1, 3.1), since the reader takes no packets of a server's
		return breachf(RuleProtocol, "an unexpected %s", packetName(p))
	}
	return nil
}

// dropNowLocked counts a packet for DropAfter, and cuts the connection when it is the one.
func (c *Cloud) dropNowLocked(cn *conn) bool {
	f := c.faults.of(cn.device)
	if f.drop.serial == 0 {
		return false
	}
	done := cn.session.id.drop.to(f.drop)
	if f.drop.times >= 0 && done.count >= f.drop.times {
		return false
	}
	if cn.dropSerial != f.drop.serial {
		cn.dropSerial, cn.dropCount = f.drop.serial, 0
	}
	if cn.dropCount++; cn.dropCount < f.drop.packets {
		return false
	}
	done.count++
	c.endLocked(cn, EndFault, f.dropHow)
	return true
}

// publishedLocked takes a message from a device. It gives c.mu up while OnMessage runs.
func (c *Cloud) publishedLocked(cn *conn, p *packets.PublishPacket) error {
	if err := c.checkPublishLocked(p); err != nil {
		return err
	}
	if repeated := c.checkIDLocked(cn, p); repeated {
		c.rec.totals.QoS2Repeats++
		return c.acknowledgeLocked(cn, p)
	}
	if !c.withinUplinkLocked(cn) {
		return c.acknowledgeLocked(cn, p)
	}
	r := Received{
		Device: cn.device, ClientID: cn.clientID, Secure: cn.secure, Time: time.Now(),
		Topic: p.TopicName, Payload: p.Payload, QoS: p.Qos, Dup: p.Dup, Retain: p.Retain, PacketID: p.MessageID,
		Connection: cn.number,
	}
	r.Redelivery = c.seenLocked(cn.session.id, p) && p.Dup
	c.rec.receive(r)
	c.routeLocked(&message{topic: p.TopicName, payload: p.Payload, qos: p.Qos}, p.Retain)
	c.wakeLocked()
	if c.opts.OnMessage != nil {
		c.mu.Unlock()
		c.opts.OnMessage(r)
		c.mu.Lock()
		if cn.ended {
			return errEnded
		}
	}
	return c.acknowledgeLocked(cn, p)
}

func (c *Cloud) checkPublishLocked(p *packets.PublishPacket) error {
	r := &c.rules
	switch {
	case !validTopic(p.TopicName):
		return breachf(RuleProtocol, "PUBLISH to %q (MQTT 3.1.1, 4.7)", p.TopicName)
	case p.Qos > r.MaxQoS:
		return breachf(RuleQoS, "PUBLISH with QoS %d to %q", p.Qos, p.TopicName)
	case p.Retain && r.NoRetain:
		return breachf(RuleRetain, "PUBLISH with RETAIN to %q", p.TopicName)
	case r.MaxPayload > 0 && len(p.Payload) > r.MaxPayload:
		return breachf(RulePayload, "PUBLISH of %d bytes, more than %d", len(p.Payload), r.MaxPayload)
	case r.badTopic(p.TopicName):
		return breachf(RuleTopic, "PUBLISH to %q, which is %s", p.TopicName, r.topicLimit())
	}
	return nil
}

// badTopic says whether a topic or filter is too long or too deep. An empty first level, of a leading slash, does not
// count: the vendor counts slashes.
func (r *Rules) badTopic(s string) bool {
	levels := 1 + strings.Count(strings.TrimPrefix(s, "/"), "/")
	return r.MaxTopicBytes > 0 && len(s) > r.MaxTopicBytes || r.MaxTopicLevels > 0 && levels > r.MaxTopicLevels
}

func (r *Rules) topicLimit() string {
	return fmt.Sprintf("above %d bytes or %d levels", r.MaxTopicBytes, r.MaxTopicLevels)
}

// checkIDLocked reports whether a QoS 2 message is one that the session has and that was not released (MQTT 3.1.1,
// 4.3.3), and remembers it otherwise. An identifier that is used for something else meanwhile is a violation.
func (c *Cloud) checkIDLocked(cn *conn, p *packets.PublishPacket) (repeated bool) {
	if p.Qos == 0 {
		return false
	}
	s := cn.session
	_, inbound := s.inbound[p.MessageID]
	_, unacked := cn.unacked[p.MessageID]
	if !p.Dup && (inbound || unacked) || inbound && p.Qos == 1 || unacked && p.Qos == 2 {
		c.violationLocked(cn.device, cn.clientID, RulePacketID, "a PUBLISH under an identifier that is in use")
	}
	if p.Qos == 1 || inbound {
		return inbound && p.Qos == 2
	}
	if s.inbound == nil {
		s.inbound = make(map[uint16]struct{})
	}
	s.inbound[p.MessageID] = struct{}{}
	return false
}

// withinUplinkLocked counts a message against Rules.Uplink and reports whether it may pass.
func (c *Cloud) withinUplinkLocked(cn *conn) bool {
	r := c.rules.Uplink
	within, crossed := cn.session.id.uplink.take(r, time.Now())
	if crossed {
		c.violationLocked(cn.device, cn.clientID, RuleUplinkRate, "more publishes than the limit allows")
	}
	if !within && c.rules.DropExcess {
		c.rec.totals.DroppedUplink++
		return false
	}
	return true
}

// seenLocked remembers a message and reports whether it was among the recent ones already.
func (c *Cloud) seenLocked(id *identity, p *packets.PublishPacket) bool {
	if p.Qos == 0 {
		return false
	}
	var h maphash.Hash
	h.SetSeed(c.seed)
	_, _ = h.WriteString(p.TopicName) // a Hash takes everything
	_ = h.WriteByte(0)
	_, _ = h.Write(p.Payload)
	sum := h.Sum64()
	seen := p.Dup && slices.Contains(id.recent.values, sum)
	id.recent.limit = recentHashes
	id.recent.add(sum)
	return seen
}

// acknowledgeLocked answers a PUBLISH, unless a fault loses the answer.
func (c *Cloud) acknowledgeLocked(cn *conn, p *packets.PublishPacket) error {
	if p.Qos == 0 {
		return nil
	}
	f := c.faults.of(cn.device)
	if f.lose.serial != 0 {
		if lost := cn.session.id.lose.to(f.lose); lost.count < f.lose.packets {
			lost.count++
			cn.noteUnackedLocked(p)
			if lost.count < f.lose.packets {
				return nil
			}
			c.endLocked(cn, EndFault, CutReset)
			return errEnded
		}
	}
	if f.acks {
		cn.noteUnackedLocked(p)
	}
	answer := byte(typePuback)
	if p.Qos == 2 {
		answer = typePubrec
	}
	cn.answerLocked(encodeID(answer, p.MessageID))
	return nil
}

func (cn *conn) noteUnackedLocked(p *packets.PublishPacket) {
	if p.Qos != 1 {
		return // the session remembers QoS 2
	}
	if cn.unacked == nil {
		cn.unacked = make(map[uint16]struct{})
	}
	cn.unacked[p.MessageID] = struct{}{}
}

// pubackLocked ends a QoS 1 message to a device.
func (c *Cloud) pubackLocked(cn *conn, id uint16) {
	if i := c.takeAckLocked(cn, "PUBACK", id, 1); i >= 0 {
		cn.session.inflight = slices.Delete(cn.session.inflight, i, i+1)
		c.pumpLocked(cn.session)
	}
}

// pubrecLocked hands a QoS 2 message over to the device (MQTT 3.1.1, 4.3.3).
func (c *Cloud) pubrecLocked(cn *conn, id uint16) {
	released := slices.ContainsFunc(cn.session.inflight, func(m *outgoing) bool { return m.id == id && m.released })
	if !released {
		if i := c.takeAckLocked(cn, "PUBREC", id, 2); i >= 0 {
			cn.session.inflight[i].released = true
		}
	}
	cn.sendIDLocked(typePubrel, id) // also for an unknown one, so that the client can let go of it
}

// pubcompLocked ends a QoS 2 message to a device.
func (c *Cloud) pubcompLocked(cn *conn, id uint16) {
	s := cn.session
	i := slices.IndexFunc(s.inflight, func(m *outgoing) bool { return m.id == id && m.released })
	if i < 0 {
		c.violationLocked(cn.device, cn.clientID, RuleUnknownAck, "a PUBCOMP for nothing that was released")
		return
	}
	s.inflight = slices.Delete(s.inflight, i, i+1)
	c.pumpLocked(s)
	c.wakeLocked()
}

// takeAckLocked records the acknowledgement of a message and returns its place in flight, below 0 if it is not there.
func (c *Cloud) takeAckLocked(cn *conn, name string, id uint16, qos byte) int {
	older := 0
	for i, m := range cn.session.inflight {
		switch {
		case m.qos != qos || m.released:
			continue
		case m.id != id:
			older++
			continue
		}
		if older > 0 {
			c.violationLocked(cn.device, cn.clientID, RuleAckOrder, name+" before those of older messages")
		}
		c.rec.ack(Ack{
			Device: cn.device, Topic: m.topic, Payload: m.payload, QoS: m.qos, PacketID: id,
			Resent: m.resent, Sent: m.sent, Time: time.Now(),
		})
		c.wakeLocked()
		return i
	}
	c.violationLocked(cn.device, cn.clientID, RuleUnknownAck, "a "+name+" for nothing that is in flight")
	return -1
}
