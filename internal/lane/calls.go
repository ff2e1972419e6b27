package lane

import "bridged/internal/mqtt"

// call is a call to a source, or to another lane that waits for memory.
type call struct {
	from    Source
	token   mqtt.Token
	outcome Outcome // 0: there is room
	other   *Lane
}

// roomLocked queues the calls to the sources that were refused.
func (l *Lane) roomLocked() {
	for _, s := range l.blocked {
		l.calls = append(l.calls, call{from: s})
	}
	l.blocked = nil
}

// unlockAndCall unlocks the lane and makes the calls that are due, unless another goroutine is at it.
func (l *Lane) unlockAndCall() {
	if l.calling || len(l.calls) == 0 {
		l.mu.Unlock()
		return
	}
	l.calling = true
	var spare []call
	for len(l.calls) > 0 {
		batch := l.calls
		l.calls = spare
		l.mu.Unlock()
		var run Source // whose Settled was called last
		for i, c := range batch {
			settled := c.outcome != 0
			if run != nil && !(settled && c.from == run) {
				settledAll(run)
				run = nil
			}
			switch {
			case c.other != nil:
				c.other.wake()
			case settled:
				c.from.Settled(c.token, c.outcome)
				run = c.from
			default:
				c.from.Room()
			}
			batch[i] = call{}
		}
		settledAll(run)
		spare = batch[:0]
		l.mu.Lock()
	}
	l.calls = nil
	if cap(spare) <= 64 {
		l.calls = spare
	}
	l.calling = false
	l.mu.Unlock()
}

// settledAll ends a run of Settled calls. The source may be nil.
func settledAll(s Source) {
	if b, ok := s.(Batcher); ok {
		b.SettledAll()
	}
}

// wake has the sources that were refused try again, now that there is memory. The calls are the lane's own, so that
// they do not run beside others of its.
func (l *Lane) wake() {
	l.mu.Lock()
	l.roomLocked()
	l.unlockAndCall()
}
