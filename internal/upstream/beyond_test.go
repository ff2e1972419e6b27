package upstream

import (
	"fmt"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"bridged/internal/mqtt"
)

// A device that asks for more filters than it may have does not fill the log.
func TestFiltersBeyondTheLimits(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	cfg := base(generic(t).WSURL())
	limits := *cfg.Limits
	limits.MaxSubscriptions = 2
	cfg.Limits = &limits
	r := start(t, cfg)
	r.w.cfg.Log = zap.New(core) // nothing is logged before
	refused := 0
	for i := range 50 {
		answered := make(chan struct{})
		r.w.Subscribe([]mqtt.Subscription{{Filter: fmt.Sprint("f", i)}}, func(codes []byte) {
			if codes[0] == mqtt.Failure {
				refused++
			}
			close(answered)
		})
		<-answered
	}
	if refused != 48 {
		t.Errorf("%d filters were refused, want 48", refused)
	}
	if n := logs.FilterMessage("subscription beyond the limits").Len(); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
}
