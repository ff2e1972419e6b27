package crash

import (
	"slices"
	"testing"
	"time"
)

// syncTakes is how long the disk of TestSlowDisk takes for one of the syncs of which a commit has two.
const syncTakes = 500 * time.Millisecond

// A sync takes half a second. Devices whose cloud is away are acknowledged at the pace of the commits, all of them with
// each; nobody else waits for the disk, unless every message is to be stored first.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	for _, durability := range durabilities {
		t.Run(durability, func(t *testing.T) {
			t.Parallel()
			r := &faultRun{T: t, durability: durability, many: 16, window: 2}
			r.start()
			r.tracer = tamper(t, r.site.process.cmd.Process.Pid, "fdatasync,fsync:delay_enter=500000")
			from := []int64{sum(r.poor), sum(r.rich)}
			poor, rich := r.progress(r.poor, 4), r.progress(r.rich, 4)
			start := time.Now()
			pings := r.pings(func() bool { return poor() && rich() })
			took, syncs := time.Since(start), r.tracer.tampered()
			stored, relayed := sum(r.poor)-from[0], sum(r.rich)-from[1]
			t.Logf("in %s, with %d syncs: %d messages stored and acknowledged, %d of devices whose cloud is well",
				took.Round(time.Millisecond), syncs, stored, relayed)
			slices.Sort(pings)
			middle := pings[len(pings)/2]
			t.Logf("%d pings were answered, half of them within %s, all within %s", len(pings), middle, pings[len(pings)-1])
			if middle >= syncTakes/2 {
				t.Errorf("half of the pings took longer than %s, they waited for the disk", middle)
			}
			if syncs < 2 || stored < int64(5*syncs) {
				t.Errorf("%d messages with %d syncs", stored, syncs)
			}
			if durability == "spill" && relayed < int64(10*syncs) {
				t.Errorf("devices whose cloud is well had %d messages acknowledged during %d syncs", relayed, syncs)
			}
			r.arrives(r.late, true)
			r.arrives(r.poorLate, false)
			r.tracer.restore()
			r.recovered()
			r.killed()
			r.finishes()
		})
	}
}

// pings pings bridged until something is so, and returns how long it took.
func (r *faultRun) pings(done func() bool) (took []time.Duration) {
	r.Helper()
	l, err := dial(r.Context(), r.site.addr, r.idle, true)
	if err != nil {
		r.Fatal(err)
	}
	defer l.close()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			r.Fatalf("devices do not go on:%s", r.state())
		}
		start := time.Now()
		r.ping(l)
		took = append(took, time.Since(start))
		wait(r.Context(), 10*time.Millisecond)
	}
	return took
}
