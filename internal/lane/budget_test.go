package lane

import (
	"testing"

	"bridged/internal/mqtt"
)

// stuck returns a lane whose far side is away, full to the last byte of the budget.
func stuck(t *testing.T, b *Budget) *Lane {
	t.Helper()
	l := New(Config{Hold: true, Budget: b, OnFull: DropNewest})
	for b.Used()+base <= b.limit.Load() {
		offer(t, l, nil, 0, 1, 0)
	}
	return l
}

// TestBudgetProgress makes sure that one device whose cloud is away does not stop the others: each empty lane takes a
// message.
func TestBudgetProgress(t *testing.T) {
	b := NewBudget(80 * base)
	away := stuck(t, b)
	for range 3 {
		l, s, c := New(Config{Hold: true, Budget: b}), new(source), new(consumer)
		r := attach(l, c)
		for n := 1; n <= 100; n++ {
			offer(t, l, s, n, 1, int(9*base))
			if l.Offer(message(1, 0), s, 0) {
				t.Fatal("a second message was taken beyond the budget")
			}
			r.Done(uint64(n))
			if _, rooms := s.got(); rooms != 1 {
				t.Fatalf("%d calls of Room", rooms)
			}
		}
		offer(t, l, s, 0, 0, 0) // QoS 0, too
		if n := ledger(t, l); n.Delivered != 101 {
			t.Fatalf("counters %+v", n)
		}
	}
	away.Hold(false)
	if n := b.Used(); n != 0 {
		t.Errorf("%d bytes are taken in the end", n)
	}
}

// TestBudgetWakes tells the lanes that wait when there is memory again, once, and not before there is enough for each.
func TestBudgetWakes(t *testing.T) {
	b := NewBudget(80 * base)
	away := stuck(t, b)
	r := attach(away, new(consumer))
	type waiter struct {
		l *Lane
		s *source
	}
	var waiters []waiter
	for range 3 {
		w := waiter{New(Config{Hold: true, Budget: b}), new(source)}
		offer(t, w.l, w.s, 1, 1, 0) // beyond the budget, because the lane is empty
		if w.l.Offer(message(1, int(9*base)), w.s, 2) {
			t.Fatal("taken beyond the budget")
		}
		waiters = append(waiters, w)
	}
	rooms := func() (n int) {
		for _, w := range waiters {
			_, r := w.s.got()
			n += r
		}
		return n
	}
	// 83 messages are there. The lanes are told at less than 70.
	for seq := uint64(1); seq <= 13; seq++ {
		r.Done(seq)
		if n := rooms(); n != 0 {
			t.Fatalf("%d calls of Room with %d of %d bytes taken", n, b.Used(), b.limit.Load())
		}
	}
	r.Done(14)
	if n := rooms(); n != 3 {
		t.Fatalf("%d calls of Room, want one for each of 3 lanes", n)
	}
	r.Done(15)
	if n := rooms(); n != 0 {
		t.Fatalf("%d more calls of Room", n)
	}
	if w := waiters[0]; !w.l.Offer(message(1, int(9*base)), w.s, 2) {
		t.Error("the largest message found no room after Room")
	}
}

// TestBudgetWakesInTurn makes sure that a call of Room on behalf of another lane does not run beside that lane's own
// calls: the sources of the tests panic if it does.
func TestBudgetWakesInTurn(t *testing.T) {
	b := NewBudget(80 * base)
	away := stuck(t, b)
	freed := attach(away, new(consumer))
	l, s := New(Config{Hold: true, Budget: b}), new(source)
	r := attach(l, new(consumer))
	offer(t, l, s, 1, 1, 0)
	if l.Offer(message(1, 0), s, 2) {
		t.Fatal("taken beyond the budget")
	}
	s.onSettled = func(mqtt.Token, Outcome) {
		if _, rooms := s.got(); rooms != 0 {
			t.Error("Room was called before Settled returned")
		}
		if !l.Offer(message(1, 0), s, 2) || l.Offer(message(1, 0), s, 3) {
			t.Error("an empty lane takes one message")
		}
		for seq := range uint64(40) {
			freed.Done(seq + 1)
		}
	}
	r.Done(1)
	if _, rooms := s.got(); rooms != 2 { // the first for Done(1)
		t.Errorf("%d calls of Room", rooms)
	}
}

// TestNoBudget needs none.
func TestNoBudget(t *testing.T) {
	l, s := New(Config{Hold: true}), new(source)
	offer(t, l, s, 1, 1, 64<<20)
	attach(l, new(consumer)).Done(1)
	wantSettled(t, s, settlement{1, Delivered})
}

// A lane that finds room for a message after all still waits for the sake of one that it refused before.
func TestBudgetKeepsWaiting(t *testing.T) {
	b, l := NewBudget(100), New(Config{})
	b.reserve(100, false)
	if b.wait(l, 50) {
		t.Fatal("there is room")
	}
	b.used.Add(-10) // as free does it before it looks who waits
	if !b.wait(l, 10) {
		t.Fatal("there is no room")
	}
	b.used.Add(10)
	if waiting := b.free(50); len(waiting) != 1 {
		t.Errorf("%d lanes are called", len(waiting))
	}
	if waiting := b.free(50); len(waiting) != 0 {
		t.Errorf("%d lanes are called again", len(waiting))
	}
}
