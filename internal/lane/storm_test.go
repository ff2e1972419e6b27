package lane

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"bridged/internal/mqtt"
)

// stormLane is a lane with a device that offers without pause, and a far side whose connections break all the time. It
// keeps count of what the contract promises.
type stormLane struct {
	t     *testing.T
	l     *Lane
	total int
	store *fakeStore // nil if there is none
	room  chan struct{}

	solo    solo
	mu      sync.Mutex
	faults  []string
	kept    []bool    // by number: QoS 1 or 2, so that it is settled some time
	done    []bool    // the far side has acknowledged it
	outcome []Outcome // as the source was told
	sent    []int     // how often it was delivered
	sentBy  []int     // the first connection that did
	conns   int
	skipped map[int]string // delivered past, though it was neither acknowledged nor sent on that connection
	told    int            // the last number that was settled
}

func newStormLane(t *testing.T, cfg Config, total int) *stormLane {
	return &stormLane{
		t: t, l: New(cfg), total: total, room: make(chan struct{}, 1), skipped: make(map[int]string),
		kept: make([]bool, total+1), done: make([]bool, total+1),
		outcome: make([]Outcome, total+1), sent: make([]int, total+1), sentBy: make([]int, total+1),
	}
}

func (s *stormLane) fault(format string, args ...any) {
	if len(s.faults) < 5 {
		s.faults = append(s.faults, fmt.Sprintf(format, args...))
	}
}

// Settled implements Source.
func (s *stormLane) Settled(t mqtt.Token, o Outcome) {
	defer s.solo.enter("Settled")()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int(t)
	switch {
	case s.outcome[n] != 0:
		s.fault("message %d was settled twice", n)
	case n <= s.told:
		s.fault("message %d was settled after %d", n, s.told)
	case o == Delivered && !s.done[n]:
		s.fault("message %d was settled before it was acknowledged", n)
	case o == Stored && !s.done[n] && s.l.cfg.OnFull != DropOldest && !s.store.holds(s.l.key, n):
		s.fault("message %d was settled before it was stored", n)
	}
	s.outcome[n], s.told = o, n
}

// Room implements Source.
func (s *stormLane) Room() {
	defer s.solo.enter("Room")()
	select {
	case s.room <- struct{}{}:
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fault("Room was called twice")
	}
}

// produce offers everything, and tries again what is refused.
func (s *stormLane) produce(rng *rand.Rand) {
	for n := 1; n <= s.total; n++ {
		m := message(byte(rng.IntN(3)), 8+rng.IntN(50))
		binary.BigEndian.PutUint64(m.Payload, uint64(n))
		s.mu.Lock()
		s.kept[n] = m.QoS > 0
		s.mu.Unlock()
		var from Source
		if m.QoS > 0 {
			from = s
		}
		for !s.l.Offer(m, from, mqtt.Token(n)) {
			<-s.room
		}
	}
}

// stormConn is one connection of the far side.
type stormConn struct {
	s    *stormLane
	n    int // the later the higher
	solo solo
	r    *Reader

	mu     sync.Mutex
	rng    *rand.Rand
	last   int
	acks   []ack // that the far side may send
	unread int   // deliveries that were not flushed
	ready  bool
	calm   bool // always ready
}

type ack struct {
	n   int
	seq uint64
}

// Ready implements Consumer.
func (c *stormConn) Ready() bool {
	defer c.solo.enter("Ready")()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.calm && c.rng.IntN(5) == 0 {
		c.ready = false
	}
	return c.ready
}

// Deliver implements Consumer.
func (c *stormConn) Deliver(d Delivery) {
	defer c.solo.enter("Deliver")()
	n := int(binary.BigEndian.Uint64(d.Message.Payload))
	s := c.s
	s.mu.Lock()
	if n <= c.last {
		s.fault("message %d was delivered after %d on one connection", n, c.last)
	}
	for between := c.last + 1; between < n; between++ {
		if s.kept[between] && !s.done[between] {
			s.skipped[between] = fmt.Sprintf("before %d", n)
		}
	}
	switch {
	case d.Message.QoS == 0 && (s.sent[n] > 0 || d.Dup):
		s.fault("QoS 0 message %d was sent again, DUP %v", n, d.Dup)
	case d.Message.QoS > 0 && s.sent[n] > 0 && s.sentBy[n] < c.n && !d.Dup:
		s.fault("message %d was sent again without DUP", n)
	}
	// A delivery under way on a connection that was replaced may end after the resend.
	if s.sent[n]++; s.sent[n] == 1 || c.n < s.sentBy[n] {
		s.sentBy[n] = c.n
	}
	s.mu.Unlock()
	c.mu.Lock()
	c.last = n
	c.unread++
	if d.Message.QoS > 0 {
		c.acks = append(c.acks, ack{n, d.Seq})
	}
	c.mu.Unlock()
}

// Flush implements Consumer.
func (c *stormConn) Flush() {
	defer c.solo.enter("Flush")()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unread = 0
}

// acknowledge has the far side acknowledge one message of those that were delivered on the connection.
func (c *stormConn) acknowledge() bool {
	c.mu.Lock()
	if len(c.acks) == 0 {
		c.mu.Unlock()
		return false
	}
	i := c.rng.IntN(min(4, len(c.acks)))
	a := c.acks[i]
	c.acks = append(c.acks[:i:i], c.acks[i+1:]...)
	c.mu.Unlock()
	c.s.mu.Lock()
	c.s.done[a.n] = true
	c.s.mu.Unlock()
	c.r.Done(a.seq)
	return true
}

