package lane

import (
	"testing"

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
	for name, cfg := range map[string]Config{
		"bare":    {Hold: true},
		"bounded": {Hold: true, MaxMessages: 1000, MaxBytes: 1 << 20, Budget: NewBudget(64 << 20)},
	} {
		b.Run(name, func(b *testing.B) {
			l, n := New(cfg), new(nobody)
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
