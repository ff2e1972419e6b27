package bridge

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

var kept [][]byte

// What a burst leaves is given back once, when it is over.
func TestTrim(t *testing.T) {
	resident := func() uint64 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapSys - stats.HeapReleased
	}
	trim := newTrimmer()
	metrics.Read(trim.samples[:])
	for _, s := range trim.samples {
		if s.Value.Kind() != metrics.KindUint64 {
			t.Fatalf("there is no %s", s.Name)
		}
	}
	runtime.GC()
	for range 1 << 10 {
		kept = append(kept, make([]byte, 64<<10))
	}
	trim.look()
	if !trim.burst {
		t.Fatal("the burst was not noticed")
	}
	kept = nil
	runtime.GC() // which finds that, and keeps the memory
	before := resident()
	trim.look()
	if after := resident(); trim.burst || after+32<<20 > before {
		t.Errorf("%d bytes before, %d after", before, after)
	}
}
