package upstream

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"bridged/internal/mqtt"
)

// The log tells once when a device is online, and after an outage how long that was, and why.
func TestOnlineIsToldOnce(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Linger = time.Minute
	r := start(t, cfg)
	online := func() int {
		return r.logs.FilterLevelExact(zapcore.InfoLevel).FilterField(zap.String("state", string(Online))).Len()
	}
	back := func() int { return r.logs.FilterLevelExact(zapcore.InfoLevel).FilterMessage("back online").Len() }
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "a", 1)
	r.inState(Online)
	if n := online(); n != 1 || back() != 0 {
		t.Errorf("told %d times, %d times that it is back", n, back())
	}
	r.w.Disconnected(true, 0)
	r.inState(Draining)
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "b", 1)
	if n := online(); n != 2 || back() != 0 { // the second time: the device is back
		t.Errorf("told %d times, %d times that it is back", n, back())
	}
	if reason := r.w.Status().Reason; reason != "the device is back" {
		t.Errorf("the SUBACK made the reason %q", reason)
	}

	c.Down()
	f := r.failure()
	down := time.Now()
	until(t, "some time offline", func() bool { return time.Since(down) > 20*time.Millisecond })
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	until(t, "back online", func() bool { return back() == 1 })
	e := r.logs.FilterMessage("back online").All()[0].ContextMap()
	if d, _ := e["offline_for"].(time.Duration); d < 20*time.Millisecond || d > patience {
		t.Errorf("offline for %v", e["offline_for"])
	}
	if reason, _ := e["reason"].(string); reason == "" {
		t.Errorf("no reason; at first it was %v", f)
	}
	if n := online(); n != 2 {
		t.Errorf("told %d times besides", n-2)
	}
}

// Time in which no session was wanted is no outage.
func TestOutageEndsWhenTheDeviceLeaves(t *testing.T) {
	c := generic(t)
	c.Down()
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{Clean: true})
	_ = r.failure()
	r.w.Disconnected(true, 0)
	r.inState(Idle)
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	if n := r.logs.FilterMessage("back online").Len(); n != 0 {
		t.Errorf("told %d times that it is back", n)
	}
}

// A connection that breaks again and again for the same reason is told once, with its end.
func TestFlappingIsToldOnce(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{Clean: true})
	for n := range uint64(10) {
		until(t, "a session", func() bool { st := r.w.Status(); return st.Connects > n && st.State == Online })
		c.Drop("dev", 0)
	}
	until(t, "a session", func() bool { return r.w.Status().Connects > 10 && r.w.Status().State == Online })
	if n := r.logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if n := r.logs.FilterLevelExact(zapcore.InfoLevel).Len(); n != 2 { // online, back online
		t.Errorf("%d lines at info", n)
	}
}
