package broker

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

func TestDeliver(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := one(t)
		c, _ := r.connect(v, "dev")
		cl.send("a", "zero", 0)
		if pk := c.message("zero"); pk.TopicName != "a" || pk.FixedHeader.Qos != 0 {
			t.Errorf("got %+v", pk.FixedHeader)
		}
		cl.send("b/c", "one", 1)
		pk := c.message("one")
		if h := pk.FixedHeader; pk.TopicName != "b/c" || h.Qos != 1 || h.Dup || pk.PacketID == 0 {
			t.Errorf("got %+v, id %d", h, pk.PacketID)
		}
		if n := cl.down.Counters(); n.InFlight != 1 {
			t.Errorf("%d in flight before PUBACK", n.InFlight)
		}
		c.ack(packets.Puback, pk.PacketID)
		cl.down.Offer(mqtt.Message{Topic: "d", Payload: []byte("two"), QoS: 2, Retain: true}, downSource{cl}, 3)
		pk = c.message("two")
		if pk.FixedHeader.Qos != 2 || !pk.FixedHeader.Retain {
			t.Errorf("got %+v", pk.FixedHeader)
		}
		c.ack(packets.Pubrec, pk.PacketID)
		c.acked(packets.Pubrel, pk.PacketID)
		c.ack(packets.Pubrec, pk.PacketID) // its PUBREL was lost
		if rel := c.acked(packets.Pubrel, pk.PacketID); rel.ReasonCode != 0 {
			t.Errorf("PUBREL %#x", rel.ReasonCode)
		}
		c.ack(packets.Pubcomp, pk.PacketID)
		until(t, "everything is delivered", func() bool { return cl.down.Counters().Delivered == 3 })
		c.quiet()
	})
}

func TestDeliverUnknownAcknowledgements(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := one(t)
		c, _ := r.connect(v, "dev")
		c.ack(packets.Puback, 1)
		c.ack(packets.Pubcomp, 2)
		c.ack(packets.Puback, 0)
		c.ack(packets.Pubrec, 3)
		if rel := c.acked(packets.Pubrel, 3); rel.ReasonCode != packets.CodeSuccess.Code {
			t.Errorf("PUBREL %#x", rel.ReasonCode)
		}
		c.quiet()
		cl.expect("connected")
	})
}

// Device and broker use the same packet identifiers. Neither direction, nor SUBSCRIBE, disturbs the other.
func TestIdentifiersOfBothDirections(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := one(t)
		cl.manual = true
		c, _ := r.connect(v, "dev")
		const n = 4
		for i := range n {
			cl.send("down", fmt.Sprint(i), byte(1+i%2))
		}
		var ids [n]uint16
		for i := range n {
			ids[i] = c.message(fmt.Sprint(i)).PacketID
		}
		for i := range n {
			c.publish("up", fmt.Sprint(i), byte(1+i%2), ids[i])
		}
		cl.receive(n)
		c.subscribe(1, packets.Subscription{Filter: "f", Qos: 1})
		if ack := c.acked(packets.Suback, 1); ack.ReasonCodes[0] != 1 {
			t.Errorf("SUBACK %#x", ack.ReasonCodes)
		}
		for i := range n {
			cl.done(i)
			c.acked([]byte{packets.Puback, packets.Pubrec}[i%2], ids[i])
		}
		if got := cl.down.Counters(); got.InFlight != n {
			t.Fatalf("%d in flight, want %d", got.InFlight, n)
		}
		for i := range n {
			c.ack([]byte{packets.Puback, packets.Pubrec}[i%2], ids[i])
		}
		c.acked(packets.Pubrel, ids[1])
		c.acked(packets.Pubrel, ids[3])
		c.ack(packets.Pubrel, ids[1])
		c.acked(packets.Pubcomp, ids[1])
		if got := cl.down.Counters(); got.Delivered != n/2 {
			t.Errorf("%d delivered before PUBCOMP, want %d", got.Delivered, n/2)
		}
		c.ack(packets.Pubcomp, ids[1])
		c.ack(packets.Pubcomp, ids[3])
		until(t, "everything is delivered", func() bool { return cl.down.Counters().Delivered == n })
	})
}

// After a reconnect unacknowledged messages come again with DUP and the same identifiers, in order, and PUBREL before
// them.
func TestRedelivery(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := one(t)
		keep := persistent
		if v == 5 {
			keep = expiry(100)
		}
		c, ack := r.connect(v, "dev", keep)
		if ack.SessionPresent {
			t.Error("session present at first")
		}
		for i, qos := range []byte{1, 2, 2, 1} {
			cl.send("t", fmt.Sprint(i), qos)
		}
		var ids []uint16
		for i := range 4 {
			ids = append(ids, c.message(fmt.Sprint(i)).PacketID)
		}
		c.ack(packets.Puback, ids[0])
		c.ack(packets.Pubrec, ids[1])
		c.acked(packets.Pubrel, ids[1])
		c.drop()
		cl.expect("connected", "disconnected false")
		cl.send("t", "4", 1)

		c, ack = r.connect(v, "dev", keep)
		if ack.SessionPresent != (v != 3) {
			t.Errorf("session present %v", ack.SessionPresent)
		}
		c.acked(packets.Pubrel, ids[1])
		for i := 2; i < 4; i++ {
			if pk := c.message(fmt.Sprint(i)); !pk.FixedHeader.Dup || pk.PacketID != ids[i] {
				t.Errorf("message %d: DUP %v, identifier %d, want %d", i, pk.FixedHeader.Dup, pk.PacketID, ids[i])
			}
		}
		if pk := c.message("4"); pk.FixedHeader.Dup {
			t.Error("DUP on a new message")
		}
		c.ack(packets.Pubcomp, ids[1])
		c.quiet()
	})
}

