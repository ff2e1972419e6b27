package lane

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"bridged/internal/mqtt"
)

// A store that cannot read is one fault, not one with each attempt, and is no reason to write.
func TestUnreadable(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s, c := r.lane(Config{Away: true}), new(source), new(consumer)
		offerAll(t, l, s, 1, 100)
		synctest.Wait()
		commits := r.store.saw().commits
		r.store.set(func(s *fakeStore) { s.readErr = errStore })
		rd := attach(l, c)
		goBy(10 * time.Second)
		wantDelivered(t, c)
		r.wantFaults(ErrRead.Error() + ": " + errStore.Error())
		if n := r.store.saw().readTries; n < 9 || n > 12 {
			t.Fatalf("%d attempts to read in 10 s", n)
		}
		if n := r.store.saw().tries - commits; n > 0 {
			t.Fatalf("%d commits because of a fault in reading", n)
		}
		offerAll(t, l, s, 101, 101)
		goBy(200 * time.Millisecond)
		wantOutcomes(t, s, Stored, 1, 101)
		r.wantFaults(ErrRead.Error() + ": " + errStore.Error())
		r.store.set(func(s *fakeStore) { s.readErr = nil })
		goBy(1200 * time.Millisecond)
		r.wantFaults(ErrRead.Error()+": "+errStore.Error(), "")
		for range 101 {
			for _, d := range c.got() {
				rd.Done(d.Seq)
			}
			synctest.Wait()
		}
		if !l.Empty() {
			t.Fatalf("%+v", l.Counters())
		}
	})
}

// Nor does the fault outlive the messages that could not be read.
func TestUnreadableAndDropped(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s := r.lane(Config{Away: true}), new(source)
		offerAll(t, l, s, 1, 10)
		synctest.Wait()
		r.store.set(func(s *fakeStore) { s.readErr = errStore })
		rd := attach(l, new(consumer))
		goBy(time.Second)
		rd.Detach(false)
		goBy(3 * time.Second)
		r.wantFaults(ErrRead.Error()+": "+errStore.Error(), "")
		r.wantStored(0)
		if c := ledger(t, l); c.Dropped[SessionEnded] != 10 {
			t.Fatalf("%+v", c)
		}
	})
}

// Records that cannot be read are counted, and the lane goes on with the next.
func TestDamagedRecords(t *testing.T) {
	tests := map[string]struct {
		missing []uint64
		want    int
	}{
		"one":      {[]uint64{3}, 1},
		"the last": {[]uint64{200}, 1},
		"a whole one": {func() (all []uint64) {
			for n := uint64(65); n <= 128; n++ {
				all = append(all, n)
			}
			return
		}(), 64},
		"all": {func() (all []uint64) {
			for n := uint64(1); n <= 200; n++ {
				all = append(all, n)
			}
			return
		}(), 200},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newRig(t, newFakeStore(), 0, 0)
				l, s, c := r.lane(Config{Away: true}), new(source), new(consumer)
				offerAll(t, l, s, 1, 200)
				synctest.Wait()
				r.store.damage(theKey, tt.missing...)
				rd := attach(l, c)
				var got []Delivery
				for range 300 {
					synctest.Wait()
					for _, d := range c.got() {
						got = append(got, d)
						rd.Done(d.Seq)
					}
				}
				if n := ledger(t, l); n.Dropped[Damaged] != uint64(tt.want) || n.Queued != 0 || len(got) != 200-tt.want {
					t.Fatalf("%d delivered, %+v", len(got), n)
				}
				offerAll(t, l, s, 201, 201)
				wantDelivered(t, c, 201)
				if st := r.spool.Status(); st.Bytes != 0 {
					t.Fatalf("%+v", st)
				}
			})
		})
	}
}

// What is being stored while it turns out that older records are damaged is not taken for one of them.
func TestDamagedBeforeWhatIsBeingStored(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s, c := r.lane(Config{Away: true}), new(source), new(consumer)
		offerAll(t, l, s, 1, 10)
		synctest.Wait()
		r.store.damage(theKey, 5)
		gate := make(chan struct{})
		r.store.set(func(s *fakeStore) { s.gate = gate })
		offerAll(t, l, s, 11, 11) // on its way
		synctest.Wait()
		rd := attach(l, c)
		synctest.Wait()
		if got := ledger(t, l); got.Dropped[Damaged] != 1 {
			t.Fatalf("%+v", got)
		}
		r.store.set(func(s *fakeStore) { s.gate = nil })
		close(gate)
		rd.Done(1)
		goBy(3 * time.Second)
		wantOutcomes(t, s, Stored, 1, 11)
		left := r.store.records(theKey)
		if n := len(left); n != 9 || left[n-1].Seq != 11 {
			t.Fatalf("stored are %d", n)
		}
	})
}

