package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/lane"
)

// versions runs a test for each version of MQTT.
func versions(t *testing.T, f func(t *testing.T, v byte)) {
	for _, v := range []byte{3, 4, 5} {
		t.Run("MQTT "+versionName(v), func(t *testing.T) { f(t, v) })
	}
}

func TestPublish(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := one(t)
		c, _ := r.connect(v, "dev")
		c.publish("a", "zero", 0, 0)
		c.publish("b/c", "one", 1, 1)
		c.acked(packets.Puback, 1)
		c.publish("$d", "two", 2, 2, func(pk *packets.Packet) { pk.FixedHeader.Retain = true })
		c.acked(packets.Pubrec, 2)
		c.ack(packets.Pubrel, 2)
		c.acked(packets.Pubcomp, 2)
		c.publish("e", "", 1, 65535)
		c.acked(packets.Puback, 65535)
		want := []struct {
			topic, payload string
			qos            byte
			retain         bool
		}{{"a", "zero", 0, false}, {"b/c", "one", 1, false}, {"$d", "two", 2, true}, {"e", "", 1, false}}
		for i, d := range cl.receive(len(want)) {
			m, w := d.Message, want[i]
			if m.Topic != w.topic || string(m.Payload) != w.payload || m.QoS != w.qos || m.Retain != w.retain ||
				!m.Expires.IsZero() {
				t.Errorf("message %d: got %+v, want %+v", i, m, w)
			}
		}
		c.quiet()
	})
}

// An acknowledgement is written when the lane has settled the message, and not before.
func TestAcknowledgedWhenSettled(t *testing.T) {
	r, cl := one(t)
	cl.manual = true
	c, _ := r.connect(4, "dev")
	c.publish("t", "one", 1, 1)
	c.publish("t", "two", 2, 2)
	c.publish("t", "three", 1, 3)
	cl.receive(3)
	c.silent()
	c.quiet()
	cl.done(1)
	c.silent() // in the order of the messages (MQTT 3.1.1, 4.6)
	cl.done(0)
	c.acked(packets.Puback, 1)
	c.acked(packets.Pubrec, 2)
	c.silent()
	cl.done(2)
	c.acked(packets.Puback, 3)
}

func TestQoS2Once(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := one(t)
		cl.manual = true
		keep := persistent
		if v == 5 {
			keep = expiry(100)
		}
		c, _ := r.connect(v, "dev", keep)
		c.publish("t", "m", 2, 7)
		c.publish("t", "m", 2, 7, dup) // not settled yet
		c.quiet()
		cl.receive(1)
		cl.done(0)
		c.acked(packets.Pubrec, 7)
		c.publish("t", "m", 2, 7, dup)
		c.acked(packets.Pubrec, 7)

		c.drop()
		cl.expect("connected", "disconnected false")
		c, _ = r.connect(v, "dev", keep)
		c.publish("t", "m", 2, 7, dup)
		c.acked(packets.Pubrec, 7)
		c.ack(packets.Pubrel, 7)
		c.acked(packets.Pubcomp, 7)
		c.ack(packets.Pubrel, 7) // its PUBCOMP was lost
		if ack := c.acked(packets.Pubcomp, 7); ack.ReasonCode != packets.CodeSuccess.Code {
			t.Errorf("PUBCOMP %#x", ack.ReasonCode)
		}
		cl.receive(1)

		c.publish("t", "m", 2, 7) // the identifier is free again
		cl.receive(2)
	})
}

// A QoS 2 message that is settled while the device is away gets its PUBREC when it is repeated, and only once to the
// cloud.
func TestSettledWhileAway(t *testing.T) {
	r, cl := one(t)
	cl.manual = true
	c, _ := r.connect(4, "dev", persistent)
	c.publish("t", "one", 1, 1)
	c.publish("t", "two", 2, 2)
	cl.receive(2)
	c.drop()
	cl.expect("connected", "disconnected false")
	cl.done(0)
	cl.done(1)
	c, ack := r.connect(4, "dev", persistent)
	if !ack.SessionPresent {
		t.Error("the session is not present")
	}
	c.silent()
	c.publish("t", "one", 1, 1, dup)
	c.acked(packets.Puback, 1)
	c.publish("t", "two", 2, 2, dup)
	c.acked(packets.Pubrec, 2)
	cl.receive(2)
}

// What an abandoned session still had to be acknowledged must not acknowledge a message of the next one.
func TestAbandonedSession(t *testing.T) {
	r, cl := one(t)
	cl.manual = true
	c, _ := r.connect(4, "dev")
	c.publish("t", "old", 1, 1)
	cl.receive(1)
	c.drop()
	cl.expect("connected", "disconnected false")
	c, _ = r.connect(4, "dev")
	c.publish("t", "new", 1, 1)
	cl.receive(2)
	cl.done(0)
	c.silent()
	cl.done(1)
	c.acked(packets.Puback, 1)
}

