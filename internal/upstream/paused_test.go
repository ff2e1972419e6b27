package upstream

import (
	"testing"

	"bridged/internal/lane"
	"bridged/internal/wire"
)

// A session that waits for room in the down lane notices that its connection has ended: the way up would wait, too.
func TestConnectionEndsWhilePaused(t *testing.T) {
	down := lane.New(lane.Config{Hold: true, MaxMessages: 1})
	r, f := startFramed(t, func(cfg *Config) { cfg.Down = down })
	f.send(publishes(1, 3*parkMessages))
	waits := func() bool {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		return r.w.live != nil && r.w.live.waiting.Load()
	}
	until(t, "the session waits", waits)
	r.w.mu.Lock()
	first := r.w.live
	r.w.mu.Unlock()
	_ = first.nc.Close() // as netconn does it with a cloud that takes nothing
	until(t, "another session", func() bool { return r.w.count.connects.Load() == 2 })
	r.offer("u", "m", 1, 1)
}

// What is left for the session's next turn is not forgotten, though nothing more is to be read.
func TestManyPacketsAtOnce(t *testing.T) {
	const n = 10 * maxPackets
	r, f := startFramed(t, nil)
	r.deliver()
	var b []byte
	for range n {
		b = wire.AppendPublish(b, "d", nil, 0, false, false, 0)
	}
	f.send(b)
	until(t, "delivery", func() bool { _, delivered := r.dev.counts(); return delivered == n })
}
