package lane

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"bridged/internal/mqtt"
)

// nobody is a source and a consumer that does as little as possible.
type nobody struct{ seq uint64 }

func (*nobody) Settled(mqtt.Token, Outcome) {}
func (*nobody) Room()                       {}
func (*nobody) Ready() bool                 { return true }
func (n *nobody) Deliver(d Delivery)        { n.seq = d.Seq }
func (*nobody) Flush()                      {}

// BenchmarkRelay is a message's way through a lane whose far side acknowledges at once: Offer, Deliver, Done, Settled.
func BenchmarkRelay(b *testing.B) {
	memory := NewBudget(64 << 20)
	spool := runSpool(b, nullStore{}, memory)
	bounded := Config{Hold: true, MaxMessages: 1000, MaxBytes: 1 << 20, Budget: memory, SpillAfter: time.Second}
	for name, l := range map[string]*Lane{
		"bare":    New(Config{Hold: true}),
		"bounded": New(bounded),
		"spool":   spool.Lane(Key{}, bounded),
	} {
		b.Run(name, func(b *testing.B) {
			n := new(nobody)
			r := l.Attach(n, Window{Messages: 20, Bytes: 1 << 20})
			r.Start()
			m := message(1, 100)
			b.ReportAllocs()
			for b.Loop() {
				l.Offer(m, n, 1)
				r.Done(n.seq)
			}
		})
	}
}

// BenchmarkBatch relays messages that come in batches of 16, as do their acknowledgements, with and without Cork.
func BenchmarkBatch(b *testing.B) {
	const batch = 16
	for _, corked := range []bool{false, true} {
		b.Run(fmt.Sprintf("corked=%v", corked), func(b *testing.B) {
			l, n := New(Config{Hold: true, MaxMessages: 1000, MaxBytes: 1 << 20, Budget: NewBudget(64 << 20)}), new(gatherer)
			r := l.Attach(n, Window{Messages: 20, Bytes: 1 << 20})
			r.Start()
			m := message(1, 100)
			round := func(do func()) {
				if corked {
					l.Cork()
					defer l.Uncork()
				}
				for range batch {
					do()
				}
			}
			seq := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				round(func() { l.Offer(m, n, 1) })
				round(func() { seq++; r.Done(seq) })
			}
			messages := float64(b.N) * batch
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/messages, "ns/message")
			b.ReportMetric(float64(n.writes)/messages, "writes/message")
		})
	}
}

// gatherer counts what would be written.
type gatherer struct {
	nobody
	writes int
}

func (g *gatherer) Flush()      { g.writes++ }
func (g *gatherer) SettledAll() { g.writes++ }

// nullStore forgets everything.
type nullStore struct{}

func (nullStore) Load() (Contents, error)                                    { return Contents{}, nil }
func (nullStore) Commit(*Batch) error                                        { return nil }
func (nullStore) Read(Key, uint64, uint64, int, int64) (r []Record, _ error) { return r, nil }
func (nullStore) Maintain() error                                            { return nil }
func (nullStore) Repairs() uint64                                            { return 0 }

// runSpool has a spool at work until the test ends.
func runSpool(tb testing.TB, store Store, memory *Budget) *Spool {
	tb.Helper()
	spool, err := NewSpool(SpoolConfig{Store: store, Memory: memory, Limit: plenty})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- spool.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
	return spool
}

// BenchmarkSpill stores messages that are offered while the far side is away, and drains them, with a store that costs
// next to nothing.
func BenchmarkSpill(b *testing.B) {
	const backlog = 10_000
	for _, lanes := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("lanes=%d", lanes), func(b *testing.B) {
			store := newFakeStore()
			store.unchecked = true
			spool := runSpool(b, store, nil)
			var all []*Lane
			for i := range lanes {
				all = append(all, spool.Lane(Key{Device: fmt.Sprint(i)}, Config{Hold: true, Away: true}))
			}
			m, n := message(1, 100), new(nobody)
			b.ReportAllocs()
			for b.Loop() {
				for i := range backlog {
					all[i%lanes].Offer(m, n, 1)
				}
				if err := spool.Flush(context.Background()); err != nil {
					b.Fatal(err)
				}
				for _, l := range all {
					drain(l)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/backlog, "ns/message")
		})
	}
}

// drain delivers what a lane holds.
func drain(l *Lane) {
	d := &drainer{done: make(chan struct{})}
	d.r = l.Attach(d, Window{Messages: 20})
	d.r.Start()
	<-d.done
	d.r.Detach(true)
}

// drainer acknowledges what it gets at once.
type drainer struct {
	r    *Reader
	done chan struct{}
	once sync.Once
}

func (*drainer) Ready() bool { return true }

func (d *drainer) Deliver(m Delivery) { d.r.Done(m.Seq) }

func (d *drainer) Flush() {
	if d.r.l.Empty() {
		d.once.Do(func() { close(d.done) })
	}
}

// BenchmarkRelayQoS0 is the same without acknowledgements.
func BenchmarkRelayQoS0(b *testing.B) {
	l, n := New(Config{Hold: true}), new(nobody)
	l.Attach(n, Window{}).Start()
	m := message(0, 100)
	b.ReportAllocs()
	for b.Loop() {
		l.Offer(m, nil, 0)
	}
}

// BenchmarkBacklog drains a thousand messages that were queued while the far side was away, with a window.
func BenchmarkBacklog(b *testing.B) {
	const backlog = 1000
	l, n := New(Config{Hold: true}), new(nobody)
	m := message(1, 100)
	b.ReportAllocs()
	for b.Loop() {
		for range backlog {
			l.Offer(m, n, 1)
		}
		r := l.Attach(n, Window{Messages: 1})
		r.Start()
		for range backlog {
			r.Done(n.seq)
		}
		r.Detach(true)
	}
	if !l.Empty() {
		b.Fatal("not drained")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/backlog, "ns/message")
}

// BenchmarkDropOldest offers to a full lane whose far side is away.
func BenchmarkDropOldest(b *testing.B) {
	l, n := New(Config{Hold: true, MaxMessages: 10_000, OnFull: DropOldest}), new(nobody)
	m := message(1, 100)
	for range 10_000 {
		l.Offer(m, n, 1)
	}
	b.ReportAllocs()
	for b.Loop() {
		l.Offer(m, n, 1)
	}
}

// BenchmarkBehindOneMessage relays while the far side never acknowledges one message, so that reports cannot be made.
func BenchmarkBehindOneMessage(b *testing.B) {
	l, n := New(Config{Hold: true}), new(nobody)
	r := l.Attach(n, Window{})
	r.Start()
	m := message(1, 100)
	l.Offer(m, n, 1)
	b.ReportAllocs()
	for b.Loop() {
		l.Offer(m, nil, 0)
		r.Done(n.seq)
	}
}
