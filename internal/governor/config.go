package governor

import "time"

// Limits bounds dials, to one endpoint or in all.
type Limits struct {
	// AtOnce is how many handshakes may be under way, slow ones not counted.
	AtOnce int
	// Open is how many may be under way, slow ones included. It is at least AtOnce.
	Open int
	// PerSecond is how many may start in a second. Up to Burst start without delay after a quiet time: in a span of t
	// seconds at most Burst + PerSecond*t.
	PerSecond float64
	Burst     int
}

// Config is what a Governor keeps to. Fields that are zero stand for the defaults.
type Config struct {
	Endpoint Limits // of each endpoint
	// Total is of the process. A few dials of each endpoint may be under way beyond it.
	Total Limits
	// SlowAfter is how long a handshake may take before it counts as slow.
	SlowAfter time.Duration
	// Earlier is until when a process that ended without leaving its Used may have connected. Zero: there was none.
	Earlier time.Time
	// Used is what an earlier process has left.
	Used []Used
	// Recovered is called when an endpoint works again after nobody got through for a while, on the goroutine that said
	// so, and without locks. Those who wait for their next try after a network failure should hear of it. It must not
	// block. It may be nil.
	Recovered func(endpoint string)
}

// The defaults, and their reasons.
//
// Rate: 2,000 devices of one cloud are back (2000-10)/25 = 80 s after an outage, 2,000 of two clouds after 40 s.
// Clouds that publish a figure take 100 new connections in a second for the smallest hub (Azure), so four gateways
// behind the same one that wake together are still within it. A TLS handshake costs 10 to 50 ms on the CPUs of small
// gateways; what is left is for relaying, and where it takes longer the bound on dials at once slows the rate down.
//
// At once: a handshake takes five round trips. At 300 ms and with losses that is 2 to 3 s, so 25 in a second need up
// to 75. With all 192 handshakes waiting for a CPU that needs 50 ms for each, the last is done after 10 s, within any
// timeout.
//
// Slow: an endpoint of which a quarter of the connections is never answered, until a timeout of 35 s, has 128 of them
// stuck and still takes 128/35/0.25 = 15 dials in a second instead of 25. With 32 slots and no distinction it were 4.
var (
	defaultEndpoint = Limits{AtOnce: 64, Open: 128, PerSecond: 25, Burst: 10}
	defaultTotal    = Limits{AtOnce: 96, Open: 192, PerSecond: 50, Burst: 20}
)

const defaultSlowAfter = 5 * time.Second

func (c Config) withDefaults() Config {
	c.Endpoint = c.Endpoint.or(defaultEndpoint)
	c.Total = c.Total.or(defaultTotal)
	if c.SlowAfter == 0 {
		c.SlowAfter = defaultSlowAfter
	}
	if c.Recovered == nil {
		c.Recovered = func(string) {}
	}
	return c
}

func (l Limits) or(d Limits) Limits {
	if l.AtOnce == 0 {
		l.AtOnce = d.AtOnce
	}
	if l.Open == 0 {
		l.Open = max(d.Open, l.AtOnce)
	}
	if l.PerSecond == 0 {
		l.PerSecond = d.PerSecond
	}
	if l.Burst == 0 {
		l.Burst = d.Burst
	}
	return l
}
