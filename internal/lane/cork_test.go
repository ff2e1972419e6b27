package lane

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"bridged/internal/mqtt"
)

// batcher is a source that shows the runs in which it is told.
type batcher struct {
	source
	runs [][]settlement
}

func (b *batcher) SettledAll() {
	defer b.solo.enter("SettledAll")()
	run, _ := b.got()
	b.runs = append(b.runs, run)
}

func (b *batcher) wantRuns(t *testing.T, want ...[]settlement) {
	t.Helper()
	if !slices.EqualFunc(b.runs, want, slices.Equal) {
		t.Fatalf("settled in runs %v, want %v", b.runs, want)
	}
	if rest, _ := b.got(); len(rest) > 0 {
		t.Fatalf("no SettledAll after %v", rest)
	}
	b.runs = nil
}

func delivered(tokens ...int) (all []settlement) {
	for _, n := range tokens {
		all = append(all, settlement{mqtt.Token(n), Delivered})
	}
	return all
}

// What is offered and done between Cork and Uncork makes one Flush, and one run of calls.
func TestCorkGathers(t *testing.T) {
	l, s, c := New(Config{Hold: true}), new(batcher), new(consumer)
	r := attach(l, c)
	l.Cork()
	for n := 1; n <= 3; n++ {
		l.Offer(message(1, 0), s, mqtt.Token(n))
	}
	wantDelivered(t, c)
	l.Uncork()
	wantDelivered(t, c, 1, 2, 3)
	if c.flushes != 1 {
		t.Errorf("%d calls of Flush, want 1", c.flushes)
	}
	r.Cork()
	r.Done(2)
	r.Done(1)
	r.Drop(3, TooLarge)
	s.wantRuns(t)
	r.Uncork()
	s.wantRuns(t, append(delivered(1, 2), settlement{3, Dropped}))
	if c.flushes != 1 {
		t.Errorf("%d calls of Flush, want 1", c.flushes)
	}
	if n := ledger(t, l); n.Queued != 0 {
		t.Errorf("counters %+v", n)
	}
	l.Offer(message(1, 0), s, 4) // as ever
	wantDelivered(t, c, 4)
	r.Done(4)
	s.wantRuns(t, delivered(4))
}

// A window that is opened while the lane is corked is used once.
func TestCorkGathersWhatTheWindowHeldBack(t *testing.T) {
	l, s, c := New(Config{Hold: true}), new(batcher), new(consumer)
	r := l.Attach(c, Window{Messages: 2})
	r.Start()
	for n := 1; n <= 5; n++ {
		l.Offer(message(1, 0), s, mqtt.Token(n))
	}
	wantDelivered(t, c, 1, 2)
	flushes := c.flushes
	r.Cork()
	r.Done(1)
	r.Done(2)
	wantDelivered(t, c)
	r.Uncork()
	wantDelivered(t, c, 3, 4)
	s.wantRuns(t, delivered(1, 2))
	if c.flushes != flushes+1 {
		t.Errorf("%d calls of Flush, want 1", c.flushes-flushes)
	}
}

// A run ends where another source has its turn.
func TestRuns(t *testing.T) {
	l, a, b, plain := New(Config{Hold: true}), new(batcher), new(batcher), new(source)
	r := attach(l, new(consumer))
	for n, from := range []Source{a, a, b, plain, b, a} {
		l.Offer(message(1, 0), from, mqtt.Token(n+1))
	}
	l.Cork()
	for seq := uint64(6); seq > 0; seq-- {
		r.Done(seq)
	}
	l.Uncork()
	a.wantRuns(t, delivered(1, 2), delivered(6))
	b.wantRuns(t, delivered(3), delivered(5))
	wantSettled(t, plain, delivered(4)...)
}

// An offer that is refused while the lane is corked is told when there is room.
func TestCorkedRefusal(t *testing.T) {
	l, s, c := New(Config{Hold: true, MaxMessages: 2}), new(source), new(consumer)
	r := attach(l, c)
	l.Cork()
	offer(t, l, s, 1, 1, 0)
	offer(t, l, s, 2, 1, 0)
	if l.Offer(message(1, 0), s, 3) {
		t.Fatal("taken by a full lane")
	}
	wantDelivered(t, c, 1, 2) // to see whether that makes room
	r.Done(1)
	if _, rooms := s.got(); rooms != 0 {
		t.Fatal("Room was called while corked")
	}
	l.Uncork()
	if settled, rooms := s.got(); rooms != 1 || !slices.Equal(settled, delivered(1)) {
		t.Fatalf("settled %v, %d calls of Room", settled, rooms)
	}
}

