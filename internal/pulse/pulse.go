// Package pulse tells whether goroutines that have to go round and round still do.
//
// A goroutine beats once a round, at least every Every, also when there is nothing for it to do. While it waits for
// something outside the process it says so, and counts as alive for as long as that takes: starting the process anew
// would not make a disk faster. What hangs inside the process, a lock that is never released, a loop without an end, a
// call that never returns, ends the beats.
//
// All methods are safe for concurrent use, do not block and cost a few nanoseconds.
package pulse

import (
	"sync/atomic"
	"time"
)

// Every is the longest that a goroutine which is well lets pass between two beats.
const Every = time.Second

// Pulse is one goroutine's. The zero value is that of a goroutine that has not begun, which nobody waits for.
type Pulse struct {
	// Name says which goroutine it is, for people. It is set before the pulse is used.
	Name string

	alive   atomic.Bool  // it has begun, and not ended
	beat    atomic.Int64 // when it was last, in nanoseconds since start
	outside atomic.Bool
}

// start makes times that do not change when the clock is set.
var start = time.Now()

// Beat says that the goroutine has come round.
func (p *Pulse) Beat() {
	p.beatAgain()
	p.alive.Store(true)
}

func (p *Pulse) beatAgain() { p.beat.Store(int64(time.Since(start))) }

// End says that the goroutine ends, as it should.
func (p *Pulse) End() { p.alive.Store(false) }

// Outside calls f, which waits for something outside the process. A goroutine that has not begun, or has ended, has not
// begun by that.
func (p *Pulse) Outside(f func() error) error {
	p.outside.Store(true)
	defer func() {
		p.beatAgain()
		p.outside.Store(false)
	}()
	return f()
}

// Stuck says whether the goroutine has not come round for longer than limit.
func (p *Pulse) Stuck(now time.Time, limit time.Duration) bool {
	return p.alive.Load() && !p.outside.Load() && int64(now.Sub(start))-p.beat.Load() > int64(limit)
}
