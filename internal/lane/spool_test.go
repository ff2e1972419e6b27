package lane

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bridged/internal/mqtt"
)

// rig is a spool at work in a bubble.
type rig struct {
	t      *testing.T
	store  *fakeStore
	spool  *Spool
	memory *Budget
	stop   func() error

	mu     sync.Mutex
	faults []string // as OnFault was told
}

var theKey = Key{Device: "d", Direction: Up}

// inBubble runs a test with a clock of its own, which is set.
func inBubble(t *testing.T, f func(*testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		setClock()
		f(t)
	})
}

// newRig starts a spool; a limit of 0 is none.
func newRig(t *testing.T, store *fakeStore, memory, disk int64) *rig {
	t.Helper()
	r := &rig{t: t, store: store, memory: NewBudget(cmp.Or(memory, plenty))}
	var err error
	onFault := func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if err == nil {
			r.faults = append(r.faults, "")
		} else {
			r.faults = append(r.faults, err.Error())
		}
	}
	r.spool, err = NewSpool(SpoolConfig{
		Store: store, Memory: r.memory, Limit: cmp.Or(disk, plenty), OnFault: onFault,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.spool.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		store.set(func(s *fakeStore) { s.gate = nil })
		_ = r.stop()
		if err := store.err(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) lane(cfg Config) *Lane {
	cfg.Budget, cfg.Hold = r.memory, true
	return r.spool.Lane(theKey, cfg)
}

// offerAll offers messages with a source.
func offerAll(t *testing.T, l *Lane, s *source, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		if !l.Offer(message(1, 100), s, mqtt.Token(n)) {
			t.Fatalf("message %d was not taken", n)
		}
	}
}

// goBy lets time go by.
func goBy(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (r *rig) wantStored(n int) {
	r.t.Helper()
	if got := len(r.store.records(theKey)); got != n {
		r.t.Fatalf("%d messages are stored, want %d", got, n)
	}
}

func (r *rig) wantFaults(want ...string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.faults, want) {
		r.t.Fatalf("faults %q, want %q", r.faults, want)
	}
}

func wantOutcomes(t *testing.T, s *source, o Outcome, first, last int) {
	t.Helper()
	var want []settlement
	for n := first; n <= last; n++ {
		want = append(want, settlement{mqtt.Token(n), o})
	}
	wantSettled(t, s, want...)
}

func TestNothingIsWrittenWhileHealthy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s, c := r.lane(Config{SpillAfter: time.Second, Away: true}), new(source), new(consumer)
		l.Expect()
		offerAll(t, l, s, 1, 1) // it was on its way
		goBy(500 * time.Millisecond)
		rd := attach(l, c)
		for n := 2; n <= 3000; n++ {
			m := message(byte(n%3), 10)
			l.Offer(m, s, mqtt.Token(n))
			if n%5 == 0 {
				goBy(100 * time.Millisecond)
			}
			if n%20 == 0 {
				for _, d := range c.got() {
					rd.Done(d.Seq)
					l.Mark(mqtt.Mark{ID: uint16(d.Seq)})
					l.Unmark(uint16(d.Seq), func() {})
				}
			}
		}
		goBy(500 * time.Millisecond)
		if got, _ := s.got(); len(got) != 3000 {
			t.Fatalf("%d messages were settled", len(got))
		}
		if r.store.saw().tries != 0 {
			t.Fatalf("%d commits", r.store.saw().tries)
		}
		if err := r.stop(); err != nil || r.store.saw().commits != 1 || r.store.lanes[theKey].state.Delivered != 3000 {
			t.Fatalf("in the end: %v, %d commits, %+v", err, r.store.saw().commits, r.store.lanes[theKey])
		}
	})
}