// What could have left if the lane were not corked is not dropped or refused for lack of room.
func TestCorkDropsNothing(t *testing.T) {
	budget := func() *Budget { return NewBudget(2 * base) }
	for name, cfg := range map[string]Config{
		"messages":      {MaxMessages: 2},
		"bytes":         {MaxBytes: 2 * base},
		"memory":        {Budget: budget()},
		"oldest":        {MaxMessages: 2, OnFull: DropOldest},
		"oldest memory": {Budget: budget(), OnFull: DropOldest},
		"newest":        {MaxMessages: 2, OnFull: DropNewest},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Hold = true
			l, s, c := New(cfg), new(source), new(consumer)
			attach(l, c)
			l.Cork()
			for n := 1; n <= 7; n++ {
				offer(t, l, s, n, 0, 0)
			}
			l.Uncork()
			wantDelivered(t, c, 1, 2, 3, 4, 5, 6, 7)
			wantSettled(t, s, delivered(1, 2, 3, 4, 5, 6, 7)...)
			if n := ledger(t, l); n.DroppedTotal() > 0 {
				t.Errorf("counters %+v", n)
			}
		})
	}
}

// Who corks the lane does not keep others from what is due.
func TestTwoCorkers(t *testing.T) {
	l, s, c := New(Config{Hold: true}), new(batcher), new(consumer)
	r := attach(l, c)
	l.Cork()
	l.Offer(message(1, 0), s, 1)
	l.Cork()
	l.Offer(message(1, 0), s, 2)
	l.Uncork()
	wantDelivered(t, c, 1, 2)
	r.Done(1)
	r.Done(2)
	s.wantRuns(t)
	l.Cork() // alternating
	l.Uncork()
	s.wantRuns(t, delivered(1, 2))
	l.Offer(message(1, 0), s, 3)
	l.Uncork()
	wantDelivered(t, c, 3)
	r.Done(3)
	s.wantRuns(t, delivered(3))
}

// twin is one of two lanes to which the same is done, but that one is corked now and then.
type twin struct {
	l *Lane
	s source
	c *consumer
	r *Reader
}

func newTwin(cfg Config, limit int64) *twin {
	cfg.Budget = NewBudget(limit)
	return &twin{l: New(cfg)}
}

func (w *twin) attach(window Window, lowers bool) {
	w.c = new(consumer)
	w.r = w.l.Attach(w.c, window)
	if lowers {
		r := w.r
		w.c.onDeliver = func(d Delivery) {
			if d.Seq%3 == 0 {
				r.Done(d.Seq)
			}
		}
	}
}

// told is everything that the lane said since the last call, and says of itself.
func (w *twin) told() string {
	settled, rooms := w.s.got()
	var deliveries []Delivery
	if w.c != nil {
		deliveries = w.c.got()
	}
	n := w.l.Counters()
	n.Oldest = 0
	said := fmt.Sprintf("settled %v, %d rooms, %+v, %d bytes taken", settled, rooms, n, w.l.cfg.Budget.Used())
	for _, d := range deliveries {
		said += fmt.Sprintf(", %d %v", d.Seq, d.Dup)
	}
	return said
}

// TestCorkModel holds a lane that is corked at random against one that is not: after each Uncork both have said the
// same.
func TestCorkModel(t *testing.T) {
	for range 300 {
		seed := rand.Uint64()
		if err := runTwins(rand.New(rand.NewPCG(seed, 2))); err != nil {
			t.Fatalf("seed %#x: %v", seed, err)
		}
	}
}

func runTwins(rng *rand.Rand) error {
	cfg := Config{MaxMessages: 1 + rng.IntN(12), MaxBytes: (1 + rng.Int64N(10)) * (base + 100), Hold: true,
		OnFull: Policy(rng.IntN(3)), DropQoS0: rng.IntN(2) == 0, MaxPayload: 150}
	limit := (2 + rng.Int64N(10)) * (base + 100)
	corked, plain := newTwin(cfg, limit), newTwin(cfg, limit)
	both := [2]*twin{corked, plain}
	corks, clean := 0, true       // clean: nothing was put off
	done := make(map[uint64]bool) // what the present consumer has got, and whether that was acknowledged
	got := func() {
		for _, d := range corked.c.delivered {
			if _, known := done[d.Seq]; !known {
				done[d.Seq] = false
			}
		}
	}
	var log []string
	for n := 1; n <= 300; n++ {
		did := ""
		switch k := rng.IntN(100); {
		case k < 45:
			m := message(byte(rng.IntN(3)), rng.IntN(170))
			var took [2]bool
			for i, w := range both {
				took[i] = w.l.Offer(m, &w.s, mqtt.Token(n))
			}
			did = fmt.Sprintf("offer %d: QoS %d, %v", n, m.QoS, took)
			if took[0] != took[1] {
				return fmt.Errorf("after %q: %s", log, did)
			}
			clean = clean && corks == 0
		case k < 70 && corked.c != nil:
			got()
			var flying []uint64
			for seq, already := range done {
				if !already {
					flying = append(flying, seq)
				}
			}
			if len(flying) == 0 {
				continue
			}
			slices.Sort(flying) // for the seed to tell everything
			seq := flying[rng.IntN(min(3, len(flying)))]
			done[seq] = true
			drop := rng.IntN(5) == 0
			for _, w := range both {
				if drop {
					w.r.Drop(seq, TooLarge)
				} else {
					w.r.Done(seq)
				}
			}
			did = fmt.Sprintf("done %d, drop %v", seq, drop)
			clean = clean && corks == 0
		case k < 80 && corks < 2:
			corked.l.Cork()
			corks++
			did = "cork"
		case k < 90 && corks > 0:
			corked.l.Uncork()
			corks--
			clean = true
			did = "uncork"
		case k < 92 && clean:
			window, lowers := Window{Messages: 1 + rng.IntN(6), Bytes: (1 + rng.Int64N(8)) * (base + 50)}, rng.IntN(4) == 0
			for _, w := range both {
				w.attach(window, lowers)
				w.r.Start()
			}
			clear(done)
			did = "attach"
		case k < 94 && clean && corked.r != nil:
			hold := rng.IntN(3) > 0
			for _, w := range both {
				w.r.Detach(hold)
			}
			clear(done)
			did = fmt.Sprintf("detach %v", hold)
		case k < 97 && clean && corked.c != nil:
			for _, w := range both {
				w.c.notReady = !w.c.notReady
				w.r.Pump()
			}
			did = "ready or not"
		}
		log = append(log[max(0, len(log)-20):], did)
		if !clean {
			continue
		}
		if corked.c != nil {
			got()
			if corked.c.unflushed > 0 {
				return fmt.Errorf("%d deliveries are not flushed after %q", corked.c.unflushed, log)
			}
		}
		if got, want := corked.told(), plain.told(); got != want {
			return fmt.Errorf("after %q:\n%s, want\n%s", log, got, want)
		}
	}
	return nil
}

