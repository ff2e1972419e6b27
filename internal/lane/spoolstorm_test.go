package lane

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestSpoolStorm has lanes with a common spool under pressure from all sides, while their store fails now and then and
// there is little room in memory and on disk.
func TestSpoolStorm(t *testing.T) {
	const total = 1500
	seed := rand.Uint64()
	defer func() {
		if t.Failed() {
			t.Logf("seed %#x", seed)
		}
	}()
	size := base + 40
	store, memory := newFakeStore(), NewBudget(150*size)
	spool, err := NewSpool(SpoolConfig{Store: store, Memory: memory, Limit: 400 * size})
	if err != nil {
		t.Fatal(err)
	}
	var lanes []*stormLane
	for i, policy := range []Policy{Block, Block, Block, Block, DropOldest, DropNewest} {
		cfg := Config{
			Hold: true, MaxMessages: 80 + i, OnFull: policy, Budget: memory, Always: i%3 == 1, Away: i%2 == 0,
			SpillAfter: time.Duration(i%4) * 10 * time.Millisecond,
		}
		s := newStormLane(t, cfg, total)
		s.l, s.store = spool.Lane(Key{Device: fmt.Sprint(i)}, cfg), store
		lanes = append(lanes, s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- spool.Run(ctx) }()

	var producers, consumers, others sync.WaitGroup
	stop, over := make(chan struct{}), make(chan struct{})
	for i, s := range lanes {
		consumers.Go(func() { s.consume(rand.New(rand.NewPCG(seed, uint64(100+i))), stop) })
		producers.Go(func() { s.produce(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	others.Go(func() { failAtRandom(store, rand.New(rand.NewPCG(seed, 50)), stop) })
	others.Go(func() { watchStorm(t, spool, lanes, over) })
	for _, s := range lanes[1:] {
		others.Go(func() { corkAtRandom(s.l, over) })
	}
	within(t, "the producers end", producers.Wait)
	close(stop)
	within(t, "the lanes are empty", consumers.Wait)
	within(t, "the deletions are written", func() {
		for spool.disk.Used() > 0 || memory.Used() > 0 || stored(store) > 0 {
			<-time.After(time.Millisecond)
		}
	})
	close(over)
	others.Wait()
	for _, s := range lanes {
		s.check()
		if err := s.l.checkEmpty(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := store.err(); err != nil {
		t.Error(err)
	}
}

func stored(s *fakeStore) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		n += len(l.records)
	}
	return n
}

// failAtRandom has the store fail for moments, until stop.
func failAtRandom(store *fakeStore, rng *rand.Rand, stop <-chan struct{}) {
	for over := false; !over; {
		n := rng.IntN(30)
		select {
		case <-stop:
			over, n = true, 29
		case <-time.After(time.Duration(rng.IntN(20)) * time.Millisecond):
		}
		store.set(func(s *fakeStore) {
			s.commitErr, s.applies, s.readErr, s.delay = nil, false, nil, 0
			switch {
			case n < 1:
				s.commitErr = errStore
			case n < 2:
				s.commitErr, s.applies = errStore, true
			case n < 3:
				s.readErr = errStore
			case n < 9:
				s.delay = time.Millisecond
			}
		})
	}
}

// watchStorm looks at everything from outside, until over.
func watchStorm(t *testing.T, spool *Spool, lanes []*stormLane, over <-chan struct{}) {
	for {
		for i, s := range lanes {
			if err := checkLedger(s.l.Counters()); err != nil {
				t.Errorf("lane %d: %v", i, err)
			}
			s.l.Sweep()
			s.l.Expect()
			s.l.Away()
		}
		_ = spool.Note("a", []byte{1}, nil) // it is small
		_ = spool.Status()
		select {
		case <-over:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// checkEmpty looks at what a lane keeps when it has been drained.
func (l *Lane) checkEmpty() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gap.count != 0 || l.gap.failed || l.disk.live != 0 || l.disk.bytes != 0 || len(l.gap.early) != 0 {
		return fmt.Errorf("gap %+v, disk %+v", l.gap, l.disk)
	}
	return nil
}
