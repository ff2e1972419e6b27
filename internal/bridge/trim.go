package bridge

import (
	"runtime/debug"
	"runtime/metrics"
)

// trimmer gives memory back to the system after a burst, such as the handshakes of a whole fleet. Left alone, the
// process would keep for a long time what the burst took, and twice what it uses.
type trimmer struct {
	samples   [4]metrics.Sample
	allocated uint64 // all that was, at the last look
	burst     bool   // there was one since the last trim
}

// trimExcess is from how many bytes on it is worth while.
const trimExcess = 4 << 20

func newTrimmer() *trimmer {
	t := new(trimmer)
	for i, name := range []string{
		"/gc/heap/allocs:bytes", "/gc/heap/live:bytes", "/memory/classes/heap/objects:bytes",
		"/memory/classes/heap/free:bytes",
	} {
		t.samples[i].Name = name
	}
	return t
}

// look is called every sweepEvery.
func (t *trimmer) look() {
	metrics.Read(t.samples[:])
	allocated, live := t.samples[0].Value.Uint64(), t.samples[1].Value.Uint64()
	objects, free := t.samples[2].Value.Uint64(), t.samples[3].Value.Uint64()
	recent := allocated - t.allocated
	t.allocated = allocated
	switch {
	case recent > live/8:
		t.burst = true
	case t.burst && objects+free > live+max(live/4, trimExcess):
		debug.FreeOSMemory()
		t.burst = false
	}
}
