package lane

import (
	"fmt"
	"testing"
	"time"

	"bridged/internal/mqtt"
)

// What is stored for lanes that nobody asks for counts against the limit of the disk.
func TestUnclaimedCounts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newFakeStore()
		size := base + 100
		for i := range 3 {
			r := newRig(t, store, 0, 20*size)
			if used := r.spool.Status().Bytes; used != min(int64(15*i), 20)*size {
				t.Fatalf("start %d: %d bytes are taken", i, used)
			}
			l := r.spool.Lane(Key{Device: fmt.Sprint(i)}, Config{Hold: true, Away: true})
			s := new(source)
			offerAll(t, l, s, 1, 15)
			goBy(time.Second)
			want := min(15, 20-15*i)
			if got, _ := s.got(); len(got) != max(0, want) {
				t.Fatalf("start %d: %d messages are stored, want %d", i, len(got), want)
			}
			_ = r.stop() // ErrDiskLimit, for the later ones
		}
	})
}

// A store that was mended may bring back records that were deleted. They are delivered, and the lane goes on.
func TestSurplus(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newFakeStore()
		r := newRig(t, store, 0, 0)
		l, s := r.lane(Config{Away: true}), new(source)
		const stored = 3 * pieceMessages
		offerAll(t, l, s, 1, stored)
		goBy(time.Second)
		r.wantStored(stored)
		l.mu.Lock() // as if these had been deleted
		const fewer = 2*pieceMessages + 5
		size := fewer * (base + 100)
		l.gap.count -= fewer
		l.gap.bytes -= size
		l.live -= fewer
		l.bytes -= size
		l.disk.live -= fewer
		l.disk.bytes -= size
		l.spool.disk.free(size)
		l.count.Accepted -= fewer
		l.mu.Unlock()
		store.set(func(s *fakeStore) { s.unchecked = true })
		c := new(consumer)
		var reader *Reader
		c.onDeliver = func(d Delivery) { reader.Done(d.Seq) }
		reader = l.Attach(c, Window{})
		reader.Start()
		goBy(time.Second)
		offerAll(t, l, s, 1, 5)
		goBy(5 * time.Second)
		if got := len(c.got()); got != stored+5 {
			t.Errorf("%d messages are delivered, want %d", got, stored+5)
		}
		if left := ledger(t, l); left.Queued != 0 || l.spool.disk.Used() != 0 {
			t.Errorf("left: %+v, %d bytes on disk", left, l.spool.disk.Used())
		}
	})
}

// With a disk that fails for long and a cloud that is well, nothing is to gather.
func TestNothingGathersWhileFailing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newFakeStore()
		r := newRig(t, store, 0, 0)
		l, s, c := r.lane(Config{Always: true, SpillAfter: time.Second}), new(source), new(consumer)
		reader := attach(l, c)
		store.set(func(s *fakeStore) { s.commitErr = errStore })
		done := 0
		for i := range 600 {
			offerAll(t, l, s, i, i)
			if err := r.spool.Note("a", []byte{byte(i)}, func() { done++ }); err != nil {
				t.Fatal(err)
			}
			goBy(100 * time.Millisecond)
			for _, d := range c.got() {
				reader.Done(d.Seq)
			}
		}
		goBy(3 * time.Second)
		l.mu.Lock()
		gone := len(l.disk.gone) + len(l.disk.flying.gone)
		l.mu.Unlock()
		r.spool.mu.Lock()
		notes := len(r.spool.notes)
		r.spool.mu.Unlock()
		if gone > 10 || notes > 1 || done > 0 {
			t.Errorf("%d finished messages and %d notes wait, %d notes are done", gone, notes, done)
		}
		store.set(func(s *fakeStore) { s.commitErr = nil })
		goBy(3 * time.Second)
		if got := store.notes["a"]; len(got) != 1 || got[0] != 599%256 || done != 600 {
			t.Errorf("note %v, %d done", got, done)
		}
		r.wantStored(0)
	})
}

// A message that does not fit under the limit of the disk is told of once, whatever else is stored meanwhile.
func TestLimitDoesNotFlap(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 20*base)
		l, s := r.lane(Config{Away: true}), new(source)
		for n := range 16 {
			l.Offer(message(1, 0), s, mqtt.Token(n))
		}
		goBy(time.Second)
		l.Offer(message(1, int(5*base)), s, 99)
		for i := range 20 {
			goBy(100 * time.Millisecond)
			if err := r.spool.Note("x", []byte{byte(i)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		r.wantFaults(ErrDiskLimit.Error())
	})
}

// While nothing can be stored, lanes whose far side is away do not take memory beyond the limit.
func TestMemoryWhileFailing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit = 10
		store := newFakeStore()
		store.commitErr = errStore
		r := newRig(t, store, limit*base, 0)
		if err := r.spool.Note("x", nil, nil); err != nil { // has it fail
			t.Fatal(err)
		}
		goBy(time.Second)
		s, taken := new(source), 0
		for i := range 3 * limit {
			l := r.spool.Lane(Key{Device: fmt.Sprint(i)}, Config{Hold: true, Away: true, Budget: r.memory})
			if l.Offer(message(1, 0), s, 0) {
				taken++
			}
		}
		if taken != limit || r.memory.Used() != limit*base {
			t.Errorf("%d messages are taken with %d of %d bytes", taken, r.memory.Used(), limit*base)
		}
		_ = r.stop()
	})
}

// A store that was mended has forgotten a ledger. It is written again, and what is missing is counted.
func TestRepairs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newFakeStore()
		r := newRig(t, store, 0, 0)
		l, s := r.lane(Config{Away: true}), new(source)
		offerAll(t, l, s, 1, 20)
		goBy(time.Second)
		store.set(func(s *fakeStore) {
			s.damaged = true
			s.repairs++
			delete(s.lanes, theKey)
		})
		if err := r.spool.Note("x", nil, nil); err != nil { // any commit
			t.Fatal(err)
		}
		goBy(time.Second)
		if got := store.lanes[theKey]; got == nil || got.state.Queued != 20 {
			t.Fatalf("stored: %+v", got)
		}
		attach(l, new(consumer))
		goBy(time.Second)
		if c := ledger(t, l); c.Dropped[Damaged] != 20 || c.Queued != 0 {
			t.Errorf("counters %+v", c)
		}
	})
}