// Two goroutines cork a lane, one that offers and one that acknowledges, while others disturb it.
func TestConcurrentCorkers(t *testing.T) {
	const total = 5000
	l := New(Config{Hold: true, MaxMessages: 100})
	s := &batcher{}
	room := make(chan struct{}, 1)
	s.onRoom = func() { room <- struct{}{} }
	var mu sync.Mutex
	var acks []uint64
	last := uint64(0)
	c := &consumer{onDeliver: func(d Delivery) {
		mu.Lock()
		defer mu.Unlock()
		if d.Seq != last+1 {
			t.Errorf("delivered %d after %d", d.Seq, last)
		}
		last = d.Seq
		acks = append(acks, d.Seq)
	}}
	r := l.Attach(c, Window{Messages: 20})
	r.Start()
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; n <= total; {
			l.Cork()
			taken := true
			for range rand.IntN(16) {
				if taken = n > total || l.Offer(message(1, 0), s, mqtt.Token(n)); !taken {
					break
				}
				n++
			}
			l.Uncork()
			if !taken {
				<-room
			}
		}
	})
	wg.Go(func() {
		for done := 0; done < total; {
			mu.Lock()
			batch := acks
			acks = nil
			mu.Unlock()
			r.Cork()
			for _, seq := range batch {
				r.Done(seq)
			}
			r.Uncork()
			if done += len(batch); len(batch) == 0 {
				runtime.Gosched()
			}
		}
	})
	over := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { corkAtRandom(l, over) })
	within(t, "everything is delivered and acknowledged", wg.Wait)
	close(over)
	others.Wait()
	var settled []settlement
	for _, run := range s.runs {
		settled = append(settled, run...)
	}
	for i, got := range settled {
		if got != (settlement{mqtt.Token(i + 1), Delivered}) {
			t.Fatalf("settled %v as number %d", got, i+1)
		}
	}
	if n := ledger(t, l); len(settled) != total || n.Queued > 0 || l.due || len(l.calls) > 0 || l.corks != 0 {
		t.Errorf("%d settled, counters %+v, %d calls are due", len(settled), n, len(l.calls))
	}
}

// corkAtRandom corks a lane for moments, until over.
func corkAtRandom(l *Lane, over <-chan struct{}) {
	for {
		l.Cork()
		for range rand.IntN(20) {
			runtime.Gosched()
		}
		l.Uncork()
		select {
		case <-over:
			return
		case <-time.After(time.Duration(rand.IntN(100)) * time.Microsecond):
		}
	}
}

// A lane that is corked stores as ever, and what the writer settles is told at once.
func TestCorkWithSpool(t *testing.T) {
	spool := runSpool(t, newFakeStore(), nil)
	l, s := spool.Lane(Key{}, Config{Hold: true, Away: true}), new(source)
	l.Cork()
	for n := 1; n <= 3; n++ {
		offer(t, l, s, n, 1, 0)
	}
	if err := spool.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSettled(t, s, settlement{1, Stored}, settlement{2, Stored}, settlement{3, Stored})
	c := new(consumer)
	r := attach(l, c)
	l.Uncork()
	var got []int
	within(t, "delivery", func() {
		for len(got) < 3 {
			for _, d := range c.got() {
				got = append(got, int(d.Seq))
				r.Done(d.Seq)
			}
			<-time.After(time.Millisecond)
		}
	})
	if !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("delivered %v", got)
	}
	if n := ledger(t, l); n.Queued != 0 {
		t.Errorf("counters %+v", n)
	}
}