func TestSpillAfter(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s, c := r.lane(Config{SpillAfter: time.Second}), new(source), new(consumer)
		rd := attach(l, c)
		offerAll(t, l, s, 1, 2)
		goBy(500 * time.Millisecond)
		offerAll(t, l, s, 3, 3)
		rd.Done(1)
		goBy(490 * time.Millisecond)
		wantOutcomes(t, s, Delivered, 1, 1)
		r.wantStored(0)
		goBy(110 * time.Millisecond)
		wantOutcomes(t, s, Stored, 2, 3) // all of it, in one
		r.wantStored(2)
		if r.store.saw().commits != 1 {
			t.Fatalf("%d commits", r.store.saw().commits)
		}
		offerAll(t, l, s, 4, 4)
		rd.Done(4) // promptly: the lane is not slow for being behind
		rd.Done(2)
		rd.Done(3)
		wantOutcomes(t, s, Delivered, 4, 4)
		if goBy(500 * time.Millisecond); r.store.saw().commits != 1 {
			t.Fatal("deletions are not worth a commit of their own")
		}
		if goBy(2 * time.Second); r.store.saw().commits != 2 {
			t.Fatalf("%d commits after the deletion", r.store.saw().commits)
		}
		r.wantStored(0)
		ledger(t, l)
	})
}

func TestAwayStoresAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s, c := r.lane(Config{SpillAfter: time.Hour, Away: true}), new(source), new(consumer)
		check := func(n int) {
			t.Helper()
			if synctest.Wait(); len(r.store.records(theKey)) != n {
				t.Fatalf("%d messages are stored, want %d", len(r.store.records(theKey)), n)
			}
		}
		offerAll(t, l, s, 1, 1)
		check(1)
		l.Expect()
		offerAll(t, l, s, 2, 2)
		check(2) // behind what is on disk only, nothing stays in memory
		rd := attach(l, c)
		synctest.Wait()
		wantDelivered(t, c, 1, 2)
		rd.Done(1)
		rd.Done(2)
		offerAll(t, l, s, 3, 4)
		check(2)
		rd.Done(3)
		rd.Detach(true)
		check(1)
		l.Expect()
		offerAll(t, l, s, 5, 5)
		l.Away()
		check(2)
		synctest.Wait()
		wantSettled(t, s, settlement{1, Stored}, settlement{2, Stored}, settlement{3, Delivered}, settlement{4, Stored},
			settlement{5, Stored})
		attach(l, c)
		synctest.Wait()
		wantDelivered(t, c, 3, 4, -4, 5)
	})
}

func TestDiskLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		size := base + 100
		r := newRig(t, newFakeStore(), 0, 80*size)
		l, s, c := r.lane(Config{Away: true}), new(source), new(consumer)
		offerAll(t, l, s, 1, 100)
		goBy(5 * time.Second)
		wantOutcomes(t, s, Stored, 1, 80)
		r.wantStored(80)
		r.wantFaults(ErrDiskLimit.Error())
		if st := r.spool.Status(); st.Bytes != 80*size || st.Limit != st.Bytes || st.Fault == nil {
			t.Fatalf("status %+v", st)
		}
		tries := r.store.saw().tries
		goBy(5 * time.Second)
		if r.store.saw().tries != tries {
			t.Fatal("it writes though there is no room")
		}
		if err := r.spool.Flush(context.Background()); !errors.Is(err, ErrDiskLimit) {
			t.Fatal(err)
		}
		rd := attach(l, c)
		synctest.Wait()
		for n := range 25 { // then 75 are left
			rd.Done(uint64(n + 1))
		}
		goBy(2 * time.Second)
		wantOutcomes(t, s, Stored, 81, 100)
		r.wantFaults(ErrDiskLimit.Error()) // not yet: it is nearly full
		for n := 25; n < 35; n++ {
			rd.Done(uint64(n + 1))
		}
		goBy(2 * time.Second)
		r.wantFaults(ErrDiskLimit.Error(), "")
		r.wantStored(65)
		rd.Detach(true)
		offerAll(t, l, s, 101, 101+20)
		if err := r.stop(); !errors.Is(err, ErrDiskLimit) {
			t.Fatalf("messages were left, and it ended with %v", err)
		}
		r.wantStored(80)
	})
}

