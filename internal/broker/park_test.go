package broker

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// parked is how many messages of a device are parked.
func (r *rig) parked(name string) int {
	d := r.b.devices[name]
	d.mu.Lock()
	l := d.link
	d.mu.Unlock()
	if l == nil {
		return 0
	}
	l.parking.mu.Lock()
	defer l.parking.mu.Unlock()
	return len(l.parking.queue)
}

// filled starts a broker for dev, whose lane takes so many messages and whose cloud is away.
func filled(tb testing.TB, room int) (*rig, *cloud) {
	tb.Helper()
	r := start(tb, options{
		config: func(c *Config) { c.MaxPacketSize = 4 * maxParkedBytes },
		up:     lane.Config{MaxMessages: room},
	}, plain("dev"), plain("other"))
	cl := r.clouds["dev"]
	cl.detach()
	return r, cl
}

// publishAll sends n messages of QoS 1 and 2 in turn, numbered from first on.
func (c *client) publishAll(first, n int, change ...func(*packets.Packet)) {
	c.tb.Helper()
	for i := first; i < first+n; i++ {
		c.publish("t", fmt.Sprint(i), byte(1+i%2), uint16(i+1), change...)
	}
}

// ackedAll reads the acknowledgements for what publishAll sent.
func (c *client) ackedAll(n int) {
	c.tb.Helper()
	for i := range n {
		c.acked([]byte{packets.Puback, packets.Pubrec}[i%2], uint16(i+1))
	}
}

// numbered waits for n messages at the cloud, which must be 0, 1, 2 and so on.
func (c *cloud) numbered(n int) {
	c.tb.Helper()
	for i, d := range c.receive(n) {
		if string(d.Message.Payload) != fmt.Sprint(i) {
			c.tb.Fatalf("message %d is %q", i, d.Message.Payload)
		}
	}
}

// While its lane is full a device is served: it gets answers to PINGREQ and messages, and its end is noticed.
func TestFullLaneServes(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := filled(t, 2)
		c, _ := r.connect(v, "dev")
		c.publishAll(0, 5)
		c.quiet()
		if n := r.parked("dev"); n != 3 {
			t.Errorf("%d parked", n)
		}
		for range 2 * windowMessages { // which takes that PUBACK is read
			cl.send("down", "m", 1)
			c.ack(packets.Puback, c.message("m").PacketID)
		}
		until(t, "acknowledged", func() bool { return cl.down.Empty() })
		c.drop()
		cl.expect("connected", "disconnected false")
	})
}

// What was parked goes to the lane in order, with what comes meanwhile behind it.
func TestParkedInOrder(t *testing.T) {
	const first, n = 20, 400
	r, cl := filled(t, 2)
	c, _ := r.connect(4, "dev")
	c.publishAll(0, first)
	c.quiet()
	var sending sync.WaitGroup
	sending.Go(func() {
		for i := first; i < n; i++ {
			m := mqtt.Message{Topic: "t", Payload: fmt.Append(nil, i), QoS: byte(1 + i%2)}
			if _, err := c.conn.Write(appendPublish(nil, 4, &m, false, uint16(i+1))); err != nil {
				t.Error(err)
				return
			}
		}
	})
	cl.manual = true
	cl.attach()
	for i := range n { // room appears on another goroutine than the reader's
		until(t, "the next message", func() bool { return len(cl.messages()) > i })
		cl.done(i)
	}
	c.ackedAll(n)
	sending.Wait()
	cl.numbered(n)
}

