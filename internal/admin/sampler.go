package admin

import (
	"math"
	"sync"
	"time"

	"bridged/internal/bridge"
	"bridged/internal/lane"
)

// rateWindow is over how long messages per second are averaged.
const rateWindow = 5 * time.Second

// rate is in messages per second, rates by direction.
type (
	rate  struct{ accepted, delivered float64 }
	rates [2]rate
)

// sampler looks at all devices, and derives from their counters what takes more than one look: rates, and totals of
// clouds that do not fall when a device goes.
type sampler struct {
	source Source

	mu      sync.Mutex // held during a look, so that looks do not overtake each other; protects the following fields
	devices map[string]*sample
	totals  map[string]*totals // by cloud
	rateAt  time.Time
	rates   map[string]rates // by device, without those at rest; replaced, not changed
	round   int
}

// sample is what was seen of a device last.
type sample struct {
	flows   [2]lane.Counters
	base    [2]struct{ accepted, delivered uint64 } // at rateAt
	session session
	round   int // when that was
}

// totals are of the devices of a cloud, since the start of the process, those that are gone included.
type totals struct {
	flows   [2]lane.Counters
	session session
}

// session are counters of the cloud side.
type session struct{ connects, lowered, stripped, refusals uint64 }

func newSampler(source Source, now time.Time) *sampler {
	return &sampler{source: source, devices: make(map[string]*sample), totals: make(map[string]*totals), rateAt: now}
}

// look looks at all devices. It returns them with their rates.
func (s *sampler) look() ([]bridge.DeviceSummary, map[string]rates) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.source.Summaries()
	s.round++
	for i := range all {
		s.absorbLocked(&all[i])
	}
	s.concludeLocked()
	return all, s.rates
}

// glance is look for those who do not want to know.
func (s *sampler) glance() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.round++
	s.source.EachSummary(s.absorbLocked)
	s.concludeLocked()
}

// concludeLocked forgets devices that are gone, and computes rates if it is time.
func (s *sampler) concludeLocked() {
	for name, seen := range s.devices {
		if seen.round != s.round {
			delete(s.devices, name)
		}
	}
	if now := time.Now(); now.Sub(s.rateAt) >= rateWindow {
		s.rateLocked(now)
	}
}

func (s *sampler) absorbLocked(d *bridge.DeviceSummary) {
	seen := s.devices[d.Name]
	if seen == nil {
		seen = &sample{flows: [2]lane.Counters{d.UpBegan, d.DownBegan}}
		for dir, c := range seen.flows {
			seen.base[dir].accepted, seen.base[dir].delivered = c.Accepted, c.Delivered
		}
		s.devices[d.Name] = seen
	}
	t := s.totals[d.Cloud]
	if t == nil {
		t = new(totals)
		s.totals[d.Cloud] = t
	}
	seen.round = s.round
	for dir, now := range [2]*lane.Counters{&d.Up, &d.Down} {
		total, last := &t.flows[dir], &seen.flows[dir]
		count(&total.Accepted, last.Accepted, now.Accepted)
		count(&total.Delivered, last.Delivered, now.Delivered)
		for r := range now.Dropped {
			count(&total.Dropped[r], last.Dropped[r], now.Dropped[r])
		}
		*last = *now
	}
	now := session{d.Session.Connects, d.Session.Lowered, d.Session.Stripped, d.Session.LateRefusals}
	count(&t.session.connects, seen.session.connects, now.connects)
	count(&t.session.lowered, seen.session.lowered, now.lowered)
	count(&t.session.stripped, seen.session.stripped, now.stripped)
	count(&t.session.refusals, seen.session.refusals, now.refusals)
	seen.session = now
}

// count adds to a total what a counter has risen by. One that is lower than before has begun anew.
func count(total *uint64, last, now uint64) {
	if now < last {
		last = 0
	}
	*total += now - last
}

func (s *sampler) rateLocked(now time.Time) {
	window := now.Sub(s.rateAt).Seconds()
	per := func(n, base uint64) float64 {
		if n < base {
			return 0
		}
		return math.Round(float64(n-base)/window*100) / 100
	}
	s.rateAt, s.rates = now, make(map[string]rates)
	for name, seen := range s.devices {
		var r rates
		for dir := range r {
			c, base := &seen.flows[dir], &seen.base[dir]
			r[dir] = rate{per(c.Accepted, base.accepted), per(c.Delivered, base.delivered)}
			base.accepted, base.delivered = c.Accepted, c.Delivered
		}
		if r != (rates{}) {
			s.rates[name] = r
		}
	}
}

// latest are the rates of a device.
func (s *sampler) latest(device string) rates {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rates[device]
}

// sums are a copy of the totals.
func (s *sampler) sums() map[string]totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]totals, len(s.totals))
	for cloud, t := range s.totals {
		all[cloud] = *t
	}
	return all
}
