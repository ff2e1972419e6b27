package crash

import (
	"fmt"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/cloudsim"
)

// A cloud or a device that has a QoS 2 message which was not released takes what comes under the same packet identifier
// for a repetition of it. After a kill bridged does not know these identifiers, and has to release them before it uses
// them. Here the first attempt to do so is lost with its connection.
func TestReleaseIsLost(t *testing.T) {
	t.Parallel()
	// The connection ends when the cloud reads the packet with this number, which is lost; 0: it does not.
	for cut := range 6 {
		t.Run(fmt.Sprint("packet ", cut), func(t *testing.T) {
			t.Parallel()
			c := newCloud(t)
			s := newSite(t, settings{cloud: c.WSURL(), queue: queueYAML("spill"), devices: names(1)})
			s.start()
			s.ready()
			dev := names(1)[0]
			publish(t, s, dev, 0) // the cloud is done with it
			until(t, "the first message is done with", func() bool { return c.from(dev) == 1 && idle(c, dev) }, nil)
			c.WithholdAcks(dev)
			publish(t, s, dev, 1) // the cloud has it, and waits for PUBREL
			until(t, "the second message has arrived", func() bool { return c.from(dev) == 2 }, nil)
			s.kill()

			c.Down()
			c.Heal()
			s.start()
			s.ready()
			publish(t, s, dev, 2) // bridged gives it the identifier of the second one
			if err := c.Up(); err != nil {
				t.Fatal(err)
			}
			c.DropAfter(dev, cut, 1, cloudsim.CutClose)
			until(t, "all is delivered", func() bool { return c.from(dev) == 3 }, func() string {
				return fmt.Sprintf("%d have arrived, and %d were taken for repetitions", c.from(dev), c.Totals().QoS2Repeats)
			})
			s.stop()
			s.ledger(nil)
		})
	}
}

// idle says whether the cloud has nothing withheld, and the device's session is up.
func idle(c *cloud, dev string) bool {
	session, ok := c.Session(dev)
	return ok && session.Connected && session.Withheld == 0
}

// publish publishes one message of QoS 2, from CONNECT to DISCONNECT.
func publish(t *testing.T, s *site, dev string, n int) {
	t.Helper()
	l, err := dial(t.Context(), s.addr, dev, false)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID = "up/"+dev, text(dev, n), 2, uint16(n+1)
	if err := l.send(p); err != nil {
		t.Fatal(err)
	}
	next[*packets.PubrecPacket](t, l)
	if err := l.answer(packets.Pubrel, p.MessageID); err != nil {
		t.Fatal(err)
	}
	next[*packets.PubcompPacket](t, l)
	l.goodbye()
}

// next waits for the next packet, which must be of type P.
func next[P packets.ControlPacket](t *testing.T, l *link) P {
	t.Helper()
	select {
	case got := <-l.in:
		p, ok := got.(P)
		if !ok {
			t.Fatalf("got %v, want %T", got, p)
		}
		return p
	case <-time.After(patience):
		var p P
		t.Fatalf("no %T", p)
		return p
	}
}

// The same towards a device.
func TestReleaseIsLostToDevice(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	s := newSite(t, settings{cloud: c.WSURL(), queue: queueYAML("spill"), devices: names(1)})
	s.start()
	s.ready()
	dev := names(1)[0]
	l := subscribed(t, s, dev)
	c.send(t, dev, 0) // so that identifiers differ after a restart
	confirm(t, l, next[*packets.PublishPacket](t, l).MessageID)
	c.send(t, dev, 1)
	held := next[*packets.PublishPacket](t, l)
	if err := l.answer(packets.Pubrec, held.MessageID); err != nil { // and PUBREL is not answered
		t.Fatal(err)
	}
	next[*packets.PubrelPacket](t, l)
	l.close()
	c.send(t, dev, 2, 3)
	until(t, "bridged has acknowledged what came", func() bool { return len(c.unacked(dev)) == 0 }, nil)
	s.kill()

	// The device has a message under held.MessageID. What comes on its next connection is lost: the device, unlike this
	// test, does not read it.
	s.start()
	s.ready()
	l = resume(t, s, dev)
	for publishes := 0; publishes < 3; {
		if _, ok := (<-l.in).(*packets.PublishPacket); ok {
			publishes++
		}
	}
	l.close()
	l = resume(t, s, dev)
	defer l.close()
	in := map[uint16]string{held.MessageID: string(held.Payload)}
	got := make(map[string]bool)
	for len(got) < 3 {
		select {
		case p := <-l.in:
			takeQoS2(t, l, p, in, got)
		case <-time.After(patience):
			t.Fatalf("these came: %v", got)
		}
	}
	s.stop()
}

// takeQoS2 does with a packet what a device does that takes messages when they are released.
func takeQoS2(t *testing.T, l *link, p packets.ControlPacket, in map[uint16]string, got map[string]bool) {
	t.Helper()
	var err error
	switch p := p.(type) {
	case *packets.PublishPacket:
		if old, ok := in[p.MessageID]; ok && old != string(p.Payload) {
			t.Fatalf("%.10q came under the identifier of %.10q, which was not released", p.Payload, old)
		}
		in[p.MessageID] = string(p.Payload)
		err = l.answer(packets.Pubrec, p.MessageID)
	case *packets.PubrelPacket:
		if payload, ok := in[p.MessageID]; ok {
			got[payload] = true
		}
		delete(in, p.MessageID)
		err = l.answer(packets.Pubcomp, p.MessageID)
	default:
		t.Fatalf("got %v", p)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func confirm(t *testing.T, l *link, id uint16) {
	t.Helper()
	if err := l.answer(packets.Pubrec, id); err != nil {
		t.Fatal(err)
	}
	next[*packets.PubrelPacket](t, l)
	if err := l.answer(packets.Pubcomp, id); err != nil {
		t.Fatal(err)
	}
}

// subscribed connects a device and subscribes.
func subscribed(t *testing.T, s *site, dev string) *link {
	t.Helper()
	l, err := dial(t.Context(), s.addr, dev, false)
	if err != nil {
		t.Fatal(err)
	}
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics, p.Qoss = 1, []string{"down/" + dev}, []byte{2}
	if err := l.send(p); err != nil {
		t.Fatal(err)
	}
	next[*packets.SubackPacket](t, l)
	return l
}

// resume connects a device whose session goes on.
func resume(t *testing.T, s *site, dev string) *link {
	t.Helper()
	l, err := dial(t.Context(), s.addr, dev, false)
	if err != nil {
		t.Fatal(err)
	}
	if !l.present {
		t.Fatal("the session is gone")
	}
	return l
}