// The reader waits when no more can be parked, and goes on when there is room. Nobody else waits.
func TestParkingBounds(t *testing.T) {
	for name, test := range map[string]struct{ size, parked int }{
		"messages": {10, maxParked},
		"bytes":    {maxParkedBytes / 4, 3}, // each has a topic too
		"one":      {2 * maxParkedBytes, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r, cl := filled(t, 1)
			c, _ := r.connect(4, "dev")
			n := test.parked + 3
			for i := range n {
				c.publish("t", fmt.Sprint(i, strings.Repeat(" ", test.size)), 1, uint16(i+1))
			}
			until(t, "the parking is full", func() bool { return r.parked("dev") == test.parked })
			c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
			c.silent() // it is not read
			if got := r.parked("dev"); got != test.parked {
				t.Errorf("%d parked", got)
			}

			other, _ := r.connect(4, "other")
			other.publish("t", "m", 1, 1)
			other.acked(packets.Puback, 1)

			cl.attach()
			for next, pong := 1, false; next <= n || !pong; { // the answer to PINGREQ may overtake some
				pk, err := c.receive(patience)
				switch {
				case err != nil:
					t.Fatal(err)
				case pk.FixedHeader.Type == packets.Pingresp:
					pong = true
				default:
					if pk.FixedHeader.Type != packets.Puback || pk.PacketID != uint16(next) {
						t.Fatalf("got %s %d", packets.PacketNames[pk.FixedHeader.Type], pk.PacketID)
					}
					next++
				}
			}
			for i, d := range cl.receive(n) {
				if got := strings.TrimRight(string(d.Message.Payload), " "); got != fmt.Sprint(i) {
					t.Errorf("message %d is %q", i, got)
				}
			}
		})
	}
}

// A device that leaves while messages are parked repeats them, and each arrives once, in order.
func TestParkedAreRepeated(t *testing.T) {
	const room, n = 2, 9
	for name, leave := range map[string]func(*rig, *client){
		"drop":       func(_ *rig, c *client) { c.drop() },
		"disconnect": func(_ *rig, c *client) { c.disconnect() },
	} {
		t.Run(name, func(t *testing.T) {
			r, cl := filled(t, room)
			c, _ := r.connect(4, "dev", persistent)
			c.publishAll(0, n)
			c.quiet()
			leave(r, c)
			until(t, "the device is away", func() bool { return !r.present("dev") })
			s := r.session("dev")
			s.mu.Lock()
			if got := s.in.Len(); got != room {
				t.Errorf("the session knows %d messages, want those in the lane only", got)
			}
			s.mu.Unlock()

			c, _ = r.connect(4, "dev", persistent)
			c.publishAll(0, n, dup)
			c.quiet()
			cl.attach()
			c.ackedAll(n)
			cl.numbered(n)
		})
	}
}

// A device may come and go while room appears, and still nothing is lost, doubled or out of order.
func TestParkedStorm(t *testing.T) {
	const n = 40
	r, cl := filled(t, 1)
	cl.manual = true
	cl.attach()
	var c *client
	for i := range n - 1 { // each time one message more is settled while the device is leaving
		c, _ = r.connect(4, "dev", persistent)
		c.publishAll(i, n-i, dup)
		until(t, "the next message", func() bool { return len(cl.messages()) > i })
		var leaving sync.WaitGroup
		leaving.Go(func() { cl.done(i) })
		c.drop()
		leaving.Wait()
	}
	c, _ = r.connect(4, "dev", persistent)
	c.publishAll(n-1, 1, dup)
	cl.receive(n)
	cl.done(n - 1)
	cl.numbered(n)
}

// A QoS 0 message does not overtake what is parked, even if the lane would take it, and is not lost when the device
// leaves.
func TestParkedQoS0(t *testing.T) {
	r := start(t, options{up: lane.Config{MaxBytes: 2000}}, plain("dev"))
	cl := r.clouds["dev"]
	cl.detach()
	c, _ := r.connect(4, "dev")
	large := strings.Repeat("x", 1500)
	three := func() {
		c.publish("first", large, 1, 1)
		c.publish("second", large, 1, 2)
		c.publish("third", "small", 0, 0)
		c.quiet()
		if n := r.parked("dev"); n != 2 {
			t.Errorf("%d parked", n)
		}
	}
	three()
	cl.attach()
	c.acked(packets.Puback, 1)
	c.acked(packets.Puback, 2)
	cl.receive(3)

	cl.detach()
	three()
	c.drop()
	until(t, "the device is away", func() bool { return !r.present("dev") })
	cl.attach()
	for i, d := range cl.receive(5) {
		if want := []string{"first", "second", "third", "first", "third"}[i]; d.Message.Topic != want {
			t.Errorf("message %d is the %s, want the %s", i, d.Message.Topic, want)
		}
	}
}

