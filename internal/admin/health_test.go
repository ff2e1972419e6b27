package admin

import (
	"errors"
	"testing"
	"time"

	"bridged/internal/bridge"
	"bridged/internal/lane"
)

func TestReady(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*bridge.Overview)
		reason string
	}{
		"ready":    {func(*bridge.Overview) {}, ""},
		"starting": {func(o *bridge.Overview) { o.Serving = false }, "bridged is starting: devices cannot connect yet"},
		"stopping": {func(o *bridge.Overview) { o.Serving, o.Stopping = false, true }, "bridged is stopping"},
		"disk": {func(o *bridge.Overview) { o.Spool.Fault = &lane.Fault{Err: errors.New("no space left")} },
			"messages cannot be stored on disk: no space left"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fleet(1)
			tc.change(&f.overview)
			h := newAdmin(f).Handler()
			if tc.reason == "" {
				get(t, h, "/readyz", 200, nil)
				return
			}
			var got Fault
			get(t, h, "/readyz", 503, &got)
			if len(got.Reasons) != 1 || got.Reasons[0] != tc.reason {
				t.Errorf("%q", got.Reasons)
			}
			var st Status
			get(t, h, "/api/v1/status", 200, &st)
			if st.Ready || len(st.NotReady) != 1 {
				t.Errorf("the status says ready %t, %q", st.Ready, st.NotReady)
			}
			get(t, h, "/healthz", 200, nil)
		})
	}
}

// A process in which nothing moves is not healthy.
func TestHealthOfAStuckProcess(t *testing.T) {
	f := fleet(1)
	a := newAdmin(f)
	a.started = a.started.Add(-2 * stuckAfter)
	a.tick()
	get(t, a.Handler(), "/healthz", 200, nil)
	a.beat.Store(int64(time.Since(a.started) - stuckAfter - time.Second))
	get(t, a.Handler(), "/healthz", 503, nil)
}

// What the watchdog looks at, which may hang without keeping anybody from looking at the devices, counts as well.
func TestHealthOfAStuckPart(t *testing.T) {
	f := fleet(1)
	h := newAdmin(f).Handler()
	get(t, h, "/healthz", 200, nil)
	f.stuck = []string{"the spool's writer", "the keeper"}
	var got Fault
	get(t, h, "/healthz", 503, &got)
	want := "bridged is stuck: no progress for 30s by the spool's writer, the keeper"
	if got.Detail != want || got.Remedy == "" {
		t.Errorf("%q, %q", got.Detail, got.Remedy)
	}
}
