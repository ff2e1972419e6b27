package clock

import (
	"fmt"
	"time"
)

// Kind is how the clock is.
type Kind string

// The kinds.
const (
	// Fine: nothing speaks against the system clock.
	Fine Kind = "fine"
	// Unset: the kernel says that nobody keeps the system clock right. It may be right all the same.
	Unset Kind = "unsynchronised"
	// Corrected: the system clock is off, and what it says is corrected.
	Corrected Kind = "corrected"
	// Wrong: the system clock is plainly wrong, and the right time is not known.
	Wrong Kind = "wrong"
)

// State is how the clock is, for a person.
type State struct {
	Kind   Kind
	System time.Time // the system clock
	Now    time.Time // the time that is used
	Sync   Sync
	// Offset is what is added to the system clock, on whose word. Where there is no correction it is what a source
	// said that is not believed, zero if there is none.
	Offset time.Duration
	Source string
	Trust  Trust
	// Sets is how often the system clock was set while it was watched.
	Sets uint64
	// Reason and Remedy are sentences. Remedy is empty if there is nothing to do.
	Reason, Remedy string
}

// differs says whether somebody who knows old should hear of s.
func (s State) differs(old State) bool {
	return s.Kind != old.Kind || s.Sets != old.Sets ||
		s.Kind == Corrected && (s.Offset-old.Offset).Abs() >= follow
}

// State returns how the clock is.
func (c *Clock) State() State {
	said := c.cfg.Sync()
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, _ := c.readLocked()
	return c.stateLocked(wall, said)
}

const (
	remedySet = "set the gateway's clock, or let it synchronise by NTP (timedatectl set-ntp true)"
	remedyNTP = "let the gateway synchronise its clock by NTP (timedatectl set-ntp true), or see to it that it stays " +
		"right: signatures and certificates depend on it"
)

func (c *Clock) stateLocked(wall time.Time, said Sync) State {
	s := State{System: wall, Now: c.correctedLocked(wall), Sync: said, Sets: c.sets}
	shown := wall.UTC().Format("2006-01-02 15:04 MST")
	switch {
	case c.correction.on:
		s.Kind, s.Offset = Corrected, c.correction.offset
		s.Source, s.Trust = c.correction.from.source, c.correction.from.trust
		s.Reason = fmt.Sprintf("the system clock is %s; the time of %s%s is used instead", off(s.Offset), s.Source, s.Trust)
		s.Remedy = remedySet
	case wall.Before(c.cfg.Built) && !c.plausible(wall):
		s.Kind, s.Remedy = Wrong, remedySet+"; a cloud's or a proxy's time is used as soon as one is heard"
		s.Reason = fmt.Sprintf("the system clock shows %s, which is before bridged was built (%s)", shown,
			c.cfg.Built.UTC().Format(time.DateOnly))
	case !c.plausible(wall):
		s.Kind, s.Remedy = Wrong, remedySet+"; a cloud's or a proxy's time is used as soon as one is heard"
		s.Reason = fmt.Sprintf("the system clock shows %s, which is too far in the future", shown)
	case said == Unsynchronised:
		s.Kind, s.Remedy = Unset, remedyNTP
		s.Reason = "the system clock is not synchronised, by the kernel's word"
	case said == Synchronised:
		s.Kind, s.Reason = Fine, "the system clock is synchronised"
	default:
		s.Kind, s.Reason = Fine, "the system clock is plausible; whether it is synchronised is not known"
	}
	if !c.correction.on {
		c.contradictLocked(&s)
	}
	return s
}

// contradictLocked adds what a source says that is not believed.
func (c *Clock) contradictLocked(s *State) {
	var worst opinion
	for from, smp := range c.samples {
		if smp.offset.Abs() > max(apply, worst.offset.Abs()) {
			worst = opinion{from, smp.offset}
		}
	}
	if worst.offset == 0 {
		return
	}
	s.Offset, s.Source, s.Trust = worst.offset, worst.from.source, worst.from.trust
	s.Reason += fmt.Sprintf("; by the time of %s%s it is %s", s.Source, s.Trust, off(s.Offset))
}

// String completes "the time of HOST".
func (t Trust) String() string {
	if t == Authentic {
		return ""
	}
	return " (not authenticated)"
}

// off completes "the system clock is ...".
func off(offset time.Duration) string {
	side := "behind"
	if offset < 0 {
		side = "ahead"
	}
	d := offset.Abs()
	const day = 24 * time.Hour
	switch {
	case d >= 2*365*day:
		return fmt.Sprintf("%d years %s", d/(365*day), side)
	case d >= 2*day:
		return fmt.Sprintf("%d days %s", d/day, side)
	}
	return fmt.Sprintf("%s %s", d.Round(time.Second), side)
}
