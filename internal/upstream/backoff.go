package upstream

import (
	"math/rand/v2"
	"time"

	"bridged/internal/credentials"
)

// Backoff says how long to wait after failed attempts: a random time (full jitter) up to a bound that doubles with each
// failure, from Min to Max. Failures that a person has to mend wait RejectedMin at least.
type Backoff struct {
	Min, Max    time.Duration
	RejectedMin time.Duration
	// Stable is how long a session must last for its end to count as the first failure again.
	Stable time.Duration
	// Quiet is how long a session has to stand before it is tried on it whether the cloud takes a certain message.
	Quiet time.Duration
}

// DefaultBackoff is what is used unless told otherwise.
var DefaultBackoff = Backoff{
	Min: time.Second, Max: 2 * time.Minute, RejectedMin: 30 * time.Second, Stable: 10 * time.Second,
	Quiet: 3 * time.Second,
}

// delay is how long to wait after so many failures in a row, the last of the given class.
func (b Backoff) delay(failures int, class Class) time.Duration {
	if failures == 0 {
		return 0
	}
	bound := b.Min
	for i := 1; i < failures && bound < b.Max; i++ {
		bound *= 2
	}
	d := rand.N(min(bound, b.Max) + 1)
	switch class {
	case ClassRejected, ClassTLS, ClassConfig:
		return b.RejectedMin + d
	case ClassThrottled:
		return b.RejectedMin/2 + d
	}
	return d
}

// pace keeps a device's connects within its cloud's rate.
type pace struct {
	rate   credentials.Rate
	recent []time.Time // the latest connects, at most rate.Count, oldest first
}

// wait is how long the next connect has to wait.
func (p *pace) wait(now time.Time) time.Duration {
	if p.rate.Unlimited() || len(p.recent) < p.rate.Count {
		return 0
	}
	// A twentieth more: what is apart here may arrive closer together.
	return max(0, p.rate.Per+p.rate.Per/20-now.Sub(p.recent[0]))
}

// sent records that the latest connect has come as far as sending CONNECT, which is what the cloud counts.
func (p *pace) sent(now time.Time) {
	if len(p.recent) > 0 {
		p.recent[len(p.recent)-1] = now
	}
}

// began records the beginning of a connect.
func (p *pace) began(now time.Time) {
	if p.rate.Unlimited() {
		return
	}
	if len(p.recent) == p.rate.Count {
		p.recent = append(p.recent[:0], p.recent[1:]...)
	}
	p.recent = append(p.recent, now)
}
