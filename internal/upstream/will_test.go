package upstream

import (
	"slices"
	"testing"
	"time"

	"bridged/internal/cloudsim"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// Two connections break, the cloud's first. The cloud has published the will then, and the device's end makes no second
// one; but the will of a connection that the device makes meanwhile is another one.
func TestWillWhenTheCloudBreaksFirst(t *testing.T) {
	for name, again := range map[string]bool{"once": false, "and the device comes again": true} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			r := start(t, base(c.WSURL()))
			r.w.Connected(mqtt.Connect{Clean: true, Will: will("w1")})
			r.inState(Online)
			c.Down()
			_ = r.failure()
			r.w.Disconnected(false, 0)
			want := []string{"w1", "m0"}
			if again {
				r.w.Connected(mqtt.Connect{Clean: true, Will: will("w2")})
				r.w.Disconnected(false, 0)
				want = []string{"w1", "w2", "m0"}
			}
			if err := c.Up(); err != nil {
				t.Fatal(err)
			}
			r.w.Connected(mqtt.Connect{Clean: true})
			r.offer("t", "m0", 1, 1)
			r.settled(1)
			if got := payloads(c); !slices.Equal(got, want) {
				t.Errorf("the cloud got %q, want %q", got, want)
			}
		})
	}
}

// A device leaves in order while its CONNECT with the will is on its way: the cloud may have the will and has to be
// told at once, though messages are left, which go out on a session without it.
func TestLeavesWhileConnecting(t *testing.T) {
	c := generic(t)
	c.Delay("dev", 200*time.Millisecond)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{Clean: true, Will: will("w1")})
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	c.WithholdAcks("dev")
	r.offer("t", "m0", 1, 1)
	r.w.Disconnected(true, 0)
	if err := c.WaitOffline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	c.Delay("dev", 0)
	until(t, "the message", func() bool { return len(c.Received()) > 0 })
	c.Drop("dev", cloudsim.CutReset)
	c.ReleaseAcks("dev")
	r.settled(1)
	if got := payloads(c); slices.Contains(got, "w1") {
		t.Errorf("the cloud got %q", got)
	}
}

// A session that the cloud knows the will of ends with the device, but not before the cloud has everything.
func TestArmedSessionEndsAfterItsMessages(t *testing.T) {
	c, r := onTheWay(t, mqtt.Connect{Clean: true, Will: will("w1")})
	r.w.Disconnected(true, 0)
	pause(50 * time.Millisecond)
	c.ReleaseAcks("dev")
	r.inState(Idle) // though it could linger
	if got, want := payloads(c), []string{"m0", "m1"}; !slices.Equal(got, want) {
		t.Errorf("the cloud got %q, want %q", got, want)
	}
	if conns := c.Connections("dev"); len(conns) != 1 || conns[0].Reason != cloudsim.EndDisconnect {
		t.Errorf("connections %+v", conns)
	}
}

// A will for which there is no room waits for it.
func TestWillWaitsForRoom(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Limits.Will = false
	cfg.Up = lane.New(lane.Config{Hold: true, MaxMessages: 1})
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true, Will: will("w1")})
	r.inState(Online)
	c.WithholdAcks("dev")
	r.offer("t", "m0", 1, 1)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	r.w.Disconnected(false, 0)
	if n := r.up.Counters().Accepted; n != 1 {
		t.Fatalf("accepted %d: the lane was meant to be full", n)
	}
	c.ReleaseAcks("dev")
	if _, err := c.WaitReceived(within(t), 2); err != nil {
		t.Fatal(err)
	}
	if got, want := payloads(c), []string{"m0", "w1"}; !slices.Equal(got, want) {
		t.Errorf("the cloud got %q, want %q", got, want)
	}
}
