package clock

import (
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	build = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	today = time.Date(2027, 3, 1, 8, 30, 0, 0, time.UTC)
	epoch = time.Unix(60, 0).UTC()
)

// system stands for the system's clocks and the kernel's word.
type system struct {
	mu   sync.Mutex
	wall time.Time
	mono time.Duration
	sync Sync
}

func (s *system) read() (time.Time, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wall, s.mono
}

func (s *system) said() Sync {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sync
}

// pass lets time pass; set sets the clock.
func (s *system) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wall, s.mono = s.wall.Add(d), s.mono+d
}

func (s *system) set(to time.Time, says Sync) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wall, s.sync = to, says
}

// newClock returns a clock on a system, and what it tells.
func newClock(wall time.Time, says Sync) (c *Clock, sys *system, told *[]State) {
	sys, told = &system{wall: wall, sync: says}, new([]State)
	c = New(Config{Read: sys.read, Sync: sys.said, Built: build, Changed: func(s State) { *told = append(*told, s) }})
	return c, sys, told
}

// hear takes a Date that is so far from the system clock, without a round trip.
func hear(t *testing.T, c *Clock, sys *system, source string, trust Trust, offset time.Duration) {
	t.Helper()
	wall, _ := sys.read()
	s := Sample{Source: source, Trust: trust, Date: wall.Add(offset - time.Second/2)}
	if err := c.Observe(s); err != nil {
		t.Fatal(err)
	}
}
