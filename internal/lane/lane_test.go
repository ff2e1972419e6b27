package lane

import (
	"fmt"
	"testing"
	"time"

	"bridged/internal/mqtt"
)

// offer offers a message of so many bytes of payload under its number, and fails the test if that is not taken.
func offer(t *testing.T, l *Lane, s *source, n int, qos byte, payload int) {
	t.Helper()
	m := message(qos, payload)
	var from Source
	if s != nil {
		from = s
	}
	if !l.Offer(m, from, mqtt.Token(n)) {
		t.Fatalf("message %d was not taken", n)
	}
}

func TestDeliverAndSettle(t *testing.T) {
	l, s, c := New(Config{Hold: true}), new(source), new(consumer)
	offer(t, l, s, 1, 1, 0)
	offer(t, l, nil, 2, 0, 0)
	offer(t, l, s, 3, 2, 0)
	r := l.Attach(c, Window{})
	wantDelivered(t, c)
	r.Start()
	wantDelivered(t, c, 1, 2, 3)
	offer(t, l, s, 4, 1, 0)
	wantDelivered(t, c, 4)
	wantSettled(t, s)
	if n := ledger(t, l); n.Delivered != 1 || n.InFlight != 3 {
		t.Fatalf("counters %+v", n)
	}
	// Acknowledged out of order, settled in order.
	r.Done(3)
	wantSettled(t, s)
	r.Done(1)
	wantSettled(t, s, settlement{1, Delivered}, settlement{3, Delivered})
	r.Done(3)
	r.Done(1)
	r.Done(99)
	r.Done(0)
	wantSettled(t, s)
	r.Drop(4, TooLarge)
	wantSettled(t, s, settlement{4, Dropped})
	n := ledger(t, l)
	if n.Accepted != 4 || n.Delivered != 3 || n.Dropped[TooLarge] != 1 || n.LastDropped != TooLarge || !l.Empty() {
		t.Fatalf("counters %+v", n)
	}
	if c.unflushed != 0 || c.flushes != 2 {
		t.Errorf("%d deliveries not flushed, %d flushes", c.unflushed, c.flushes)
	}
}

func TestResend(t *testing.T) {
	l, s := New(Config{Hold: true}), new(source)
	first, second, third := new(consumer), new(consumer), new(consumer)
	for n := 1; n <= 5; n++ {
		qos := byte(1)
		if n == 3 {
			qos = 0
		}
		offer(t, l, s, n, qos, 0)
	}
	r1 := l.Attach(first, Window{Messages: 3})
	r1.Start()
	wantDelivered(t, first, 1, 2, 3, 4) // QoS 0 does not stay in flight
	r1.Done(2)
	wantDelivered(t, first, 5)
	r1.Detach(true)
	offer(t, l, s, 6, 2, 0)
	wantDelivered(t, first)
	r2 := attach(l, second)
	wantDelivered(t, second, -1, -4, -5, 6)
	// An acknowledgement that was on its way when the connection ended counts.
	r1.Done(4)
	offer(t, l, s, 7, 1, 0)
	wantDelivered(t, second, 7)
	r3 := attach(l, third) // takes over without a Detach
	wantDelivered(t, third, -1, -5, -6, -7)
	r2.Detach(false) // too late to end the session
	r2.Pump()
	r2.Start()
	wantDelivered(t, second)
	offer(t, l, s, 8, 1, 0)
	wantDelivered(t, third, 8)
	for seq := uint64(1); seq <= 8; seq++ {
		r3.Done(seq)
	}
	got, _ := s.got()
	for i, g := range got {
		if g != (settlement{mqtt.Token(i + 1), Delivered}) {
			t.Fatalf("settled %v", got)
		}
	}
	if n := ledger(t, l); n.Delivered != 8 || len(got) != 8 {
		t.Fatalf("counters %+v, %d settled", n, len(got))
	}
}

func TestWindow(t *testing.T) {
	t.Run("messages", func(t *testing.T) {
		l, s, c := New(Config{Hold: true}), new(source), new(consumer)
		r := l.Attach(c, Window{Messages: 2})
		r.Start()
		for n := 1; n <= 5; n++ {
			offer(t, l, s, n, 1, 0)
		}
		wantDelivered(t, c, 1, 2)
		r.Done(2)
		wantDelivered(t, c, 3)
		r.Pump()
		wantDelivered(t, c)
		r.Drop(1, TooLarge) // opens the window as Done does
		wantDelivered(t, c, 4)
		r.Drop(4, TooLarge)
		wantDelivered(t, c, 5)
	})
	t.Run("bytes", func(t *testing.T) {
		l, s, c := New(Config{Hold: true}), new(source), new(consumer)
		r := l.Attach(c, Window{Bytes: 2*base + 100})
		r.Start()
		offer(t, l, s, 1, 1, 50)
		offer(t, l, s, 2, 1, 50)
		offer(t, l, s, 3, 1, 0)
		offer(t, l, s, 4, 1, 101+int(base)) // larger than the window
		offer(t, l, s, 5, 1, 0)
		wantDelivered(t, c, 1, 2)
		r.Done(1)
		wantDelivered(t, c, 3)
		r.Done(2)
		wantDelivered(t, c) // not beside another
		r.Done(3)
		wantDelivered(t, c, 4)
		r.Done(4)
		wantDelivered(t, c, 5)
	})
	t.Run("QoS 0 waits its turn", func(t *testing.T) {
		l, s, c := New(Config{Hold: true}), new(source), new(consumer)
		r := l.Attach(c, Window{Messages: 1})
		r.Start()
		offer(t, l, s, 1, 1, 0)
		offer(t, l, nil, 2, 0, 0)
		offer(t, l, nil, 3, 0, 0)
		wantDelivered(t, c, 1)
		r.Done(1)
		wantDelivered(t, c, 2, 3)
	})
	t.Run("afresh after a reconnect", func(t *testing.T) {
		l, s := New(Config{Hold: true}), new(source)
		r := l.Attach(new(consumer), Window{Messages: 2, Bytes: 2 * base})
		r.Start()
		for n := 1; n <= 3; n++ {
			offer(t, l, s, n, 1, 0)
		}
		c := new(consumer)
		r2 := l.Attach(c, Window{Messages: 2, Bytes: 2 * base})
		r2.Start()
		wantDelivered(t, c, -1, -2)
		r.Done(1)
		wantDelivered(t, c, 3)
	})
}

