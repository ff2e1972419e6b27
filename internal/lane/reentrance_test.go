package lane

import (
	"testing"

	"bridged/internal/mqtt"
)

// TestSourceCallsBack has a source use every method of the lane from Settled and Room.
func TestSourceCallsBack(t *testing.T) {
	l, s, c := New(Config{Hold: true, MaxMessages: 2}), new(source), new(consumer)
	r := attach(l, c)
	everything := func() {
		l.Counters()
		l.Empty()
		l.Sweep()
		l.Hold(true)
		r.Pump()
		r.Done(1)
	}
	next := 3
	s.onRoom = func() {
		everything()
		for next <= 100 && l.Offer(message(1, 0), s, mqtt.Token(next)) {
			next++
		}
	}
	s.onSettled = func(mqtt.Token, Outcome) { everything() }
	within(t, "no deadlock", func() {
		offer(t, l, s, 1, 1, 0)
		offer(t, l, s, 2, 1, 0)
		if l.Offer(message(1, 0), s, 3) {
			t.Error("a full lane took a message")
		}
		for !l.Empty() {
			for _, d := range c.got() {
				r.Done(d.Seq)
			}
		}
	})
	settled, _ := s.got()
	for i, g := range settled {
		if g != (settlement{mqtt.Token(i + 1), Delivered}) {
			t.Fatalf("settled %v", settled)
		}
	}
	if n := ledger(t, l); n.Delivered != 100 || len(settled) != 100 {
		t.Errorf("counters %+v, %d settled", n, len(settled))
	}
}

// TestConsumerLowersQoS calls Done from Deliver, while the source offers the next message from Settled: the stack
// does not grow, and the calls do not overlap.
func TestConsumerLowersQoS(t *testing.T) {
	const total = 5_000
	l, s, c := New(Config{Hold: true}), new(source), new(consumer)
	r := l.Attach(c, Window{Messages: 1})
	c.onDeliver = func(d Delivery) { r.Done(d.Seq) }
	s.onSettled = func(n mqtt.Token, _ Outcome) {
		if n < total && !l.Offer(message(1, 0), s, n+1) {
			t.Error("not taken")
		}
	}
	within(t, "all messages", func() {
		r.Start()
		offer(t, l, s, 1, 1, 0)
	})
	if n := ledger(t, l); n.Delivered != total || n.Accepted != total {
		t.Errorf("counters %+v", n)
	}
}

// TestConsumerDropsWhileDelivering has the consumer refuse a message that it is given: the next one follows.
func TestConsumerDropsWhileDelivering(t *testing.T) {
	l, s, c := New(Config{Hold: true}), new(source), new(consumer)
	r := l.Attach(c, Window{Messages: 1})
	c.onDeliver = func(d Delivery) {
		if d.Seq%2 == 1 {
			r.Drop(d.Seq, TooLarge)
		}
	}
	r.Start()
	for n := 1; n <= 4; n++ {
		offer(t, l, s, n, byte(n/2), 0)
	}
	wantDelivered(t, c, 1, 2)
	r.Done(2)
	wantDelivered(t, c, 3, 4)
	wantSettled(t, s, settlement{1, Dropped}, settlement{2, Delivered}, settlement{3, Dropped})
	if n := ledger(t, l); n.Dropped[TooLarge] != 2 || n.Delivered != 1 {
		t.Errorf("counters %+v", n)
	}
}

