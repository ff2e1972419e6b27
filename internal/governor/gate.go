package governor

import "time"

// bucket is a token bucket, kept as the time at which it would be full again.
type bucket struct {
	every time.Duration // between two tokens
	burst int
	full  time.Time
}

func newBucket(l Limits) bucket {
	return bucket{every: time.Duration(float64(time.Second) / l.PerSecond), burst: l.Burst}
}

// at is when there is a token. It has passed if there is one.
func (b *bucket) at() time.Time { return b.full.Add(-time.Duration(b.burst-1) * b.every) }

func (b *bucket) take(now time.Time) {
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(b.every)
}

// back returns a token that was not used.
func (b *bucket) back() { b.full = b.full.Add(-b.every) }

// gate counts dials against Limits.
type gate struct {
	Limits
	bucket bucket
	open   int // under way
	slow   int // of these
}

func newGate(l Limits) gate { return gate{Limits: l, bucket: newBucket(l)} }

// room says whether another dial may be under way.
func (g *gate) room() bool { return g.open-g.slow < g.AtOnce && g.open < g.Open }

func (g *gate) enter(now time.Time) {
	g.bucket.take(now)
	g.open++
}

func (g *gate) leave(slow bool) {
	g.open--
	if slow {
		g.slow--
	}
}
