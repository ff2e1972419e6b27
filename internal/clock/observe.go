package clock

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// Trust is how much a Date is worth.
type Trust int

// The levels.
const (
	// Plain came in the clear: from a proxy, or over ws.
	Plain Trust = iota
	// Authentic came over TLS, from a host whose certificate was verified.
	Authentic
)

// Sample is one Date.
type Sample struct {
	// Source is the host whose Date it is, as a person knows it: the cloud's or the proxy's.
	Source string
	Trust  Trust
	Date   time.Time
	// RoundTrip is how long the request took, from its first byte sent to the header received.
	RoundTrip time.Duration
	// NotBefore and NotAfter are when the host's certificates are valid, zero without.
	NotBefore, NotAfter time.Time
}

// FromResponse makes a sample of a response's header, and reports whether there is one. conn is the TLS connection on
// which it came, nil if it came in the clear.
func FromResponse(source string, h http.Header, conn *tls.ConnectionState, roundTrip time.Duration) (Sample, bool) {
	date, err := http.ParseTime(h.Get("Date"))
	if age := h.Get("Age"); err != nil || age != "" && age != "0" { // from a cache, RFC 9111, 5.1
		return Sample{}, false
	}
	s := Sample{Source: source, Date: date, RoundTrip: roundTrip}
	if conn == nil || len(conn.VerifiedChains) == 0 {
		return s, true
	}
	s.Trust = Authentic
	for _, cert := range conn.VerifiedChains[0] {
		if cert.NotBefore.After(s.NotBefore) {
			s.NotBefore = cert.NotBefore
		}
		if s.NotAfter.IsZero() || cert.NotAfter.Before(s.NotAfter) {
			s.NotAfter = cert.NotAfter
		}
	}
	return s, true
}

const (
	// patience is how long a round trip may take for its Date to say something.
	patience = 20 * time.Second
	// fresh is how long a sample counts beside others.
	fresh = 24 * time.Hour
	// agree is how far apart sources may be that agree.
	agree = 30 * time.Second
	// A plain source has to say the same twice, confirm apart: one made up or kept on the way does not advance.
	confirm    = 5 * time.Second
	confirming = 3 * time.Second
	// maxSources bounds memory.
	maxSources = 64
)

// origin is who said something, and how it came.
type origin struct {
	source string
	trust  Trust
}

// sample is what a source said.
type sample struct {
	offset    time.Duration // to be added to the system clock
	at, first time.Duration // of the latest, and of the first that agrees with it; on the monotonic clock
}

// confirmed says that the source may be believed as far as it goes.
func (s sample) confirmed(t Trust) bool { return t == Authentic || s.at-s.first >= confirm }

// Observe takes a Date. It is to be called when the header has arrived. The error says why it is of no use.
func (c *Clock) Observe(s Sample) error {
	if err := c.usable(s); err != nil {
		return err
	}
	said := c.cfg.Sync()
	c.mu.Lock()
	wall, mono := c.readLocked()
	// The host read its clock within the round trip, and cut off the fraction of the second.
	now := sample{offset: s.Date.Add(time.Second/2 + s.RoundTrip/2).Sub(wall), at: mono, first: mono}
	from := origin{s.Source, s.Trust}
	if old, ok := c.samples[from]; ok && (old.offset-now.offset).Abs() <= confirming+s.RoundTrip/2 {
		now.first = old.first
	} else if !ok && len(c.samples) >= maxSources {
		c.forgetOldestLocked()
	}
	c.samples[from] = now
	c.decideLocked(wall, mono, said)
	c.tellAndUnlock(c.stateLocked(wall, said))
	return nil
}

func (c *Clock) usable(s Sample) error {
	date := s.Date.UTC().Format(time.RFC3339)
	switch {
	case s.RoundTrip < 0 || s.RoundTrip > patience:
		return fmt.Errorf("the Date of %s took %s: it says too little", s.Source, s.RoundTrip)
	case !c.plausible(s.Date):
		return fmt.Errorf("%s says that it is %s, which cannot be", s.Source, date)
	case s.Date.Before(s.NotBefore), !s.NotAfter.IsZero() && s.Date.After(s.NotAfter):
		return fmt.Errorf("%s says that it is %s, when its own certificate is not valid", s.Source, date)
	}
	return nil
}

func (c *Clock) forgetOldestLocked() {
	var oldest origin
	for from, s := range c.samples {
		if o, ok := c.samples[oldest]; !ok || s.at < o.at {
			oldest = from
		}
	}
	delete(c.samples, oldest)
}

// opinion is what a source says the offset is.
type opinion struct {
	from   origin
	offset time.Duration
}

// opinionsLocked are those that count, ordered by offset: authentic ones if there are any.
func (c *Clock) opinionsLocked(mono time.Duration) []opinion {
	var all [2][]opinion
	for from, s := range c.samples {
		if mono-s.at < fresh && s.confirmed(from.trust) {
			all[from.trust] = append(all[from.trust], opinion{from, s.offset})
		}
	}
	some := all[Authentic]
	if len(some) == 0 {
		some = all[Plain]
	}
	slices.SortFunc(some, func(a, b opinion) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.from.source, b.from.source))
	})
	return some
}

// median is the opinion in the middle, or the one of two in the middle that is closer to the system clock.
func median(some []opinion) opinion {
	high := some[len(some)/2]
	if len(some)%2 == 1 {
		return high
	}
	low := some[len(some)/2-1]
	if low.offset.Abs() <= high.offset.Abs() {
		return low
	}
	return high
}

// believed says whether an opinion is enough against the system clock. See the package comment.
func (c *Clock) believed(o opinion, all []opinion, wall time.Time, said Sync) bool {
	if said != Synchronised || !c.plausible(wall) {
		return true
	}
	if o.from.trust == Plain {
		return false
	}
	n := 0
	for _, other := range all {
		if (other.offset - o.offset).Abs() <= agree {
			n++
		}
	}
	return n >= 2
}

// decideLocked begins, moves or ends the correction.
func (c *Clock) decideLocked(wall time.Time, mono time.Duration, said Sync) {
	all := c.opinionsLocked(mono)
	if len(all) == 0 { // what is corrected stays so, unless the system knows better now
		if said == Synchronised && c.plausible(wall) {
			c.correction = correction{}
		}
		return
	}
	o := median(all)
	limit := apply
	if c.correction.on {
		limit = release
	}
	if o.offset.Abs() <= limit || !c.believed(o, all, wall, said) {
		c.correction = correction{}
		return
	}
	if c.correction.on && (o.offset-c.correction.offset).Abs() < follow && o.from.trust == c.correction.from.trust {
		return
	}
	c.correction = correction{on: true, offset: o.offset, from: o.from}
}
