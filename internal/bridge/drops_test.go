package bridge

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"bridged/internal/lane"
)

func TestDropsAreTold(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	var d drops
	var c [2]lane.Counters
	now := time.Now()
	tell := func(after time.Duration, end bool) (counts []any) {
		d.tell(zap.New(core), "dev", c, now.Add(after), end)
		for _, e := range logs.TakeAll() {
			counts = append(counts, e.ContextMap()["count"])
		}
		return counts
	}
	c[1].Dropped[lane.NoSession] = 9
	if got := tell(0, false); len(got) != 0 {
		t.Errorf("told of what is expected: %v", got)
	}
	c[0].Dropped[lane.TooLarge] = 1
	if got := tell(0, false); len(got) != 1 || got[0] != uint64(1) {
		t.Errorf("the first: %v", got)
	}
	c[0].Dropped[lane.TooLarge] = 5
	if got := tell(time.Minute, false); len(got) != 0 {
		t.Errorf("again within ten minutes: %v", got)
	}
	if got := tell(dropEvery, false); len(got) != 1 || got[0] != uint64(4) {
		t.Errorf("after ten minutes: %v", got)
	}
	c[0].Dropped[lane.TooLarge] = 6
	if got := tell(dropEvery, true); len(got) != 1 || got[0] != uint64(1) {
		t.Errorf("at the end: %v", got)
	}
}