// damage takes records out.
func (s *fakeStore) damage(k Key, missing ...uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged = true
	l := s.lanes[k]
	for _, seq := range missing {
		if i, there := l.find(seq); there {
			l.records = append(l.records[:i:i], l.records[i+1:]...)
		}
	}
}

// A source that waits for the disk to make room in memory is not left waiting when the disk fails: policies apply then.
func TestPolicyWhileTheStoreFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		size := base + 100
		store := newFakeStore()
		gate := make(chan struct{})
		store.gate = gate
		r := newRig(t, store, 20*size, 0)
		l, s := r.lane(Config{Away: true, OnFull: DropNewest}), new(source)
		offerAll(t, l, s, 1, 20)
		if l.Offer(message(1, 100), s, 21) {
			t.Fatal("taken, though there is no memory and the disk works")
		}
		store.set(func(s *fakeStore) { s.commitErr, s.gate = errStore, nil })
		close(gate)
		synctest.Wait()
		if _, rooms := s.got(); rooms != 1 {
			t.Fatalf("%d calls of Room", rooms)
		}
		if !l.Offer(message(1, 100), s, 21) {
			t.Fatal("not taken, and not dropped")
		}
		if c := ledger(t, l); c.Dropped[QueueFull] != 1 || c.Queued != 20 {
			t.Fatalf("%+v", c)
		}
		store.set(func(s *fakeStore) { s.commitErr = nil })
		goBy(2 * time.Second)
		if got, _ := s.got(); len(got) != 21 || got[20].outcome != Dropped || got[19].outcome != Stored {
			t.Fatalf("settled %v", got)
		}
	})
}

// refusedOne returns a lane that takes nothing: others have the memory, its far side is away, and the disk fails.
func refusedOne(t *testing.T) (r *rig, l *Lane, s *source) {
	t.Helper()
	size := base + 100
	r = newRig(t, newFakeStore(), 20*size, 0)
	l, s = r.lane(Config{Away: true}), new(source)
	r.memory.reserve(20*size, true)
	r.store.set(func(s *fakeStore) { s.commitErr = errStore })
	if err := r.spool.Note("n", []byte{1}, nil); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	if l.Offer(message(1, 100), s, 1) {
		t.Fatal("taken, though it could not leave")
	}
	return r, l, s
}

// A lane with nothing in memory that was refused one since the disk failed hears when it works again.
func TestRoomWhenTheStoreWorksAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r, l, s := refusedOne(t)
		goBy(5 * time.Second)
		wantRooms(t, s, 0)
		r.store.set(func(s *fakeStore) { s.commitErr = nil })
		goBy(2 * time.Second)
		wantRooms(t, s, 1)
		offerAll(t, l, s, 1, 1)
	})
}

// And it hears when its far side is back, whatever the disk does.
func TestRoomWhenTheFarSideIsBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, l, s := refusedOne(t)
		rd := l.Attach(new(consumer), Window{Messages: 1})
		wantRooms(t, s, 0)
		rd.Start()
		wantRooms(t, s, 1)
		offerAll(t, l, s, 1, 1)
	})
}

// With no memory to spare, what was read is let go of; it is not read again and again meanwhile.
func TestReadingWithoutMemory(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		size := base + 100
		r := newRig(t, newFakeStore(), 100*size, 0)
		l, s, c := r.lane(Config{Away: true}), new(source), new(consumer)
		for n := range 300 {
			offerAll(t, l, s, n, n)
			synctest.Wait()
		}
		hog := r.memory
		hog.reserve(100*size, true)
		rd := l.Attach(c, Window{Messages: 1})
		rd.Start()
		goBy(5 * time.Second)
		wantDelivered(t, c, 1)
		if n := r.store.saw().readTries; n > 3 {
			t.Fatalf("%d reads", n)
		}
		for n := 2; n <= 300; n++ {
			rd.Done(uint64(n - 1))
			synctest.Wait()
			wantDelivered(t, c, n)
		}
		if n := r.store.saw().readTries; n > 700 {
			t.Fatalf("%d reads", n)
		}
		hog.free(100 * size)
	})
}

