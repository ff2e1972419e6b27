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
	r.tick(now)
	r.tick(now.Add(59 * time.Second))
	if f := r.cut(); f != nil {
		t.Fatal(f)
	}
	r.tick(now.Add(62 * time.Second))
	if f := r.failure(); f.Kind != failure.Stalled {
		t.Errorf("failure %v", f)
	}
}

// The time counts for each message by itself.
func TestSteadyIsNotStalled(t *testing.T) {
	r, c := stalling(t)
	now := time.Now()
	r.tick(now)
	r.tick(now.Add(50 * time.Second))
	c.ReleaseAcks("dev")
	until(t, "settled", func() bool { n, _ := r.dev.counts(); return n == 1 })
	c.WithholdAcks("dev")
	r.offer("t", "y", 1, 2)
	if _, err := c.WaitReceived(within(t), 2); err != nil {
		t.Fatal(err)
	}
	r.tick(now.Add(70 * time.Second))
	r.tick(now.Add(100 * time.Second))
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
	r.tick(now)
	r.tick(now.Add(90 * time.Second))
	if f := r.cut(); f != nil {
		t.Error(f)
	}
}

// A session that does nothing costs no lock until its next ping is due, whatever has been before.
func TestNothingDue(t *testing.T) {
	r := start(t, base(generic(t).WSURL()))
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	now := time.Now()
	r.w.look(now, now)
	r.w.look(now, now) // what came in the meantime
	every, within := pinging(time.Minute)
	pinged := func() bool { return !r.w.live.pingAt.IsZero() }
	looked := make(chan struct{})
	r.w.mu.Lock()
	go func() { r.w.look(now.Add(every-2*tickEvery), now); close(looked) }()
	select {
	case <-looked:
	case <-time.After(5 * time.Second):
		t.Error("a look without need takes the lock")
	}
	early := pinged()
	r.w.mu.Unlock()
	<-looked
	r.w.look(now.Add(every), now)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if early || !pinged() {
		t.Errorf("pinged early %v, in time %v", early, pinged())
	}
	if due := r.w.dueLocked(now); !due.Equal(now.Add(every + within)) {
		t.Errorf("the answer is due after %s", due.Sub(now))
	}
}

// Whatever takes a limited time is looked at in each round.
func TestDue(t *testing.T) {
	subscribe := func(r *rig, _ *cloudsim.Cloud) {
		r.w.Subscribe([]mqtt.Subscription{{Filter: "f", QoS: 1}}, func([]byte) {})
	}
	for _, test := range []struct {
		name  string
		begin func(r *rig, c *cloudsim.Cloud)
	}{
		{"a SUBACK is awaited", func(r *rig, c *cloudsim.Cloud) { c.WithholdSubacks("dev"); subscribe(r, c) }},
		{"a message is not acknowledged", func(r *rig, c *cloudsim.Cloud) {
			c.WithholdAcks("dev")
			r.offer("t", "x", 1, 1)
			if _, err := c.WaitReceived(within(t), 1); err != nil {
				r.tb.Fatal(err)
			}
		}},
		{"the device has left", func(r *rig, _ *cloudsim.Cloud) { r.w.Disconnected(true, 0) }},
		{"the disk is awaited", func(r *rig, c *cloudsim.Cloud) {
			r.w.Connected(mqtt.Connect{Expiry: 3600})
			subscribe(r, c)
			until(r.tb, "the SUBACK", func() bool { return r.w.record.waits() })
		}},
		{"another session is to follow", func(r *rig, c *cloudsim.Cloud) {
			c.WithholdAcks("dev")
			r.offer("t", "x", 1, 1)
			r.w.Connected(mqtt.Connect{Clean: true, Will: will("w")})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := generic(t)
			cfg := base(c.WSURL())
			cfg.StallTimeout, cfg.Linger = time.Minute, time.Minute
			cfg.Save = func(*Kept, func()) {} // never done
			r := start(t, cfg)
			r.w.Connected(mqtt.Connect{Clean: true})
			r.inState(Online)
			now := time.Now()
			r.w.look(now, now)
			r.w.look(now, now)
			test.begin(r, c)
			for range 2 {
				now = now.Add(tickEvery)
				if due := r.w.due.Load(); due > int64(now.Sub(epoch)) && !r.w.live.sent.Load() && !r.w.live.heard.Load() {
					t.Errorf("due after %s", time.Duration(due)-now.Sub(epoch))
				}
				r.w.look(now, now)
			}
		})
	}
}