func TestMemoryPressure(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const memory = 1 << 20
		r := newRig(t, newFakeStore(), memory, 0)
		l, s, c := r.lane(Config{SpillAfter: time.Hour}), new(source), new(consumer)
		rd := l.Attach(c, Window{Messages: 2}) // it is slow
		rd.Start()
		n := 0
		for range 60 {
			for range 10 {
				n++
				if !l.Offer(message(1, 4000), s, mqtt.Token(n)) {
					t.Fatalf("message %d was not taken", n)
				}
			}
			goBy(100 * time.Millisecond)
		}
		if used := r.memory.Used(); used > memory/4*3 || n != 600 {
			t.Fatalf("%d bytes of memory are taken", used)
		}
		reads := len(r.store.saw().reads)
		goBy(10 * time.Second)
		if len(r.store.saw().reads) != reads {
			t.Fatal("it reads though nothing is delivered")
		}
		for last := 0; !l.Empty(); synctest.Wait() {
			for _, d := range c.got() {
				if int(d.Seq) != last+1 {
					t.Fatalf("message %d came after %d", d.Seq, last)
				}
				last = int(d.Seq)
				rd.Done(d.Seq)
			}
		}
		if c := ledger(t, l); c.Delivered != 600 || r.memory.Used() != 0 {
			t.Fatalf("%+v", c)
		}
	})
}

// A lane that holds what is stored lets it go when others need the memory.
func TestStoredMessagesMakeRoom(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		size := base + 100
		r := newRig(t, newFakeStore(), 100*size, 0)
		l, s, c := r.lane(Config{SpillAfter: time.Second}), new(source), new(consumer)
		other := r.spool.Lane(Key{Device: "other"}, Config{SpillAfter: time.Hour, Budget: r.memory, Hold: true})
		l.Attach(c, Window{Messages: 1}).Start()
		offerAll(t, l, s, 1, 45)
		goBy(2 * time.Second) // all stored, and all in memory
		if got := r.memory.Used(); got != 45*size {
			t.Fatalf("%d bytes", got)
		}
		attach(other, new(consumer))
		others := new(source)
		offerAll(t, other, others, 1, 40)
		goBy(200 * time.Millisecond)
		if got := r.memory.Used(); got > 60*size {
			t.Fatalf("%d bytes of memory are taken", got)
		}
		if n, _ := l.contents(r.store); len(n) != 45 {
			t.Fatalf("%d messages are left", len(n))
		}
	})
}

func TestDropOldestOnDisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s, c := r.lane(Config{Away: true, MaxMessages: 200, OnFull: DropOldest}), new(source), new(consumer)
		offerAll(t, l, s, 1, 200)
		synctest.Wait()
		if l.q.n != 0 || l.gap.count != 200 {
			t.Fatalf("%d messages in memory, %d on disk only", l.q.n, l.gap.count)
		}
		for n := 201; n <= 300; n++ {
			for !l.Offer(message(1, 100), s, mqtt.Token(n)) {
				if synctest.Wait(); s.rooms != 1 {
					t.Fatalf("%d calls of Room", s.rooms)
				}
				s.got2rooms()
			}
		}
		synctest.Wait()
		if got := ledger(t, l); got.Dropped[QueueFull] != 100 || got.Queued != 200 {
			t.Fatalf("%+v", got)
		}
		if reads := len(r.store.saw().reads); reads > 5 {
			t.Fatalf("%d reads for 100 messages that were dropped", reads)
		}
		attach(l, c)
		synctest.Wait()
		var want []int
		for n := 101; n <= 300; n++ {
			want = append(want, n)
		}
		wantDelivered(t, c, want...)
	})
}

// got2rooms forgets the calls of Room.
func (s *source) got2rooms() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rooms = 0
}

// While the oldest cannot be read, the newest is dropped: the source must not wait for a disk that is broken.
func TestDropOldestUnreadable(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s := r.lane(Config{Away: true, MaxMessages: 10, OnFull: DropOldest}), new(source)
		offerAll(t, l, s, 1, 10)
		synctest.Wait()
		r.store.set(func(s *fakeStore) { s.readErr = errStore })
		if l.Offer(message(1, 100), s, 11) {
			t.Fatal("taken before the oldest was read")
		}
		synctest.Wait()
		if _, rooms := s.got(); rooms != 1 || !l.Offer(message(1, 100), s, 11) {
			t.Fatalf("%d calls of Room", rooms)
		}
		wantOutcomes(t, s, Dropped, 11, 11)
	})
}

func TestMaxAgeOnDisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s, c := r.lane(Config{Away: true, MaxAge: time.Minute}), new(source), new(consumer)
		offerAll(t, l, s, 1, 500)
		goBy(50 * time.Second)
		offerAll(t, l, s, 501, 510)
		l.Sweep()
		if synctest.Wait(); len(r.store.saw().reads) != 0 {
			t.Fatal("it reads though nothing is old")
		}
		goBy(20 * time.Second)
		l.Sweep()
		synctest.Wait()
		if got := ledger(t, l); got.Dropped[Expired] != 500 || got.Queued != 10 {
			t.Fatalf("%+v", got)
		}
		goBy(3 * time.Second)
		r.wantStored(10)
		attach(l, c)
		synctest.Wait()
		if got := c.got(); len(got) != 10 || got[0].Seq != 501 {
			t.Fatalf("delivered %v", got)
		}
	})
}

func TestBacklogIsReadInPieces(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const backlog = 100_000
		r := newRig(t, newFakeStore(), 0, 0)
		l, c := r.lane(Config{Away: true}), new(consumer)
		m := message(1, 100)
		for n := range backlog {
			l.Offer(m, nil, 0)
			if n%1000 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if used := r.memory.Used(); used != 0 {
			t.Fatalf("%d bytes are in memory while it is away", used)
		}
		_ = r.stop()
		r = newRig(t, r.store.crash(), 0, 0)
		l = r.lane(Config{SpillAfter: time.Hour})
		rd := l.Attach(c, Window{Messages: 100})
		rd.Start()
		last := uint64(0)
		for !l.Empty() {
			synctest.Wait()
			if used := r.memory.Used(); used > 200*m.Size() {
				t.Fatalf("%d bytes are in memory", used)
			}
			if n := len(l.q.buf); n > 256 {
				t.Fatalf("%d places", n)
			}
			for _, d := range c.got() {
				if last++; d.Seq != last || d.Dup {
					t.Fatalf("message %d came, want %d, dup %v", d.Seq, last, d.Dup)
				}
				rd.Done(d.Seq)
			}
		}
		if got := ledger(t, l); got.Delivered != backlog || last != backlog {
			t.Fatalf("%+v", got)
		}
		for _, n := range r.store.saw().reads {
			if n > pieceMessages {
				t.Fatalf("%d messages were read at once", n)
			}
		}
		if reads := len(r.store.saw().reads); reads > 2*backlog/pieceMessages+10 {
			t.Fatalf("%d reads", reads)
		}
	})
}

func TestAlways(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newFakeStore()
		gate := make(chan struct{})
		store.gate = gate
		r := newRig(t, store, 0, 0)
		l, s, c := r.lane(Config{SpillAfter: time.Hour, Always: true}), new(source), new(consumer)
		rd := attach(l, c)
		offerAll(t, l, s, 1, 1)
		l.Offer(message(0, 1), nil, 0)
		goBy(time.Second)
		wantDelivered(t, c) // nothing before it is stored, nor what is behind it
		gate <- struct{}{}
		synctest.Wait()
		wantDelivered(t, c, 1, 2)
		wantOutcomes(t, s, Stored, 1, 1)
		rd.Done(1)
		// The store fails: what waits for it goes on, and is not settled before it is done.
		store.set(func(s *fakeStore) { s.commitErr, s.gate = errStore, nil })
		offerAll(t, l, s, 2, 3)
		close(gate)
		synctest.Wait()
		wantDelivered(t, c, 3, 4)
		offerAll(t, l, s, 4, 4)
		wantDelivered(t, c, 5)
		wantSettled(t, s)
		rd.Done(3)
		wantOutcomes(t, s, Delivered, 2, 2)
		goBy(10 * time.Second)
		wantSettled(t, s)
		r.wantFaults(errStore.Error())
		if tries := store.saw().tries; tries > 13 {
			t.Fatalf("%d commits were tried in 10 s", tries)
		}
		store.set(func(s *fakeStore) { s.commitErr = nil })
		goBy(1100 * time.Millisecond)
		wantOutcomes(t, s, Stored, 3, 4)
		r.wantFaults(errStore.Error(), "")
	})
}

// A lane that stores always does so even if the first attempt found no room.
func TestAlwaysAfterDiskLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		size := base + 100
		r := newRig(t, newFakeStore(), 0, 10*size)
		l, s, c := r.lane(Config{SpillAfter: time.Hour, Always: true}), new(source), new(consumer)
		l.Attach(c, Window{Messages: 5}).Start()
		r.spool.disk.reserve(10*size, true) // others have it
		offerAll(t, l, s, 1, 10)
		goBy(time.Second)
		wantDelivered(t, c, 1, 2, 3, 4, 5)
		wantSettled(t, s)
		r.spool.disk.free(10 * size)
		goBy(200 * time.Millisecond)
		wantOutcomes(t, s, Stored, 1, 10)
	})
}