// What was to be stored and had no room the second time is not left behind in the store.
func TestDoubtfulBehindTheLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		size := base + 100
		store := newFakeStore()
		r := newRig(t, store, 0, 100*size)
		other := r.spool.Lane(Key{Device: "other"}, Config{Away: true, Budget: r.memory, Hold: true})
		l, s := r.lane(Config{SpillAfter: time.Hour}), new(source)
		store.set(func(s *fakeStore) { s.commitErr, s.applies = errStore, true })
		offerAll(t, l, s, 1, 60)
		l.Away() // all of them at once
		synctest.Wait()
		r.wantStored(60) // as it happens
		wantSettled(t, s)
		store.set(func(s *fakeStore) { s.commitErr = nil })
		r.spool.disk.reserve(70*size, true) // others came first
		goBy(1200 * time.Millisecond)
		wantOutcomes(t, s, Stored, 1, 30)
		r.wantStored(30)
		r.spool.disk.free(70 * size)
		goBy(time.Second)
		wantOutcomes(t, s, Stored, 31, 60)
		r.wantStored(60)
		ledger(t, other)
	})
}

// Marks that cannot be written are kept once, however often it is tried.
func TestMarksWhileTheStoreFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newFakeStore()
		r := newRig(t, store, 0, 0)
		l, s := r.lane(Config{Away: true}), new(source)
		store.set(func(s *fakeStore) { s.commitErr = errStore })
		l.Offer(message(2, 10), s, 7)
		l.Mark(mqtt.Mark{ID: 8, Sum: 1})
		goBy(30 * time.Second)
		l.Mark(mqtt.Mark{ID: 8, Sum: 2})
		var marks []mqtt.Mark
		store.set(func(s *fakeStore) {
			s.commitErr = nil
			s.hook = func(b *Batch) { marks = append(marks, b.Changes[0].Mark...) }
		})
		goBy(3 * time.Second)
		if len(marks) != 2 {
			t.Fatalf("marks %v", marks)
		}
		store.mu.Lock()
		m := maps.Clone(store.lanes[theKey].marks)
		store.mu.Unlock()
		if m[7].Sum != mqtt.Sum(make([]byte, 10)) || m[8].Sum != 2 {
			t.Fatalf("marks %v", m)
		}
		tries := store.saw().tries
		done := false
		l.Unmark(9, func() { done = true })
		if !done || store.saw().tries != tries {
			t.Fatal("a mark that is not there is not gone")
		}
		store.set(func(s *fakeStore) { s.delay = time.Second })
		gone := make(chan bool, 1)
		l.Unmark(7, func() { gone <- !store.marked(theKey, 7) })
		if goBy(900 * time.Millisecond); len(gone) > 0 {
			t.Fatal("done before it was written")
		}
		if !<-gone {
			t.Fatal("done, and the mark is there")
		}
	})
}

// The clock of a gateway may not be set, and may be set at any time. Messages neither grow old nor young by that.
func TestClocks(t *testing.T) {
	tests := map[string]struct {
		unset   bool          // the clock that is shown when it is read
		written time.Duration // when it was written, from then; 0: by a clock that was not set
		age     time.Duration
	}{
		"set":                  {written: -20 * time.Second, age: 20 * time.Second},
		"long ago":             {written: -time.Hour, age: time.Hour},
		"not set when written": {},
		"not set when read":    {unset: true, written: 26 * 365 * 24 * time.Hour},
		"never set":            {unset: true},
		"set back":             {written: time.Hour},
		"set back by a little": {written: time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if !tt.unset {
					setClock()
				}
				l := New(Config{})
				<-time.After(time.Minute)
				at := time.Unix(100, 0)
				if tt.written != 0 {
					at = time.Now().Add(tt.written).Round(0)
				}
				rec := Record{Seq: 1, At: at, Message: message(1, 1)}
				rec.Message.Expires = at.Add(10 * time.Minute)
				e := l.restoreLocked(&rec)
				<-time.After(time.Second)
				if age := time.Since(l.epoch) - e.at - time.Second; age/10 != tt.age/10 {
					t.Errorf("it is %v old, want %v", age, tt.age)
				}
				if left := time.Until(e.msg.Expires) + time.Second; (left+tt.age)/10 != 10*time.Minute/10 {
					t.Errorf("it has %v left, and is %v old", left, tt.age)
				}
				again := l.recordLocked(&e)
				if !again.At.Equal(l.wall(e.at)) || again.Message.Expires.Sub(again.At) != 10*time.Minute {
					t.Errorf("stored again it is %+v", again)
				}
			})
		})
	}
}

