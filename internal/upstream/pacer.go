package upstream

import "time"

const (
	// pacing is the part of the cloud's rate that is used.
	pacing = 0.9
	// burst is how much of a second's messages may leave at once. It is small: a network that holds a stretch of them up
	// delivers them together, and the cloud counts when they arrive.
	burst = 0.25
	// pacePump is how often a session that waits for its rate looks again.
	pacePump = 50 * time.Millisecond
)

// pacer keeps a device's messages within its cloud's rate, so that a burst is smoothed instead of cut off by the
// cloud. It outlives connections. flow.mu protects it.
type pacer struct {
	rate   float64 // messages in a second, 0: no limit
	tokens float64 // messages that may leave now
	at     time.Time
	timer  *time.Timer // set while something waits
}

func newPacer(perSecond int) pacer {
	rate := pacing * float64(perSecond)
	return pacer{rate: rate, tokens: max(1, burst*rate)}
}

// ready says whether a message may leave. If not, wait is to be called.
func (p *pacer) ready(now time.Time) bool {
	if p.rate == 0 {
		return true
	}
	p.tokens = min(p.tokens+p.rate*now.Sub(p.at).Seconds(), max(1, burst*p.rate))
	p.at = now
	return p.tokens >= 1
}

// wait has pump called when it is worth looking again. It is the same function each time, until stop.
func (p *pacer) wait(pump func()) {
	if p.timer == nil {
		p.timer = time.AfterFunc(pacePump, pump)
	} else {
		p.timer.Reset(pacePump)
	}
}

// sent takes a message off.
func (p *pacer) sent() { p.tokens-- }

// stop ends a call of pump that is due.
func (p *pacer) stop() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}
