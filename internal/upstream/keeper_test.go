package upstream

import (
	"testing"
	"time"

	"bridged/internal/cloudsim"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/mqtt"
)

// A link that dies right after something came over it is noticed within the keepalive.
func TestPinging(t *testing.T) {
	for keepalive := 6 * time.Second; keepalive <= 65535*time.Second; keepalive += 7 * time.Second {
		every, within := pinging(keepalive)
		if every+within+2*tickEvery > keepalive || every < keepalive/3 || within < time.Second || within > pingWithin {
			t.Fatalf("keepalive %s: a ping after %s, an answer within %s", keepalive, every, within)
		}
	}
	if every, within := pinging(0); every+within > noKeepalive {
		t.Errorf("no keepalive: a ping after %s, an answer within %s", every, within)
	}
}

// stalling is a worker whose cloud has taken a message and does not acknowledge it.
func stalling(t *testing.T) (r *rig, c *cloudsim.Cloud) {
	t.Helper()
	c = generic(t)
	cfg := base(c.WSURL())
	cfg.StallTimeout, cfg.Keepalive = time.Minute, 0
	cfg.Retry = governor.NewRetries(once)()
	r = start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	c.WithholdAcks("dev")
	r.offer("t", "x", 1, 1)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	until(t, "the cloud's TCP to have it", func() bool {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		return r.w.live.nc.Taken() == r.w.live.nc.Written()
	})
	return r, c
}

// cut says why the Keeper has ended the session, nil if it has not.
func (r *rig) cut() *failure.Failure {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if r.w.live == nil {
		r.tb.Fatal("there is no session")
	}
	return r.w.live.lost
}

func TestStall(t *testing.T) {
	r, _ := stalling(t)
	now := time.Now()
	r.w.tick(now)
	r.w.tick(now.Add(59 * time.Second))
	if f := r.cut(); f != nil {
		t.Fatal(f)
	}
	r.w.tick(now.Add(62 * time.Second))
	if f := r.failure(); f.Kind != failure.Stalled {
		t.Errorf("failure %v", f)
	}
}

// The time counts for each message by itself.
func TestSteadyIsNotStalled(t *testing.T) {
	r, c := stalling(t)
	now := time.Now()
	r.w.tick(now)
	r.w.tick(now.Add(50 * time.Second))
	c.ReleaseAcks("dev")
	until(t, "settled", func() bool { n, _ := r.dev.counts(); return n == 1 })
	c.WithholdAcks("dev")
	r.offer("t", "y", 1, 2)
	if _, err := c.WaitReceived(within(t), 2); err != nil {
		t.Fatal(err)
	}
	r.w.tick(now.Add(70 * time.Second))
	r.w.tick(now.Add(100 * time.Second))
	if f := r.cut(); f != nil {
		t.Error(f)
	}
}

// A message counts from when the cloud has it, not from when it is handed to a slow link.
func TestSlowLinkIsNotStalled(t *testing.T) {
	r, _ := stalling(t)
	r.w.mu.Lock()
	r.w.live.oldest = oldest{seq: 1, end: r.w.live.nc.Written() + 1} // a byte is yet to leave
	r.w.mu.Unlock()
	now := time.Now()
	r.w.tick(now)
	r.w.tick(now.Add(90 * time.Second))
	if f := r.cut(); f != nil {
		t.Error(f)
	}
}
