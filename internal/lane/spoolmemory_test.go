package lane

import (
	"testing"
	"testing/synctest"
	"time"
)

// rivals returns a lane whose far side takes one message at a time, with so many messages that are all on disk, and
// another one to take memory with.
func rivals(t *testing.T, memory int64, cfg Config, messages, payload int) (r *rig, l, other *Lane, s *source) {
	t.Helper()
	r = newRig(t, newFakeStore(), memory, 0)
	l, s = r.lane(cfg), new(source)
	other = r.spool.Lane(Key{Device: "other"}, Config{SpillAfter: time.Hour, Budget: r.memory, Hold: true})
	attach(other, new(consumer))
	if !cfg.Away {
		l.Attach(new(consumer), Window{Messages: 1}).Start()
	}
	for n := range messages {
		if !l.Offer(message(1, payload), s, 1) {
			t.Fatalf("message %d was not taken", n)
		}
		if n%50 == 0 {
			synctest.Wait()
		}
	}
	goBy(2 * time.Second)
	return r, l, other, s
}

// However few they are, messages that are stored and not needed soon do not fill the memory.
func TestStoredBytesAreLetGo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r, l, _, _ := rivals(t, 0, Config{}, 60, 60_000)
		if used := r.memory.Used(); used > pieceBytes+3*60_200 {
			t.Fatalf("%d bytes of %d messages are in memory", used, l.Counters().Queued)
		}
	})
}

// What was read for a consumer that does not go on is let go of when others need the memory.
func TestReadMessagesMakeRoom(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		size := base + 100
		r, l, other, _ := rivals(t, 200*size, Config{Away: true}, 100, 100)
		c := new(consumer)
		rd := l.Attach(c, Window{Messages: 1})
		rd.Start()
		synctest.Wait()
		if used := r.memory.Used(); used < 60*size {
			t.Fatalf("%d bytes were read", used)
		}
		offerAll(t, other, new(source), 1, 100)
		goBy(300 * time.Millisecond)
		if used := r.memory.Used(); used > 120*size {
			t.Fatalf("%d bytes of memory are taken", used)
		}
		for n := 1; n <= 100; n++ {
			wantDelivered(t, c, n)
			rd.Done(uint64(n))
			synctest.Wait()
		}
		ledger(t, l)
	})
}

// A lane all of whose messages are on disk may take one, however much memory others hold: its source is told so.
func TestRoomWhenEverythingIsOnDisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		size := base + 100
		r, l, other, _ := rivals(t, 100*size, Config{Away: true}, 0, 0)
		offerAll(t, other, new(source), 1, 70)
		r.memory.reserve(30*size, true)
		gate := make(chan struct{})
		r.store.set(func(s *fakeStore) { s.gate = gate })
		s := new(source)
		offerAll(t, l, s, 1, 1)
		if l.Offer(message(1, 100), s, 2) {
			t.Fatal("taken before the first was stored")
		}
		close(gate)
		synctest.Wait()
		if _, rooms := s.got(); rooms != 1 || !l.Offer(message(1, 100), s, 2) {
			t.Fatalf("%d calls of Room", rooms)
		}
		r.memory.Give(30 * size)
	})
}

func TestTakeAndGive(t *testing.T) {
	size := base + 100
	b := NewBudget(20 * size)
	l, s := New(Config{Hold: true, Budget: b}), new(source)
	if !b.Take(15*size) || b.Take(6*size) || b.Used() != 15*size {
		t.Fatalf("%d bytes are taken", b.Used())
	}
	offerAll(t, l, s, 1, 5)
	if l.Offer(message(1, 100), s, 6) {
		t.Fatal("taken without memory")
	}
	b.Give(0)
	wantRooms(t, s, 0)
	b.Give(15 * size)
	wantRooms(t, s, 1)
	if b.Used() != 5*size {
		t.Fatalf("%d bytes are taken", b.Used())
	}
	var none *Budget
	if !none.Take(size) {
		t.Fatal("no limit, and nothing to be had")
	}
	none.Give(size)
}

func wantRooms(t *testing.T, s *source, want int) {
	t.Helper()
	if _, rooms := s.got(); rooms != want {
		t.Fatalf("%d calls of Room, want %d", rooms, want)
	}
}

// One commit takes a bounded amount of each lane, and of all.
func TestSizeOfCommits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newFakeStore()
		var sizes []int64
		store.hook = func(b *Batch) {
			var all int64
			for i := range b.Changes {
				var size int64
				for j := range b.Changes[i].Put {
					size += b.Changes[i].Put[j].Message.Size()
				}
				if size > laneCommitBytes {
					t.Errorf("%d bytes of a lane", size)
				}
				all += size
			}
			sizes = append(sizes, all)
		}
		r := newRig(t, store, 0, 0)
		var lanes []*Lane
		for i := range 10 {
			lanes = append(lanes, r.spool.Lane(Key{Device: string(rune('a' + i))}, Config{SpillAfter: time.Second, Hold: true}))
		}
		for range 100 {
			for _, l := range lanes {
				l.Offer(message(1, 10_000), nil, 0)
			}
		}
		goBy(1200 * time.Millisecond)
		for _, l := range lanes {
			if c := ledger(t, l); c.Stored != 100 {
				t.Fatalf("%d are stored", c.Stored)
			}
		}
		for _, size := range sizes {
			if size > commitBytes+laneCommitBytes {
				t.Errorf("%d bytes in a commit", size)
			}
		}
		if len(sizes) > 15 {
			t.Errorf("%d commits", len(sizes))
		}
	})
}