// A broker that stops does not wait for room, and neither does a device that is taken over.
func TestStopWhilePaused(t *testing.T) {
	r, cl := filled(t, 1)
	c, _ := r.connect(4, "dev")
	c.publishAll(0, maxParked+5)
	until(t, "the parking is full", func() bool { return r.parked("dev") == maxParked })
	next, _ := r.connect(4, "dev")
	c.closed()
	next.publishAll(0, maxParked+5)
	until(t, "the parking is full", func() bool { return r.parked("dev") == maxParked })
	r.stop()
	next.closed()
	cl.expect("connected", "disconnected false", "connected", "disconnected true")
}

func TestParkingRoomComesFirst(t *testing.T) {
	p := parking{}
	calls := 0
	var take func(parked) bool
	take = func(parked) bool {
		if calls++; calls == 1 {
			p.retry(take) // before the refusal is known
			return false
		}
		return true
	}
	p.put(parked{})
	p.offer(take)
	if calls != 2 || len(p.close()) != 0 {
		t.Errorf("offered %d times", calls)
	}
}

// Each refusal has the lane call Room, so there must not be one for each message that comes.
func TestParkingOffersOncePerRoom(t *testing.T) {
	p := parking{}
	calls := 0
	full := func(parked) bool { calls++; return false }
	for range 10 {
		p.put(parked{})
		p.offer(full)
	}
	if calls != 1 {
		t.Errorf("offered %d times", calls)
	}
	p.retry(full)
	if calls != 2 || len(p.close()) != 10 {
		t.Errorf("offered %d times", calls)
	}
}

// What is on offer when the link ends is waited for: it may be taken.
func TestParkingCloseWaits(t *testing.T) {
	p := parking{}
	offered, answer := make(chan struct{}), make(chan bool)
	p.put(parked{token: 1})
	p.put(parked{token: 2})
	go p.offer(func(parked) bool { close(offered); return <-answer }) // a second time would panic
	<-offered
	rest := make(chan []parked)
	go func() { rest <- p.close() }()
	until(t, "close has begun", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.closed })
	select {
	case <-rest:
		t.Fatal("close does not wait")
	default:
	}
	answer <- true
	if got := <-rest; len(got) != 1 || got[0].token != 2 {
		t.Errorf("left: %+v", got)
	}
}

// While memory is short one message is parked and no more: a link needs one to make progress.
func TestParkingTakesMemory(t *testing.T) {
	var m mqtt.Message
	size := m.Size()
	memory := lane.NewBudget(3 * size)
	p := parking{room: func() {}, memory: memory}
	parkedNow := func() (n int) {
		for p.put(parked{}) {
			n++
		}
		return n
	}
	if n := parkedNow(); n != 4 || memory.Used() != 3*size {
		t.Fatalf("%d messages are parked with %d bytes", n, memory.Used())
	}
	left := 2
	p.offer(func(parked) bool { left--; return left >= 0 })
	if memory.Used() != 2*size {
		t.Errorf("%d bytes are taken after two have left", memory.Used())
	}
	left = 100
	p.retry(func(parked) bool { left--; return left >= 0 })
	if memory.Used() != 0 {
		t.Errorf("%d bytes are taken by nothing", memory.Used())
	}
	if !memory.Take(3 * size) {
		t.Fatal("no memory")
	}
	if n := parkedNow(); n != 1 {
		t.Errorf("%d messages are parked without memory", n)
	}
}