// A device that is paused can be taken over, and the message that was not taken is not lost: it is repeated.
func TestTakeoverWhilePaused(t *testing.T) {
	r := start(t, options{up: lane.Config{MaxMessages: 1}}, plain("dev"))
	cl := r.clouds["dev"]
	cl.detach()
	c, _ := r.connect(4, "dev", persistent)
	c.publish("t", "one", 1, 1)
	c.publish("t", "two", 2, 2)
	c.publish("t", "three", 1, 3)
	until(t, "the lane is full", func() bool { return cl.up.Counters().Queued == 1 })

	next, ack := r.connect(4, "dev", persistent)
	if !ack.SessionPresent {
		t.Error("the session is not present")
	}
	c.closed()
	cl.expect("connected", "disconnected false", "connected")
	next.publish("t", "one", 1, 1, dup)
	next.publish("t", "two", 2, 2, dup)
	next.publish("t", "three", 1, 3, dup)
	cl.attach()
	next.acked(packets.Puback, 1)
	next.acked(packets.Pubrec, 2)
	next.acked(packets.Puback, 3)
	for i, d := range cl.receive(3) {
		if want := []string{"one", "two", "three"}[i]; string(d.Message.Payload) != want {
			t.Errorf("message %d is %q, want %q", i, d.Message.Payload, want)
		}
	}
}

func TestPublishViolations(t *testing.T) {
	for name, test := range map[string]struct {
		packet []byte
		reason packets.Code
	}{
		"wildcard in topic": {[]byte{0x30, 5, 0, 3, 'a', '/', '#'}, packets.ErrProtocolViolation},
		"empty topic":       {[]byte{0x30, 2, 0, 0}, packets.ErrProtocolViolation},
		"NUL in topic":      {[]byte{0x30, 4, 0, 2, 'a', 0}, packets.ErrMalformedPacket},
		"not UTF-8":         {[]byte{0x30, 4, 0, 2, 'a', 0xff}, packets.ErrMalformedPacket},
		"QoS 3":             {[]byte{0x36, 5, 0, 1, 'a', 0, 1}, packets.ErrProtocolViolation},
		"identifier 0":      {[]byte{0x32, 5, 0, 1, 'a', 0, 0}, packets.ErrProtocolViolation},
		"DUP with QoS 0":    {[]byte{0x38, 3, 0, 1, 'a'}, packets.ErrProtocolViolation},
		"topic too short":   {[]byte{0x30, 3, 0, 9, 'a'}, packets.ErrMalformedPacket},
		"PUBREL 0":          {[]byte{0x62, 2, 0, 0}, packets.ErrProtocolViolation},
		"PUBREL flags":      {[]byte{0x60, 2, 0, 1}, packets.ErrMalformedPacket},
		"CONNACK":           {[]byte{0x20, 2, 0, 0}, packets.ErrProtocolViolation},
		"PINGRESP":          {[]byte{0xd0, 0}, packets.ErrProtocolViolation},
		"AUTH":              {[]byte{0xf0, 2, 0, 0}, packets.ErrProtocolViolation},
		"second CONNECT":    {encode(t, connectPacket(4, "dev")), packets.ErrProtocolViolation},
	} {
		for _, v := range []byte{4, 5} {
			t.Run(fmt.Sprintf("%s/%s", name, versionName(v)), func(t *testing.T) {
				r, cl := one(t)
				c, _ := r.connect(v, "dev")
				packet := test.packet
				if v == 5 && packet[0]>>4 == packets.Publish { // no properties
					packet = append(append([]byte{packet[0], packet[1] + 1}, packet[2:]...), 0)
				}
				if v == 5 && name == "CONNACK" {
					packet = append(append([]byte{packet[0], packet[1] + 1}, packet[2:]...), 0)
				}
				c.write(packet)
				c.cut(test.reason)
				cl.expect("connected", "disconnected false")
				cl.receive(0)
			})
		}
	}
}

func TestMessageExpiry(t *testing.T) {
	r, cl := one(t)
	c, _ := r.connect(5, "dev")
	before := time.Now()
	c.publish("t", "m", 1, 1, func(pk *packets.Packet) { pk.Properties.MessageExpiryInterval = 60 })
	m := cl.receive(1)[0].Message
	if m.Expires.Before(before.Add(time.Minute)) || m.Expires.After(time.Now().Add(time.Minute)) {
		t.Errorf("expires %s after it was sent, want a minute", m.Expires.Sub(before))
	}
}