// TestRefusedWaitsForEarlier reports a message that is dropped at once only after those before it (4.6).
func TestRefusedWaitsForEarlier(t *testing.T) {
	l, s, c := New(Config{Hold: true, MaxPayload: 10}), new(source), new(consumer)
	offer(t, l, s, 1, 1, 0)
	offer(t, l, s, 2, 1, 100)
	offer(t, l, s, 3, 1, 0)
	wantSettled(t, s)
	r := attach(l, c)
	wantDelivered(t, c, 1, 3)
	r.Done(3)
	wantSettled(t, s)
	r.Done(1)
	wantSettled(t, s, settlement{1, Delivered}, settlement{2, Dropped}, settlement{3, Delivered})
}

func TestHold(t *testing.T) {
	l, s := New(Config{}), new(source)
	offer(t, l, s, 1, 1, 0)
	offer(t, l, nil, 2, 0, 0)
	wantSettled(t, s, settlement{1, Dropped})
	if c := ledger(t, l); c.Dropped[NoSession] != 2 {
		t.Fatalf("counters %+v", c)
	}

	l.Hold(true)
	offer(t, l, s, 3, 1, 0)
	offer(t, l, nil, 4, 0, 0)
	l.Hold(false)
	wantSettled(t, s, settlement{3, Dropped})
	if c := ledger(t, l); c.Dropped[SessionEnded] != 2 || c.Queued != 0 {
		t.Fatalf("counters %+v", c)
	}

	c := new(consumer)
	r := attach(l, c)
	offer(t, l, s, 5, 1, 0)
	offer(t, l, s, 6, 1, 0)
	l.Hold(false) // a consumer is attached
	r.Detach(true)
	wantSettled(t, s)
	r = attach(l, c)
	r.Detach(false)
	wantSettled(t, s, settlement{5, Dropped}, settlement{6, Dropped})
	r.Done(5)
	wantSettled(t, s)
	offer(t, l, s, 7, 1, 0)
	wantSettled(t, s, settlement{7, Dropped})
	if c := ledger(t, l); c.Dropped[SessionEnded] != 4 || c.Dropped[NoSession] != 3 || c.Delivered != 0 {
		t.Fatalf("counters %+v", c)
	}
}

// TestDetachDecidesHold has the last word with the reader that is attached.
func TestDetachDecidesHold(t *testing.T) {
	l, s := New(Config{}), new(source)
	r := attach(l, new(consumer))
	r.Detach(true)
	offer(t, l, s, 1, 1, 0)
	if c := ledger(t, l); c.Queued != 1 {
		t.Fatalf("counters %+v", c)
	}
	r.Detach(false) // no longer attached: nothing happens
	if c := ledger(t, l); c.Queued != 1 {
		t.Fatalf("counters %+v", c)
	}
}

func TestQoS0Away(t *testing.T) {
	l, c := New(Config{Hold: true, DropQoS0: true}), new(consumer)
	offer(t, l, nil, 1, 0, 0)
	r := attach(l, c)
	offer(t, l, nil, 2, 0, 0)
	r.Detach(true)
	offer(t, l, nil, 3, 0, 0)
	if n := ledger(t, l); n.Dropped[QoS0Away] != 2 || n.Delivered != 1 || len(c.got()) != 1 {
		t.Fatalf("counters %+v", n)
	}
}

// TestDeliveryIsTheMessage makes sure that nothing of a message is changed on the way.
func TestDeliveryIsTheMessage(t *testing.T) {
	l, c := New(Config{Hold: true}), new(consumer)
	m := mqtt.Message{Topic: "a/b", Payload: []byte("x"), QoS: 2, Retain: true, Expires: time.Now().Add(time.Hour)}
	l.Offer(m, nil, 0)
	attach(l, c)
	d := c.got()[0]
	if d.Message.Topic != m.Topic || &d.Message.Payload[0] != &m.Payload[0] || d.Message.QoS != 2 || !d.Message.Retain ||
		!d.Message.Expires.Equal(m.Expires) {
		t.Errorf("delivered %+v, want %+v", d.Message, m)
	}
}

func TestReasons(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range Reasons() {
		name := r.String()
		if name == "" || seen[name] {
			t.Errorf("reason %d is called %q", r, name)
		}
		seen[name] = true
	}
	unknown := fmt.Sprintf("Reason(%d)", reasons)
	if len(seen) != int(reasons)-1 || Reason(0).String() != "Reason(0)" || reasons.String() != unknown {
		t.Errorf("%d reasons: %v", len(seen), seen)
	}
}