// TestConsumerDetachesWhileDelivering ends the connection from within each of the consumer's methods.
func TestConsumerDetachesWhileDelivering(t *testing.T) {
	for _, qos := range []byte{0, 1} {
		for _, where := range []string{"ready", "deliver", "flush"} {
			l, s, c := New(Config{Hold: true}), new(source), new(consumer)
			for n := 1; n <= 3; n++ {
				offer(t, l, s, n, qos, 0)
			}
			r := l.Attach(c, Window{Messages: 2})
			detach := func() { r.Detach(true) }
			switch where {
			case "ready":
				c.onReady = func() bool { detach(); return true }
			case "deliver":
				c.onDeliver = func(Delivery) { detach() }
			case "flush":
				c.onFlush = detach
			}
			within(t, where, r.Start)
			first := c.got()
			if where == "ready" && len(first) > 0 {
				t.Errorf("QoS %d: delivered %v to a consumer that has left", qos, first)
			}
			second := new(consumer)
			attach(l, second)
			// Each came, QoS 0 once only, and QoS 1 once to the consumer that stayed.
			count := make(map[uint64]int)
			for _, d := range first {
				count[d.Seq]++
			}
			for _, d := range second.got() {
				if d.Dup != (qos == 1 && count[d.Seq] > 0) {
					t.Errorf("%s, QoS %d: message %d has DUP %v", where, qos, d.Seq, d.Dup)
				}
				if qos == 1 {
					count[d.Seq] = 0
				}
				count[d.Seq]++
			}
			for seq := uint64(1); seq <= 3; seq++ {
				if count[seq] != 1 {
					t.Errorf("%s, QoS %d: message %d was delivered %d times", where, qos, seq, count[seq])
				}
			}
			ledger(t, l)
		}
	}
}

// TestReplacedWhileDelivering attaches another consumer while a QoS 0 message is being delivered: it may not come
// twice. Attach itself calls nobody, since its caller may hold locks.
func TestReplacedWhileDelivering(t *testing.T) {
	l, s, first, second := New(Config{Hold: true, MaxMessages: 2}), new(source), new(consumer), new(consumer)
	offer(t, l, s, 1, 0, 0)
	offer(t, l, s, 2, 1, 0)
	if l.Offer(message(1, 0), s, 3) {
		t.Fatal("a full lane took a message")
	}
	first.onDeliver = func(Delivery) {
		r := l.Attach(second, Window{})
		if settled, rooms := s.got(); len(settled)+rooms != 0 {
			t.Errorf("settled %v, %d calls of Room in Attach", settled, rooms)
		}
		r.Start()
	}
	attach(l, first)
	wantDelivered(t, first, 1)
	wantDelivered(t, second, 2)
	if settled, rooms := s.got(); len(settled) != 1 || settled[0] != (settlement{1, Delivered}) || rooms != 1 {
		t.Errorf("settled %v, %d calls of Room", settled, rooms)
	}
	if n := ledger(t, l); n.Delivered != 1 || n.InFlight != 1 {
		t.Errorf("counters %+v", n)
	}
}

// TestConsumerCallsBack has a consumer use the lane from each of its methods.
func TestConsumerCallsBack(t *testing.T) {
	l, s, c := New(Config{Hold: true}), new(source), new(consumer)
	r := l.Attach(c, Window{Messages: 2})
	everything := func() {
		l.Counters()
		l.Empty()
		l.Sweep()
		l.Hold(true)
		l.Offer(message(1, 0), nil, 0)
		r.Done(99)
	}
	c.onReady = func() bool { everything(); return true }
	c.onDeliver = func(Delivery) { everything(); r.Pump() }
	flushes := 0
	c.onFlush = func() {
		everything()
		if flushes++; flushes < 10 {
			r.Pump()
		}
	}
	offer(t, l, s, 1, 1, 0)
	within(t, "Start", r.Start)
	wantDelivered(t, c, 1, 2)
	within(t, "Done", func() { r.Done(1) })
	wantDelivered(t, c, 3)
	wantSettled(t, s, settlement{1, Delivered})
	ledger(t, l)
}

// TestRefusedWithoutSource offers a message that nobody waits for to a full lane.
func TestRefusedWithoutSource(t *testing.T) {
	l, s := New(Config{Hold: true, MaxMessages: 1}), new(source)
	offer(t, l, s, 1, 1, 0)
	if l.Offer(message(1, 0), nil, 0) {
		t.Fatal("a full lane took a message")
	}
	r := attach(l, new(consumer))
	r.Done(1)
	wantSettled(t, s, settlement{1, Delivered})
}