func TestFlush(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s, c := r.lane(Config{SpillAfter: time.Hour}), new(source), new(consumer)
		l.Attach(c, Window{}).Start()
		flush := func() error {
			done := make(chan error, 1)
			go func() { done <- r.spool.Flush(context.Background()) }()
			select {
			case err := <-done:
				return err
			case <-time.After(time.Minute):
				return errors.New("it does not end")
			}
		}
		if err := flush(); err != nil || r.store.saw().tries != 0 {
			t.Fatal(err, "with nothing to do")
		}
		offerAll(t, l, s, 1, 10)
		if err := flush(); err != nil {
			t.Fatal(err)
		}
		r.wantStored(10)
		// More comes with each commit than one takes.
		r.store.set(func(fs *fakeStore) {
			fs.hook = func(*Batch) {
				for range 10 {
					l.Offer(message(1, 60_000), s, 0)
				}
				if r.store.saw().tries > 1000 { // the test has failed
					fs.set(func(s *fakeStore) { s.hook = nil })
				}
			}
		})
		offerAll(t, l, s, 11, 20)
		tries := r.store.saw().tries
		if err := flush(); err != nil || r.store.saw().tries > tries+10 {
			t.Fatal(err, r.store.saw().tries)
		}
		r.store.set(func(s *fakeStore) { s.hook = nil })
		if err := flush(); err != nil {
			t.Fatal(err)
		}
		r.store.set(func(s *fakeStore) { s.commitErr = errStore })
		offerAll(t, l, s, 21, 21)
		if err := flush(); !errors.Is(err, errStore) {
			t.Fatal(err)
		}
		r.store.set(func(s *fakeStore) { s.commitErr = nil })
		if err := flush(); err != nil { // it waits until it is tried again
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		r.store.set(func(s *fakeStore) { s.delay = time.Second })
		offerAll(t, l, s, 22, 22)
		if err := r.spool.Flush(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

func TestNotes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newFakeStore()
		r := newRig(t, store, 0, 0)
		var mu sync.Mutex
		var done []string
		note := func(name, value string) {
			err := r.spool.Note(name, []byte(value), func() {
				store.mu.Lock()
				now := string(store.notes[name])
				store.mu.Unlock()
				mu.Lock()
				defer mu.Unlock()
				done = append(done, value+" "+now)
			})
			if err != nil {
				t.Error(err)
			}
		}
		gate := make(chan struct{})
		store.set(func(s *fakeStore) { s.commitErr, s.gate = errStore, gate })
		note("a", "1")
		synctest.Wait() // being stored
		note("a", "2")
		note("b", "3")
		store.set(func(s *fakeStore) { s.gate = nil })
		close(gate)
		goBy(300 * time.Millisecond)
		if len(done) > 0 || len(store.notes) > 0 {
			t.Fatal("done before it was stored")
		}
		store.set(func(s *fakeStore) { s.commitErr = nil })
		goBy(time.Second)
		slices.Sort(done)
		if got := strings.Join(done, ", "); got != "1 2, 2 2, 3 3" {
			t.Fatalf("done %q", got)
		}
		if err := r.spool.Note("b", nil, nil); err != nil {
			t.Error(err)
		}
		if err := r.spool.Note("c", make([]byte, MaxNote+1), nil); !errors.Is(err, ErrNoteSize) {
			t.Errorf("a note of more than %d bytes: %v", MaxNote, err)
		}
		store.set(func(s *fakeStore) { s.commitErr = errStore })
		synctest.Wait()
		goBy(3 * time.Second)
		store.set(func(s *fakeStore) { s.commitErr = nil })
		goBy(2 * time.Second)
		_ = r.stop()
		r = newRig(t, store.crash(), 0, 0)
		if notes := r.spool.Notes(); len(notes) != 1 || !bytes.Equal(notes["a"], []byte("2")) {
			t.Fatalf("notes %q", notes)
		}
	})
}
