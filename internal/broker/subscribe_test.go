package broker

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/mqtt"
)

// pending waits for the next SUBSCRIBE at the cloud side.
func (c *cloud) pending(n int) (subs []mqtt.Subscription, done func([]byte)) {
	c.tb.Helper()
	until(c.tb, "a SUBSCRIBE", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.subs) >= n
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subs[n-1], c.dones[n-1]
}

// The SUBACK waits for the cloud's verdict, and the device goes on meanwhile.
func TestSubscribe(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := one(t)
		cl.answer = nil
		c, _ := r.connect(v, "dev")
		c.subscribe(10, packets.Subscription{Filter: "a/+", Qos: 1}, packets.Subscription{Filter: "b/#", Qos: 2})
		c.subscribe(11, packets.Subscription{Filter: "$d"})
		subs, first := cl.pending(1)
		if diff := cmp.Diff([]mqtt.Subscription{{Filter: "a/+", QoS: 1}, {Filter: "b/#", QoS: 2}}, subs); diff != "" {
			t.Error(diff)
		}
		_, second := cl.pending(2)
		c.publish("t", "m", 1, 10)
		c.acked(packets.Puback, 10)
		second([]byte{0})
		if ack := c.acked(packets.Suback, 11); !bytes.Equal(ack.ReasonCodes, []byte{0}) {
			t.Errorf("SUBACK % x", ack.ReasonCodes)
		}
		first([]byte{1, mqtt.Failure})
		if ack := c.acked(packets.Suback, 10); !bytes.Equal(ack.ReasonCodes, []byte{1, mqtt.Failure}) {
			t.Errorf("SUBACK % x", ack.ReasonCodes)
		}

		c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 12,
			Filters: packets.Subscriptions{{Filter: "a/+"}, {Filter: "b/#"}}})
		ack := c.acked(packets.Unsuback, 12)
		if v == 5 && !bytes.Equal(ack.ReasonCodes, []byte{0, packets.CodeNoSubscriptionExisted.Code}) {
			t.Errorf("UNSUBACK % x", ack.ReasonCodes)
		}
		if diff := cmp.Diff([][]string{{"a/+", "b/#"}}, cl.unsubs); diff != "" {
			t.Error(diff)
		}
	})
}

// An answer that comes when the connection is gone is not sent to the next one.
func TestLateSuback(t *testing.T) {
	r, cl := one(t)
	cl.answer = nil
	c, _ := r.connect(4, "dev", persistent)
	c.subscribe(1, packets.Subscription{Filter: "a"})
	_, done := cl.pending(1)
	next, _ := r.connect(4, "dev", persistent)
	c.closed()
	done([]byte{0})
	next.quiet()
}

// In MQTT 3 a filter that begins with $share is like any other.
func TestShareIn3(t *testing.T) {
	r, cl := one(t)
	c, _ := r.connect(4, "dev")
	c.subscribe(1, packets.Subscription{Filter: "$share/g/a"})
	if ack := c.acked(packets.Suback, 1); ack.ReasonCodes[0] != 0 {
		t.Errorf("SUBACK % x", ack.ReasonCodes)
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if diff := cmp.Diff([][]mqtt.Subscription{{{Filter: "$share/g/a"}}}, cl.subs); diff != "" {
		t.Error(diff)
	}
}

func TestSubscribeViolations(t *testing.T) {
	for name, test := range map[string]struct {
		packet []byte // of MQTT 3
		reason packets.Code
	}{
		"no filter":               {[]byte{0x82, 2, 0, 1}, packets.ErrProtocolViolation},
		"identifier 0":            {[]byte{0x82, 6, 0, 0, 0, 1, 'a', 0}, packets.ErrProtocolViolation},
		"QoS 3":                   {[]byte{0x82, 6, 0, 1, 0, 1, 'a', 3}, packets.ErrProtocolViolation},
		"flags":                   {[]byte{0x80, 6, 0, 1, 0, 1, 'a', 0}, packets.ErrMalformedPacket},
		"no QoS":                  {[]byte{0x82, 5, 0, 1, 0, 1, 'a'}, packets.ErrMalformedPacket},
		"wildcard in a level":     {[]byte{0x82, 7, 0, 1, 0, 2, 'a', '+', 0}, packets.ErrTopicFilterInvalid},
		"empty filter":            {[]byte{0x82, 5, 0, 1, 0, 0, 0}, packets.ErrTopicFilterInvalid},
		"unsubscribe, no filter":  {[]byte{0xa2, 2, 0, 1}, packets.ErrProtocolViolation},
		"unsubscribe, bad filter": {[]byte{0xa2, 6, 0, 1, 0, 2, '#', 'a'}, packets.ErrTopicFilterInvalid},
		"unsubscribe, identifier": {[]byte{0xa2, 5, 0, 0, 0, 1, 'a'}, packets.ErrProtocolViolation},
		"5: retain handling 3":    {[]byte{0x82, 6, 0, 1, 0, 1, 'a', 0x30}, packets.ErrProtocolViolation},
		"5: shared with No Local": {append(append([]byte{0x82, 15, 0, 1, 0, 10}, "$share/g/a"...), 4),
			packets.ErrProtocolViolation},
	} {
		for _, v := range []byte{4, 5} {
			if v == 4 && name[0] == '5' {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", name, versionName(v)), func(t *testing.T) {
				r, cl := one(t)
				c, _ := r.connect(v, "dev")
				packet := test.packet
				if v == 5 { // no properties
					packet = append(append([]byte{packet[0], packet[1] + 1}, packet[2:4]...), append([]byte{0}, packet[4:]...)...)
				}
				c.write(packet)
				c.cut(test.reason)
				cl.expect("connected", "disconnected false")
				cl.mu.Lock()
				defer cl.mu.Unlock()
				if len(cl.subs)+len(cl.unsubs) != 0 {
					t.Errorf("passed on: %v %v", cl.subs, cl.unsubs)
				}
			})
		}
	}
}
