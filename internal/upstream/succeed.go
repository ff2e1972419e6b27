package upstream

import (
	"context"
	"maps"
	"slices"
	"time"
)

// A device's configuration changes while the device is connected. What concerns the cloud's session needs another
// worker: the old one is retired, then the new one succeeds it and starts. Callers of the old one may learn of that
// later: it hands their calls on.

// Retire ends the worker for another one that is to take its place. An established session delivers what the up lane
// holds by now, while ctx lasts; what comes meanwhile waits for the other one. Retire returns when everything has
// ended.
func (w *Worker) Retire(ctx context.Context) {
	w.mu.Lock()
	w.stopping, w.farewell = true, "the configuration has changed"
	if s := w.live; s != nil && s.established {
		s.yieldLocked(w.farewell)
	} else {
		w.endTryLocked(w.farewell)
	}
	s := w.live
	w.mu.Unlock()
	w.flushSession(s)
	w.wait(ctx)
}

// Dismiss is Stop for a device that goes while others stay.
func (w *Worker) Dismiss(ctx context.Context) {
	w.stop(ctx, "the device was removed")
	w.unpark()
}

// unpark forgets messages from the cloud that the down lane has not taken. The cloud still has them.
func (w *Worker) unpark() {
	p := &w.flow.parking
	w.flow.mu.Lock()
	for p.offering {
		p.room.Wait()
	}
	cars := p.cars
	p.cars, p.bytes = nil, 0
	p.crowded.Store(false)
	for _, c := range cars {
		w.flow.in.Forget(c.token)
	}
	w.flow.mu.Unlock()
	for _, c := range cars {
		w.cfg.Memory.Give(c.taken)
	}
}

// Succeed has w, which was not started, go on where a worker of the same device has left off that is retired. same says
// that they have the same identity at the same cloud, so that the MQTT session goes on as after a lost connection.
func (w *Worker) Succeed(old *Worker, same bool) {
	old.mu.Lock()
	defer old.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.present, w.connect, w.known = old.present, old.connect, old.known
	w.awaited, w.awaitedClean = old.awaited, old.awaitedClean
	w.leftAt, w.leftWall = old.leftAt, old.leftWall
	w.reset, w.willSpent = old.reset, old.willSpent
	w.leaving.Store(old.leaving.Load())
	w.line, w.since = slices.Clone(old.line), old.since
	w.reason = old.reason
	w.latest, w.latestAt = old.latest, old.latestAt
	w.count.connects.Store(old.count.connects.Load())
	w.count.lowered.Store(old.count.lowered.Load())
	w.count.stripped.Store(old.count.stripped.Load())
	w.count.refused.Store(old.count.refused.Load())
	w.record = old.record
	w.subs.device = maps.Clone(old.subs.device)
	if same {
		w.subs.granted = maps.Clone(old.subs.granted)
		w.flow = old.flow
		w.flow.mu.Lock()
		w.flow.pacer = newPacer(w.cfg.Limits.UplinkPerSecond)
		w.flow.mu.Unlock()
	} else {
		w.flow.in.Reset() // of marks, which are the other session's
		w.cfg.Marks.ClearMarks()
	}
	old.heir = w
}

// lock locks w, or the worker that has taken its place, and returns it.
func (w *Worker) lock() *Worker {
	w.mu.Lock()
	for w.heir != nil {
		heir := w.heir
		w.mu.Unlock()
		w = heir
		w.mu.Lock()
	}
	return w
}

// Adjust changes what needs no other session. See Config.
func (w *Worker) Adjust(always bool, linger time.Duration, maxPacket int) {
	w.maxPacket.Store(int64(maxPacket))
	w.mu.Lock()
	w.cfg.Always, w.cfg.Linger = always, linger
	w.mu.Unlock()
	w.settle()
	w.kick()
}
