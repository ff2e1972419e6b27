package lane

import (
	"testing"
	"testing/synctest"
	"time"

	"bridged/internal/mqtt"
)

// pass lets time go by in the bubble.
func pass(d time.Duration) { <-time.After(d) }

func expiring(d time.Duration) mqtt.Message {
	m := message(1, 0)
	m.Expires = time.Now().Add(d)
	return m
}

func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, c := New(Config{Hold: true, MaxAge: time.Minute}), new(source), new(consumer)
		offer(t, l, s, 1, 1, 0)
		pass(30 * time.Second)
		offer(t, l, s, 2, 1, 0)
		pass(30 * time.Second)
		if n := ledger(t, l); n.Oldest != time.Minute {
			t.Fatalf("the oldest is %v old", n.Oldest)
		}
		l.Sweep()
		wantSettled(t, s) // exactly a minute is not over a minute
		pass(1)
		l.Sweep()
		wantSettled(t, s, settlement{1, Dropped})
		if n := ledger(t, l); n.Dropped[Expired] != 1 || n.Oldest != 30*time.Second+1 {
			t.Fatalf("counters %+v", n)
		}
		offer(t, l, s, 3, 1, 0)
		pass(45 * time.Second)
		r := attach(l, c) // drops on its own, without Sweep
		wantDelivered(t, c, 3)
		wantSettled(t, s, settlement{2, Dropped})
		pass(time.Hour) // in flight, it does not age
		l.Sweep()
		r.Pump()
		wantSettled(t, s)
		r.Detach(true)
		attach(l, c) // but it is not sent again an hour later
		wantDelivered(t, c)
		wantSettled(t, s, settlement{3, Dropped})
		if n := ledger(t, l); n.Dropped[Expired] != 3 || n.Queued != 0 {
			t.Fatalf("counters %+v", n)
		}
	})
}

func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, c := New(Config{Hold: true}), new(source), new(consumer)
		l.Offer(expiring(2*time.Hour), s, 1)
		l.Offer(expiring(time.Hour), s, 2)
		offer(t, l, s, 3, 1, 0)
		l.Offer(expiring(time.Hour), s, 4)
		pass(time.Hour - 1)
		l.Sweep()
		if n := ledger(t, l); n.Queued != 4 {
			t.Fatalf("counters %+v", n)
		}
		pass(1)
		l.Sweep() // finds those in the middle, too
		if n := ledger(t, l); n.Dropped[Expired] != 2 {
			t.Fatalf("counters %+v", n)
		}
		wantSettled(t, s) // 1 comes before
		r := attach(l, c)
		wantDelivered(t, c, 1, 3)
		r.Done(1)
		wantSettled(t, s, settlement{1, Delivered}, settlement{2, Dropped})
		r.Done(3)
		wantSettled(t, s, settlement{3, Delivered}, settlement{4, Dropped})
	})
}

// TestExpiresWithMaxAge has messages whose own time is shorter behind younger ones.
func TestExpiresWithMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := New(Config{Hold: true, MaxAge: time.Hour}), new(source)
		offer(t, l, s, 1, 1, 0)
		pass(time.Minute)
		l.Offer(expiring(time.Minute), s, 2)
		offer(t, l, s, 3, 1, 0)
		pass(time.Minute)
		l.Sweep()
		if n := ledger(t, l); n.Dropped[Expired] != 1 || n.Queued != 2 {
			t.Fatalf("counters %+v", n)
		}
		pass(time.Hour)
		l.Sweep()
		wantSettled(t, s, settlement{1, Dropped}, settlement{2, Dropped}, settlement{3, Dropped})
	})
}

// TestExpiryMakesRoom tells a source that was refused, and goes on behind what blocked the window.
func TestExpiryMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, c := New(Config{Hold: true, MaxMessages: 2, MaxAge: time.Minute}), new(source), new(consumer)
		r := l.Attach(c, Window{Messages: 1})
		r.Start()
		offer(t, l, s, 1, 1, 0)
		offer(t, l, s, 2, 1, 0)
		if l.Offer(message(1, 0), s, 3) {
			t.Fatal("a full lane took a message")
		}
		pass(time.Minute + 1)
		l.Sweep()
		if settled, rooms := s.got(); len(settled) != 0 || rooms != 1 {
			t.Fatalf("settled %v, %d calls of Room", settled, rooms)
		}
		offer(t, l, s, 3, 1, 0)
		wantDelivered(t, c, 1)
		r.Done(1)
		wantDelivered(t, c, 3)
		wantSettled(t, s, settlement{1, Delivered}, settlement{2, Dropped})
	})
}

// TestExpiryWhileReady has a message expire between Ready and Deliver.
func TestExpiryWhileReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, c := New(Config{Hold: true, MaxAge: time.Minute}), new(source), new(consumer)
		c.onReady = func() bool { pass(2 * time.Minute); return true }
		offer(t, l, s, 1, 1, 0)
		attach(l, c)
		wantDelivered(t, c)
		wantSettled(t, s, settlement{1, Dropped})
	})
}

// What does not fit into the window holds up what is behind it, but not longer than it is there.
func TestWindowAfterDrop(t *testing.T) {
	window := Window{Bytes: 2*base + 100}
	t.Run("sweep", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, s, c := New(Config{Hold: true}), new(source), new(consumer)
			r := l.Attach(c, window)
			r.Start()
			offer(t, l, s, 1, 1, 0)
			large := message(1, 500)
			large.Expires = time.Now().Add(time.Second)
			l.Offer(large, s, 2)
			offer(t, l, s, 3, 1, 0)
			wantDelivered(t, c, 1)
			pass(time.Second)
			l.Sweep()
			wantDelivered(t, c, 3)
		})
	})
	t.Run("drop oldest", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			r := newRig(t, newFakeStore(), 3*base+500, 0)
			l, s, c := r.lane(Config{MaxMessages: 3, OnFull: DropOldest, SpillAfter: time.Hour}), new(source), new(consumer)
			l.Attach(c, window).Start()
			offer(t, l, s, 1, 1, 0)
			offer(t, l, s, 2, 1, 500)
			offer(t, l, s, 3, 1, 0)
			wantDelivered(t, c, 1)
			if l.Offer(message(1, 600), s, 4) { // 2 is dropped, and it waits for memory all the same
				t.Error("there was room for it")
			}
			wantDelivered(t, c, 3)
		})
	})
}
