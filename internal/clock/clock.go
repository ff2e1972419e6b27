package clock

import (
	"sync"
	"time"
)

const (
	// apply is from what on the system clock is corrected, release until when it stays so.
	apply   = time.Minute
	release = apply / 2
	// follow is the smallest change of a correction that is taken up. Date has a resolution of a second.
	follow = 2 * time.Second
	// stepped is by how much wall clock and monotonic clock must move apart to say that the clock was set. The kernel
	// slews both alike.
	stepped = time.Second
)

// Sync is the kernel's word on whether the system clock is synchronised.
type Sync int

// What it says.
const (
	Unknown Sync = iota
	Synchronised
	Unsynchronised
)

// Config is where a Clock gets its knowledge. Fields that are zero stand for the real thing.
type Config struct {
	// Read returns the system's wall clock and a monotonic clock at the same moment.
	Read func() (wall time.Time, mono time.Duration)
	// Sync asks the kernel.
	Sync func() Sync
	// Built is when the program was built; see Built.
	Built time.Time
	// Changed is called when the clock was set, became plainly wrong or right, or a correction began, ended or moved:
	// whoever waits for the right time may try again. It is called without locks, on the goroutine that noticed, and
	// must not block. It may be nil.
	Changed func(State)
}

// Clock is the gateway's idea of the time. See the package comment.
type Clock struct {
	cfg Config

	mu         sync.Mutex // protects the following fields
	wall       time.Time  // the clocks as of the start, or since the clock was set
	mono       time.Duration
	samples    map[origin]sample
	correction correction
	sets       uint64 // how often the system clock was set
	told       State  // as of the last call of Changed, or the start
}

// correction is what is added to the system clock; on says that it is.
type correction struct {
	on     bool
	offset time.Duration
	from   origin
}

// New returns a clock.
func New(cfg Config) *Clock {
	if cfg.Read == nil {
		start := time.Now()
		cfg.Read = func() (time.Time, time.Duration) {
			now := time.Now()
			return now.Round(0), now.Sub(start)
		}
	}
	if cfg.Sync == nil {
		cfg.Sync = kernelSync
	}
	if cfg.Built.IsZero() {
		cfg.Built = Built()
	}
	if cfg.Changed == nil {
		cfg.Changed = func(State) {}
	}
	c := &Clock{cfg: cfg, samples: make(map[origin]sample)}
	c.wall, c.mono = cfg.Read()
	c.told = c.stateLocked(c.wall, cfg.Sync())
	return c
}

// Now is the time to sign with. It has no monotonic reading: it may jump.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, _ := c.readLocked()
	return c.correctedLocked(wall)
}

// VerifyNow is the time to verify certificates at, for tls.Config.Time. It is Now, except that a plausible system
// clock is not corrected on the word of a plain source: who made one up could have certificates accepted that have
// expired.
func (c *Clock) VerifyNow() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, _ := c.readLocked()
	if c.correction.from.trust == Plain && c.plausible(wall) {
		return wall
	}
	return c.correctedLocked(wall)
}

func (c *Clock) correctedLocked(wall time.Time) time.Time {
	if c.correction.on {
		return wall.Add(c.correction.offset)
	}
	return wall
}

// readLocked reads the clocks, and notices when the wall clock was set.
func (c *Clock) readLocked() (time.Time, time.Duration) {
	wall, mono := c.cfg.Read()
	if moved := wall.Sub(c.wall) - (mono - c.mono); moved.Abs() >= stepped {
		c.wall, c.mono = wall, mono
		c.sets++
		clear(c.samples)
		c.correction = correction{}
	}
	return wall, mono
}

// plausible says that it can be this time. A day is for build machines whose clock is off, or in another time zone.
func (c *Clock) plausible(t time.Time) bool {
	return !t.Before(c.cfg.Built.AddDate(0, 0, -1)) && t.Before(c.cfg.Built.AddDate(20, 0, 0))
}

// Check looks at the clocks, and tells Config.Changed what it sees. Something has to call it every second or so.
func (c *Clock) Check() {
	said := c.cfg.Sync()
	c.mu.Lock()
	wall, mono := c.readLocked()
	c.decideLocked(wall, mono, said)
	c.tellAndUnlock(c.stateLocked(wall, said))
}

func (c *Clock) tellAndUnlock(s State) {
	changed := s.differs(c.told)
	if changed {
		c.told = s
	}
	c.mu.Unlock()
	if changed {
		c.cfg.Changed(s)
	}
}