// getReady is the connection having room again.
func (c *stormConn) getReady() {
	c.mu.Lock()
	was := c.ready
	c.ready = true
	c.mu.Unlock()
	if !was {
		c.r.Pump()
	}
}

func (s *stormLane) connect(rng *rand.Rand) *stormConn {
	s.conns++
	c := &stormConn{s: s, n: s.conns, rng: rand.New(rand.NewPCG(rng.Uint64(), 0)), ready: true}
	c.r = s.l.Attach(c, Window{Messages: 1 + rng.IntN(8), Bytes: (1 + rng.Int64N(8)) * (base + 40)})
	c.r.Start()
	return c
}

// consume makes and breaks connections until stop, and then keeps one until everything is acknowledged.
// Acknowledgements of an earlier connection may come late.
func (s *stormLane) consume(rng *rand.Rand, stop <-chan struct{}) {
	c := s.connect(rng)
	var old *stormConn
	var helpers sync.WaitGroup
	defer helpers.Wait()
	for {
		select {
		case <-stop:
			s.finish(c)
			return
		default:
		}
		switch n := rng.IntN(100); {
		case n < 60:
			c.acknowledge()
		case n < 70 && old != nil:
			old.acknowledge()
		case n < 94:
			helpers.Wait()
			helpers.Go(c.getReady) // beside what this goroutine does
		case n < 98:
			c.r.Detach(true)
			fallthrough
		default: // without Detach: takes over
			old = c
			c = s.connect(rng)
		}
	}
}

func (s *stormLane) finish(c *stormConn) {
	c.mu.Lock()
	c.calm = true
	c.mu.Unlock()
	deadline := time.After(patience)
	for !s.l.Empty() {
		c.getReady()
		if c.acknowledge() {
			continue
		}
		select {
		case <-deadline:
			s.t.Errorf("stuck: %+v", s.l.Counters())
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (s *stormLane) check() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		s.t.Error(f)
	}
	c := s.l.Counters()
	if err := checkLedger(c); err != nil || c.Accepted != uint64(s.total) || c.Queued != 0 {
		s.t.Errorf("counters %+v, %v", c, err)
	}
	var delivered, dropped int
	for n := 1; n <= s.total; n++ {
		if !s.kept[n] {
			continue
		}
		switch s.outcome[n] {
		case 0:
			s.t.Fatalf("message %d was never settled", n)
		case Delivered, Stored:
			delivered++
			if s.l.cfg.OnFull == DropOldest && s.outcome[n] == Stored {
				continue // perhaps it was dropped later
			}
			if !s.done[n] {
				s.t.Fatalf("message %d was settled, and did not arrive", n)
			}
			if how, ok := s.skipped[n]; ok {
				s.t.Fatalf("message %d was passed by: %s, policy %d, outcome %d", n, how, s.l.cfg.OnFull, s.outcome[n])
			}
		case Dropped:
			dropped++
		}
	}
	if s.l.cfg.OnFull == DropOldest {
		dropped = int(c.Dropped[QueueFull])
	}
	policy := s.l.cfg.OnFull
	if delivered == 0 && policy != DropNewest || policy == Block && dropped > 0 || policy != Block && dropped == 0 {
		s.t.Errorf("%d delivered and %d dropped with policy %d", delivered, dropped, s.l.cfg.OnFull)
	}
	if n := places(s.l); n > ringKeep {
		s.t.Errorf("the empty lane keeps %d places", n)
	}
}

// TestStorm has lanes with a common budget, all of them under pressure from all sides.
func TestStorm(t *testing.T) {
	const total = 1500
	seed := rand.Uint64()
	defer func() {
		if t.Failed() {
			t.Logf("seed %#x", seed)
		}
	}()
	budget := NewBudget(40 * (base + 50))
	var lanes []*stormLane
	for i, policy := range []Policy{Block, Block, Block, Block, DropOldest, DropNewest} {
		cfg := Config{Hold: true, MaxMessages: 10 + i, OnFull: policy, Budget: budget}
		lanes = append(lanes, newStormLane(t, cfg, total))
	}
	var producers, consumers, watcher sync.WaitGroup
	stop, over := make(chan struct{}), make(chan struct{})
	for i, s := range lanes {
		producers.Go(func() { s.produce(rand.New(rand.NewPCG(seed, uint64(i)))) })
		consumers.Go(func() { s.consume(rand.New(rand.NewPCG(seed, uint64(100+i))), stop) })
	}
	watcher.Go(func() {
		for {
			for i, s := range lanes {
				if err := checkLedger(s.l.Counters()); err != nil {
					t.Errorf("lane %d: %v", i, err)
				}
				s.l.Sweep()
			}
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	for _, s := range lanes[1:] {
		watcher.Go(func() { corkAtRandom(s.l, over) })
	}
	defer watcher.Wait()
	defer close(over)
	within(t, "the producers end", producers.Wait)
	close(stop)
	within(t, "the lanes are empty", consumers.Wait)
	for _, s := range lanes {
		s.check()
	}
	if n := budget.Used(); n != 0 {
		t.Errorf("%d bytes are taken from the budget in the end", n)
	}
	budget.mu.Lock()
	defer budget.mu.Unlock()
	if n := len(budget.waiting); n > 0 {
		t.Errorf("%d lanes still wait for memory", n)
	}
}
