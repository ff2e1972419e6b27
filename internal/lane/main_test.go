package lane

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bridged/internal/mqtt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a state may take to come. It only matters when a test fails.
const patience = 20 * time.Second

// within fails the test if f does not return in time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("not in time: %s", what)
	}
}

// message returns one with a payload of so many bytes.
func message(qos byte, payload int) mqtt.Message {
	return mqtt.Message{Topic: "t", Payload: make([]byte, payload), QoS: qos}
}

// base is the size of a message without payload.
var base = func() int64 { m := message(0, 0); return m.Size() }()

type settlement struct {
	token   mqtt.Token
	outcome Outcome
}

// source records what a lane tells it. One source is for one lane.
type source struct {
	solo    solo
	mu      sync.Mutex
	settled []settlement
	rooms   int

	onSettled func(mqtt.Token, Outcome)
	onRoom    func()
}

func (s *source) Settled(t mqtt.Token, o Outcome) {
	defer s.solo.enter("Settled")()
	s.mu.Lock()
	s.settled = append(s.settled, settlement{t, o})
	s.mu.Unlock()
	if s.onSettled != nil {
		s.onSettled(t, o)
	}
}

func (s *source) Room() {
	defer s.solo.enter("Room")()
	s.mu.Lock()
	s.rooms++
	s.mu.Unlock()
	if s.onRoom != nil {
		s.onRoom()
	}
}

// got returns what was settled and how often there was room since the last call.
func (s *source) got() ([]settlement, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	settled, rooms := s.settled, s.rooms
	s.settled, s.rooms = nil, 0
	return settled, rooms
}

// consumer records what is delivered.
type consumer struct {
	solo      solo
	mu        sync.Mutex
	notReady  bool
	delivered []Delivery
	unflushed int
	flushes   int

	onReady   func() bool
	onDeliver func(Delivery)
	onFlush   func()
}

func (c *consumer) Ready() bool {
	defer c.solo.enter("Ready")()
	if c.onReady != nil {
		return c.onReady()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.notReady
}

func (c *consumer) Deliver(d Delivery) {
	defer c.solo.enter("Deliver")()
	c.mu.Lock()
	c.delivered = append(c.delivered, d)
	c.unflushed++
	c.mu.Unlock()
	if c.onDeliver != nil {
		c.onDeliver(d)
	}
}

func (c *consumer) Flush() {
	defer c.solo.enter("Flush")()
	c.mu.Lock()
	c.unflushed = 0
	c.flushes++
	c.mu.Unlock()
	if c.onFlush != nil {
		c.onFlush()
	}
}

// got returns what was delivered since the last call.
func (c *consumer) got() []Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.delivered
	c.delivered = nil
	return d
}

// solo panics if calls that must be made one at a time are not.
type solo struct {
	mu    sync.Mutex
	calls []string
}

func (s *solo) enter(call string) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	if len(s.calls) > 1 {
		panic(fmt.Sprintf("calls at the same time: %v", s.calls))
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls = s.calls[:0]
	}
}

// checkLedger holds the counters against each other.
func checkLedger(c Counters) error {
	if c.Accepted != c.Delivered+uint64(c.Queued)+c.DroppedTotal() {
		return fmt.Errorf("accepted %d != delivered %d + queued %d + dropped %d",
			c.Accepted, c.Delivered, c.Queued, c.DroppedTotal())
	}
	switch {
	case c.Queued < 0, c.InFlight < 0, c.Bytes < 0, c.Oldest < 0:
		return fmt.Errorf("negative: %+v", c)
	case c.InFlight > c.Queued:
		return fmt.Errorf("%d in flight of %d", c.InFlight, c.Queued)
	case c.Bytes < int64(c.Queued)*base:
		return fmt.Errorf("%d bytes for %d messages", c.Bytes, c.Queued)
	case c.Queued == 0 && c.Bytes+int64(c.Oldest) != 0:
		return errors.New("empty, but not without bytes and age")
	case (c.DroppedTotal() > 0) != (c.LastDropped != 0):
		return fmt.Errorf("%d dropped, the last for %v", c.DroppedTotal(), c.LastDropped)
	}
	return nil
}

func ledger(t *testing.T, l *Lane) Counters {
	t.Helper()
	c := l.Counters()
	if err := checkLedger(c); err != nil {
		t.Fatal(err)
	}
	if l.Empty() != (c.Queued == 0) {
		t.Fatalf("Empty() = %v with %d queued", l.Empty(), c.Queued)
	}
	return c
}

// attach begins deliveries without a window.
func attach(l *Lane, c Consumer) *Reader {
	r := l.Attach(c, Window{})
	r.Start()
	return r
}

func wantSettled(t *testing.T, s *source, want ...settlement) {
	t.Helper()
	if got, _ := s.got(); !slices.Equal(got, want) {
		t.Fatalf("settled %v, want %v", got, want)
	}
}

// wantDelivered compares sequence numbers; negative ones stand for resends.
func wantDelivered(t *testing.T, c *consumer, want ...int) {
	t.Helper()
	var got []int
	for _, d := range c.got() {
		n := int(d.Seq)
		if d.Dup {
			n = -n
		}
		got = append(got, n)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("delivered %v, want %v", got, want)
	}
}