// A message that is too old when the device returns is not delivered again, and its identifier does not stay taken.
func TestExpiredWhileAway(t *testing.T) {
	t.Parallel()
	r, cl := one(t)
	c, _ := r.connect(4, "dev", persistent)
	expires := time.Now().Add(500 * time.Millisecond)
	old := mqtt.Message{Topic: "t", Payload: []byte("old"), QoS: 1, Expires: expires}
	cl.down.Offer(old, downSource{cl}, 1)
	c.message("old")
	s := r.session("dev")
	c.drop()
	cl.expect("connected", "disconnected false")

	cl.down.Offer(mqtt.Message{Topic: "t", Payload: []byte("new"), QoS: 1}, downSource{cl}, 2)
	until(t, "too old", func() bool { return time.Now().After(expires) })
	c, _ = r.connect(4, "dev", persistent)
	c.message("new")
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.out.Len(); n != 1 {
		t.Errorf("%d identifiers in use, want 1", n)
	}
}

func TestWindow(t *testing.T) {
	for name, test := range map[string]struct {
		version byte
		change  func(*packets.Packet)
		payload int
		want    int
	}{
		"messages":        {4, persistent, 1, windowMessages},
		"bytes":           {4, persistent, 60 << 10, 2},
		"receive maximum": {5, func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 3 }, 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			r, cl := one(t)
			c, _ := r.connect(test.version, "dev", test.change)
			payload := strings.Repeat("x", test.payload)
			for range test.want + 2 {
				cl.send("t", payload, 1)
			}
			for range test.want {
				c.message(payload)
			}
			c.quiet()
			c.silent()
			c.ack(packets.Puback, 1)
			c.message(payload)
			c.silent()
		})
	}
}

// MQTT 5's Receive Maximum counts a QoS 2 message until PUBCOMP.
func TestReceiveMaximumCountsUntilPubcomp(t *testing.T) {
	r, cl := one(t)
	c, _ := r.connect(5, "dev", func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 1 })
	cl.send("t", "one", 2)
	cl.send("t", "two", 2)
	id := c.message("one").PacketID
	c.ack(packets.Pubrec, id)
	c.acked(packets.Pubrel, id)
	c.silent()
	c.ack(packets.Pubcomp, id)
	pk := c.message("two")
	c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrec}, PacketID: pk.PacketID,
		ReasonCode: packets.ErrQuotaExceeded.Code}) // refused
	c.quiet()
	if n := cl.down.Counters(); n.Queued != 0 {
		t.Errorf("%d queued after the device refused the message", n.Queued)
	}
}

func TestMaximumPacketSize(t *testing.T) {
	r, cl := one(t)
	const limit = 100
	c, _ := r.connect(5, "dev", func(pk *packets.Packet) { pk.Properties.MaximumPacketSize = limit })
	m := &mqtt.Message{Topic: "t", QoS: 1}
	room := limit - publishSize(5, m)
	fits, large := strings.Repeat("x", room), strings.Repeat("x", room+1)
	cl.send("t", large, 1)
	cl.send("t", fits, 1)
	c.message(fits)
	c.quiet()
	if n := cl.down.Counters(); n.Dropped[lane.TooLarge] != 1 || n.InFlight != 1 {
		t.Errorf("dropped %v, in flight %d", n.Dropped, n.InFlight)
	}
}

// A clean session's messages end with it; those of a persistent device wait, although it connects clean.
func TestHeldForCleanDevice(t *testing.T) {
	for _, persist := range []bool{false, true} {
		t.Run(fmt.Sprint(persist), func(t *testing.T) {
			d := plain("dev")
			d.Persistent = persist
			r := start(t, options{}, d)
			cl := r.clouds["dev"]
			c, _ := r.connect(4, "dev")
			cl.send("t", "one", 1)
			c.message("one")
			c.disconnect()
			cl.expect("connected", "disconnected true")
			cl.send("t", "two", 1)
			c, ack := r.connect(4, "dev")
			if ack.SessionPresent {
				t.Error("session present")
			}
			if persist {
				c.message("one")
				c.message("two")
			}
			c.quiet()
			want := uint64(1)
			if persist {
				want = 0
			}
			if n := cl.down.Counters().Dropped; n[lane.NoSession] != want || n[lane.SessionEnded] != want {
				t.Errorf("dropped %v", n)
			}
		})
	}
}

func TestPublishEncoding(t *testing.T) {
	for _, v := range []byte{4, 5} {
		for _, qos := range []byte{0, 1, 2} {
			for _, n := range []int{0, 1, 120, 121, 122, 123, 124, 125, 126, 127, 16000, 16379, 16380, 16381, 2097152} {
				m := &mqtt.Message{Topic: "t/é", Payload: bytes.Repeat([]byte{'x'}, n), QoS: qos, Retain: n%2 == 0}
				pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Dup: qos > 0,
					Retain: m.Retain}, ProtocolVersion: v, TopicName: m.Topic, Payload: m.Payload}
				if qos > 0 {
					pk.PacketID = 0x1234
				}
				got := appendPublish(nil, v, m, qos > 0, pk.PacketID)
				if want := encode(t, &pk); !bytes.Equal(got, want) {
					t.Errorf("MQTT %d, QoS %d, %d bytes: differs from mochi's", v, qos, n)
				}
				if size := publishSize(v, m); size != len(got) {
					t.Errorf("MQTT %d, QoS %d, %d bytes: size %d, want %d", v, qos, n, size, len(got))
				}
			}
		}
	}
}
