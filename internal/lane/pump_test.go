package lane

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// creditor is a consumer that takes as many messages as it has credits. It calls Pump only when it must: after Ready
// said no. One lost call and it waits for ever.
type creditor struct {
	solo solo
	r    *Reader

	mu        sync.Mutex
	credits   int
	refused   bool
	delivered []uint64
	unflushed int
	wait      sync.WaitGroup // for the deliveries
}

func (c *creditor) Ready() bool {
	defer c.solo.enter("Ready")()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = c.credits == 0
	return !c.refused
}

func (c *creditor) Deliver(d Delivery) {
	defer c.solo.enter("Deliver")()
	c.mu.Lock()
	c.credits--
	c.delivered = append(c.delivered, d.Seq)
	c.unflushed++
	c.mu.Unlock()
}

func (c *creditor) Flush() {
	defer c.solo.enter("Flush")()
	c.mu.Lock()
	n := c.unflushed
	c.unflushed = 0
	c.mu.Unlock()
	c.wait.Add(-n)
}

func (c *creditor) grant() {
	c.mu.Lock()
	c.credits++
	pump := c.refused
	c.refused = false
	c.mu.Unlock()
	if pump {
		c.r.Pump()
	}
}

// TestPumpWhilePumping becomes ready at the worst moments: after the lane has asked and before it has heard the
// answer, and after it has heard.
func TestPumpWhilePumping(t *testing.T) {
	for _, where := range []string{"ready", "flush"} {
		l, s, c := New(Config{Hold: true}), new(source), new(consumer)
		r := l.Attach(c, Window{})
		ready := true
		c.onReady = func() bool {
			if was := ready; was || where == "flush" {
				return was
			}
			ready = true
			r.Pump()
			return false
		}
		c.onDeliver = func(Delivery) { ready = false }
		c.onFlush = func() {
			if !ready {
				ready = true
				r.Pump()
			}
		}
		for n := 1; n <= 3; n++ {
			offer(t, l, s, n, 1, 0)
		}
		within(t, where, r.Start)
		wantDelivered(t, c, 1, 2, 3)
	}
}

// TestNoLostPump lets the last credit, the last message and a Pump under way meet in every way.
func TestNoLostPump(t *testing.T) {
	const rounds, messages = 1500, 4
	l := New(Config{Hold: true})
	for range rounds {
		c := new(creditor)
		c.wait.Add(messages)
		c.r = l.Attach(c, Window{})
		c.r.Start()
		var wg sync.WaitGroup
		wg.Go(func() {
			for range messages {
				l.Offer(message(0, 0), nil, 0)
			}
		})
		for range 2 {
			wg.Go(func() {
				for range messages / 2 {
					c.grant()
				}
			})
		}
		within(t, "all credits are used", c.wait.Wait)
		wg.Wait()
		if !slices.IsSorted(c.delivered) {
			t.Fatalf("delivered %v", c.delivered)
		}
		c.r.Detach(true)
	}
}

// TestNoLostDone opens a small window from other goroutines: each Done must bring the next message.
func TestNoLostDone(t *testing.T) {
	const rounds, messages = 150, 30
	for range rounds {
		l := New(Config{Hold: true})
		window := 1 + rand.IntN(3)
		delivered := make(chan uint64, messages) // Deliver does not block
		c := &consumer{onDeliver: func(d Delivery) { delivered <- d.Seq }}
		r := l.Attach(c, Window{Messages: window})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for range messages / 2 {
					l.Offer(message(1, 0), nil, 0)
				}
			})
		}
		wg.Go(r.Start)
		for range 2 {
			wg.Go(func() {
				for range messages / 2 {
					if seq := <-delivered; seq%5 == 0 {
						r.Drop(seq, TooLarge)
					} else {
						r.Done(seq)
					}
				}
			})
		}
		within(t, "every message is delivered", wg.Wait)
		if n := ledger(t, l); n.Queued != 0 || n.Accepted != messages {
			t.Fatalf("counters %+v", n)
		}
	}
}

// TestOfferDoesNotWait offers while the consumer is not ready, and while it is stuck in a delivery on another
// goroutine.
func TestOfferDoesNotWait(t *testing.T) {
	l, s, c := New(Config{Hold: true}), new(source), new(consumer)
	c.notReady = true
	r := attach(l, c)
	within(t, "Offer with a consumer that is not ready", func() {
		for n := range 1000 {
			offer(t, l, s, n+1, 1, 0)
		}
	})
	wantDelivered(t, c)
	entered, release := make(chan struct{}), make(chan struct{})
	c.onDeliver = func(d Delivery) {
		if d.Seq == 1 {
			close(entered)
			<-release
		}
	}
	c.mu.Lock()
	c.notReady = false
	c.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(r.Pump)
	<-entered
	within(t, "all that others do beside a delivery", func() {
		offer(t, l, s, 1001, 1, 0)
		r.Pump()
		r.Done(1)
		l.Sweep()
		ledger(t, l)
	})
	wantSettled(t, s, settlement{1, Delivered})
	close(release)
	wg.Wait()
	if got := c.got(); len(got) != 1001 || got[1000].Seq != 1001 {
		t.Fatalf("%d delivered", len(got))
	}
}