func TestOldestAcrossRestarts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s := r.lane(Config{Away: true}), new(source)
		offerAll(t, l, s, 1, 3)
		goBy(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		r = newRig(t, r.store.crash(), 0, 0)
		l = r.lane(Config{Away: true})
		if c := ledger(t, l); c.Oldest != time.Minute || c.Queued != 3 || c.Stored != 3 || c.Accepted != 3 {
			t.Fatalf("%+v", c)
		}
		if n := len(r.spool.Unclaimed()); n != 0 {
			t.Fatalf("%d unclaimed", n)
		}
		_ = r.stop()
		r = newRig(t, r.store.crash(), 0, 0)
		if u := r.spool.Unclaimed(); len(u) != 1 || u[0].Key != theKey || u[0].State.Queued != 3 {
			t.Fatalf("unclaimed %+v", u)
		}
		l = r.spool.Lane(theKey, Config{Budget: r.memory}) // without Hold: the session is over
		if c := ledger(t, l); c.Dropped[SessionEnded] != 3 || c.Queued != 0 {
			t.Fatalf("%+v", c)
		}
		goBy(3 * time.Second)
		r.wantStored(0)
	})
}

// What was done with and is still on disk is not delivered again, be its deletion due or under way.
func TestDoneAndNotDeleted(t *testing.T) {
	for _, underWay := range []bool{false, true} {
		t.Run(map[bool]string{false: "due", true: "under way"}[underWay], func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newRig(t, newFakeStore(), 0, 0)
				l, s, c := r.lane(Config{}), new(source), new(consumer)
				rd := attach(l, c)
				offerAll(t, l, s, 1, 5)
				goBy(time.Second) // stored
				rd.Detach(true)
				gate := make(chan struct{})
				r.store.set(func(s *fakeStore) { s.gate = gate })
				offerAll(t, l, s, 6, 6)
				synctest.Wait() // being stored
				rd.Done(3)
				gate <- struct{}{}
				synctest.Wait()
				r.wantStored(6)
				if underWay {
					offerAll(t, l, s, 7, 7)
					synctest.Wait()
				}
				c.got()
				attach(l, c)
				synctest.Wait()
				if underWay {
					wantDelivered(t, c, -1, -2, -4, -5, 6, 7)
				} else {
					wantDelivered(t, c, -1, -2, -4, -5, 6)
				}
				r.store.set(func(s *fakeStore) { s.gate = nil })
				close(gate)
			})
		})
	}
}

// A fault that leaves nothing to be written is over when something could be written.
func TestProbe(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		r.store.tidyErr = errStore
		l, s := r.lane(Config{Away: true}), new(source)
		offerAll(t, l, s, 1, 1)
		goBy(maintainAfter - time.Second)
		r.store.set(func(s *fakeStore) { s.commitErr = errStore })
		r.wantFaults()
		goBy(5 * time.Second)
		r.wantFaults(errStore.Error())
		r.store.set(func(s *fakeStore) { s.commitErr = nil })
		goBy(2 * time.Second)
		r.wantFaults(errStore.Error(), "")
		tries := r.store.saw().tries
		if goBy(10 * time.Second); r.store.saw().tries != tries {
			t.Fatal("it goes on writing")
		}
		_ = r.stop()
		if notes := newRig(t, r.store.crash(), 0, 0).spool.Notes(); len(notes) != 0 {
			t.Fatalf("notes %q", notes)
		}
	})
}

// Acknowledgements that come when the message is on disk only count, the first of them, and it is not delivered again.
func TestDoneOnDisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, s, c := r.lane(Config{}), new(source), new(consumer)
		rd := attach(l, c)
		offerAll(t, l, s, 1, 5)
		rd.Detach(true)
		synctest.Wait()
		wantDelivered(t, c, 1, 2, 3, 4, 5)
		if l.gap.count != 5 {
			t.Fatalf("%d are on disk only", l.gap.count)
		}
		rd.Done(2)
		rd.Drop(2, TooLarge)
		rd.Drop(3, TooLarge)
		rd.Done(3)
		attach(l, c)
		synctest.Wait()
		wantDelivered(t, c, -1, -4, -5)
		if got := ledger(t, l); got.Delivered != 1 || got.Dropped[TooLarge] != 1 || got.Queued != 3 {
			t.Fatalf("%+v", got)
		}
	})
}
