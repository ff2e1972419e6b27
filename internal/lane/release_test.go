package lane

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"bridged/internal/mqtt"
)

func TestReleaseKeepsTheBacklog(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s := r.lane(Config{SpillAfter: time.Hour}), new(source)
		offerAll(t, l, s, 1, 100)
		l.Mark(mqtt.Mark{ID: 7, Sum: 8})
		if err := r.spool.Release(context.Background(), l); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.wantStored(100)
		wantOutcomes(t, s, Stored, 1, 100)
		if n := r.memory.Used(); n != 0 {
			t.Errorf("%d bytes of memory are taken", n)
		}
		if l.Offer(message(1, 100), s, 101) {
			t.Error("a lane takes messages that was released")
		}
		l.Hold(true) // whoever does not know yet
		l.Sweep()
		all := r.spool.Unclaimed()
		if len(all) != 1 || all[0].Key != theKey || all[0].State.Queued != 100 || len(all[0].Marks) != 1 {
			t.Fatalf("unclaimed: %+v", all)
		}
		again, c := r.lane(Config{SpillAfter: time.Hour}), new(consumer)
		if m := again.Marks(); len(m) != 1 || m[0] != (mqtt.Mark{ID: 7, Sum: 8}) {
			t.Errorf("marks %v", m)
		}
		rd := attach(again, c)
		synctest.Wait()
		for seq := uint64(1); seq <= 100; seq++ {
			rd.Done(seq)
			synctest.Wait()
		}
		if n := len(c.got()); n != 100 {
			t.Errorf("%d messages came", n)
		}
		if got := again.Counters(); got.Accepted != 100 || len(r.spool.Unclaimed()) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// A lane that cannot be stored stays: what it holds would be lost.
func TestReleaseWithoutADisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newFakeStore()
		r := newRig(t, store, 0, 0)
		l, s := r.lane(Config{SpillAfter: time.Hour}), new(source)
		offerAll(t, l, s, 1, 1)
		store.set(func(s *fakeStore) { s.commitErr = errStore })
		if err := r.spool.Release(context.Background(), l); !errors.Is(err, errStore) {
			t.Fatal(err)
		}
		offerAll(t, l, s, 2, 2) // it is as it was

		gate := make(chan struct{})
		store.set(func(s *fakeStore) { s.commitErr, s.gate = nil, gate })
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := r.spool.Release(ctx, l); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		store.set(func(s *fakeStore) { s.gate = nil })
		close(gate)
		if err := r.spool.Release(context.Background(), l); err != nil {
			t.Fatal(err)
		}
		r.wantStored(2)
	})
}

func TestReleaseWithAConsumer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l := r.lane(Config{})
		attach(l, new(consumer))
		if err := r.spool.Release(context.Background(), l); !errors.Is(err, ErrAttached) {
			t.Fatal(err)
		}
	})
}

func TestReconfigure(t *testing.T) {
	t.Run("lower bounds drop nothing", func(t *testing.T) {
		l, s := New(Config{Hold: true, OnFull: Block}), new(source)
		offerAll(t, l, s, 1, 10)
		l.Reconfigure(Config{MaxMessages: 2})
		if c := l.Counters(); c.Queued != 10 || l.Offer(message(1, 100), s, 11) {
			t.Errorf("%+v", c)
		}
		l.Reconfigure(Config{MaxMessages: 11})
		if s.rooms != 1 || !l.Offer(message(1, 100), s, 11) || l.Offer(message(1, 100), s, 12) {
			t.Errorf("%d calls of Room, %+v", s.rooms, l.Counters())
		}
	})
	t.Run("a lower age drops what is too old", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			l, s := New(Config{Hold: true}), new(source)
			offerAll(t, l, s, 1, 10)
			goBy(time.Minute)
			l.Reconfigure(Config{MaxAge: time.Second})
			wantOutcomes(t, s, Dropped, 1, 10)
		})
	})
	t.Run("nothing waits for the disk any more", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			store := newFakeStore()
			gate := make(chan struct{})
			store.set(func(s *fakeStore) { s.gate = gate })
			r := newRig(t, store, 0, 0)
			l, s, c := r.lane(Config{Always: true, SpillAfter: time.Hour}), new(source), new(consumer)
			attach(l, c)
			offerAll(t, l, s, 1, 1)
			synctest.Wait()
			if len(c.got()) != 0 {
				t.Fatal("delivered before it was stored")
			}
			l.Reconfigure(Config{SpillAfter: time.Hour})
			if len(c.got()) != 1 {
				t.Error("not delivered")
			}
			close(gate)
		})
	})
}

func TestSetLimit(t *testing.T) {
	m := message(1, 100)
	b := NewBudget(2 * m.Size())
	other, l, s := New(Config{Budget: b, Hold: true}), New(Config{Budget: b, Hold: true}), new(source)
	offerAll(t, other, s, 1, 1)
	offerAll(t, l, s, 2, 2)
	if l.Offer(message(1, 100), s, 3) {
		t.Fatal("taken beyond the limit")
	}
	b.SetLimit(10 * m.Size())
	if s.rooms != 1 || !l.Offer(message(1, 100), s, 3) {
		t.Errorf("%d calls of Room", s.rooms)
	}
	b.SetLimit(1)
	if l.Counters().Queued != 2 {
		t.Error("what was taken is gone")
	}
}
