package upstream

import (
	"context"
	"slices"
	"testing"
	"time"

	"bridged/internal/cloudsim"
	"bridged/internal/mqtt"
)

// payloads are those of what the cloud received, in order; a will's is its own.
func payloads(c *cloudsim.Cloud) []string {
	var all []string
	for _, m := range c.Received() {
		all = append(all, string(m.Payload))
	}
	return all
}

func will(topic string) *mqtt.Message {
	return &mqtt.Message{Topic: topic, Payload: []byte(topic), QoS: 1}
}

// onTheWay has a device connect and publish m0 and m1, which the cloud does not acknowledge.
func onTheWay(t *testing.T, first mqtt.Connect) (*cloudsim.Cloud, *rig) {
	t.Helper()
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Linger = time.Minute
	r := start(t, cfg)
	r.w.Connected(first)
	r.inState(Online)
	c.WithholdAcks("dev")
	r.offer("t", "m0", 1, 1)
	r.offer("t", "m1", 2, 2)
	if _, err := c.WaitReceived(within(t), 2); err != nil {
		t.Fatal(err)
	}
	return c, r
}

func (r *rig) settled(n int) {
	r.tb.Helper()
	until(r.tb, "settled", func() bool { got, _ := r.dev.counts(); return got == n })
}

// A device that leaves with messages on their way to the cloud, and comes back at once, may need another session. The
// old one ends in order: nothing is sent twice, a will that is due comes behind what the device sent before it, and
// what it sends now goes out on the new session.
func TestComesBackWithMessagesOnTheirWay(t *testing.T) {
	w1, w2 := will("w1"), will("w2")
	for name, tc := range map[string]struct {
		first, second mqtt.Connect
		graceful      bool
		want          []string
	}{
		"left, will":     {mqtt.Connect{Clean: true, Will: w1}, mqtt.Connect{Clean: true, Will: w2}, true, nil},
		"dropped, will":  {mqtt.Connect{Clean: true, Will: w1}, mqtt.Connect{Clean: true, Will: w2}, false, []string{"w1"}},
		"kept, dropped":  {mqtt.Connect{Will: w1}, mqtt.Connect{Will: w2}, false, []string{"w1"}},
		"no will before": {mqtt.Connect{}, mqtt.Connect{Will: w2}, true, nil},
		"no will after":  {mqtt.Connect{Will: w1}, mqtt.Connect{}, false, []string{"w1"}},
		"clean after":    {mqtt.Connect{}, mqtt.Connect{Clean: true}, true, nil},
		"clean before":   {mqtt.Connect{Clean: true}, mqtt.Connect{}, true, nil},
		"reset":          {mqtt.Connect{}, mqtt.Connect{Reset: true}, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, r := onTheWay(t, tc.first)
			r.w.Disconnected(tc.graceful, 0)
			r.w.Connected(tc.second)
			r.offer("t", "m2", 1, 3)
			pause(50 * time.Millisecond)
			if got := payloads(c); len(got) != 2 || r.w.Status().Connects != 1 {
				t.Errorf("before the acknowledgements: %q, status %+v", got, r.w.Status())
			}
			c.ReleaseAcks("dev")
			r.settled(3)
			r.inState(Online)
			want := slices.Concat([]string{"m0", "m1"}, tc.want, []string{"m2"})
			if got := payloads(c); !slices.Equal(got, want) {
				t.Errorf("the cloud got %q, want %q", got, want)
			}
			if tot := c.Totals(); tot.QoS2Repeats != 0 {
				t.Errorf("%d repetitions", tot.QoS2Repeats)
			}
		})
	}
}

// What the lane held when the device came back goes out on the old session as well, beyond the window, but nothing
// that came later.
func TestYieldsWhatTheLaneHeld(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Limits.MaxInFlight = 1
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true, Will: will("w1")})
	r.inState(Online)
	c.WithholdAcks("dev")
	for i, m := range []string{"m0", "m1", "m2"} {
		r.offer("t", m, 1, mqtt.Token(i))
	}
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	r.w.Disconnected(false, 0)
	r.w.Connected(mqtt.Connect{Clean: true, Will: will("w2")})
	r.offer("t", "m3", 1, 4)
	c.ReleaseAcks("dev")
	r.settled(4)
	if got, want := payloads(c), []string{"m0", "m1", "m2", "w1", "m3"}; !slices.Equal(got, want) {
		t.Errorf("the cloud got %q, want %q", got, want)
	}
}

// A cloud that acknowledges nothing does not keep the device from its new session for long.
func TestYieldsToAStuckCloud(t *testing.T) {
	c, r := onTheWay(t, mqtt.Connect{Clean: true, Will: will("w1")})
	r.w.Disconnected(false, 0)
	r.w.Connected(mqtt.Connect{Clean: true, Will: will("w2")})
	r.tick(time.Now().Add(yieldWithin - time.Second))
	pause(50 * time.Millisecond)
	if n := r.w.Status().Connects; n != 1 {
		t.Fatalf("%d sessions, too early", n)
	}
	r.tick(time.Now().Add(yieldWithin))
	until(t, "the new session", func() bool { return r.w.Status().Connects == 2 })
	c.ReleaseAcks("dev")
	r.settled(2)
	if got, want := payloads(c), []string{"m0", "m1", "w1", "m0", "m1"}; !slices.Equal(got, want) {
		t.Errorf("the cloud got %q, want %q", got, want)
	}
}

// The device leaves again while the old session still delivers: its will, which no session has told the cloud, comes
// behind its messages.
func TestLeavesAgainMeanwhile(t *testing.T) {
	for name, graceful := range map[string]bool{"in order": true, "dropped": false} {
		t.Run(name, func(t *testing.T) {
			c, r := onTheWay(t, mqtt.Connect{Clean: true, Will: will("w1")})
			r.w.Disconnected(false, 0)
			r.w.Connected(mqtt.Connect{Clean: true, Will: will("w2")})
			r.offer("t", "m2", 1, 3)
			r.w.Disconnected(graceful, 0)
			c.ReleaseAcks("dev")
			r.settled(3)
			want := []string{"m0", "m1", "w1", "m2"}
			if !graceful {
				want = append(want, "w2")
			}
			until(t, "the lane to be empty", r.up.Empty)
			if got := payloads(c); !slices.Equal(got, want) {
				t.Errorf("the cloud got %q, want %q", got, want)
			}
		})
	}
}

// The old session breaks, and the device drops, before there is a new one: the cloud has published the first will only.
func TestDropsAfterTheOldSessionBroke(t *testing.T) {
	c, r := onTheWay(t, mqtt.Connect{Clean: true, Will: will("w1")})
	r.w.Disconnected(false, 0)
	r.w.Connected(mqtt.Connect{Clean: true, Will: will("w2")})
	c.Down()
	_ = r.failure()
	r.w.Disconnected(false, 0)
	c.Heal()
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	until(t, "the lane to be empty", r.up.Empty)
	if got, want := payloads(c), []string{"m0", "m1", "w1", "m0", "m1", "w2"}; !slices.Equal(got, want) {
		t.Errorf("the cloud got %q, want %q", got, want)
	}
}

// What the cloud still sends on a session that is to be discarded is not the new session's.
func TestDiscardedSessionIsDeaf(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Subscribe = []mqtt.Subscription{{Filter: "down", QoS: 2}} // it stays when the device's own end
	r := start(t, cfg)
	r.deliver()
	r.w.Connected(mqtt.Connect{})
	r.inState(Online)
	c.WithholdAcks("dev")
	r.offer("t", "m0", 1, 1)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	r.w.Disconnected(true, 0)
	r.w.Connected(mqtt.Connect{Reset: true})
	for qos := range byte(3) {
		if err := c.Publish("dev", "down", []byte("stale"), qos); err != nil {
			t.Fatal(err)
		}
	}
	pause(50 * time.Millisecond)
	c.ReleaseAcks("dev")
	until(t, "the new session", func() bool { return r.w.Status().Connects == 3 && r.w.Status().State == Online })
	if got := r.down.Counters(); got.Accepted != 0 {
		t.Errorf("%d messages of the discarded session were accepted", got.Accepted)
	}
	if n := len(c.Received()); n != 1 {
		t.Errorf("the cloud got the message %d times", n)
	}
}

// A session that has expired with messages on their way ends in order as well.
func TestExpiresWithMessagesOnTheirWay(t *testing.T) {
	c, r := onTheWay(t, mqtt.Connect{})
	r.w.Disconnected(true, 0)
	r.w.EndSession()
	pause(50 * time.Millisecond)
	c.ReleaseAcks("dev")
	r.inState(Idle)
	if got := payloads(c); len(got) != 2 {
		t.Errorf("the cloud got %q", got)
	}
}

// When bridged stops, a session that was to yield delivers everything: no other follows.
func TestStopsWhileYielding(t *testing.T) {
	c, r := onTheWay(t, mqtt.Connect{Clean: true, Will: will("w1")})
	r.w.Disconnected(true, 0)
	r.w.Connected(mqtt.Connect{Clean: true, Will: will("w2")})
	r.offer("t", "m2", 1, 3)
	r.w.Disconnected(true, 0) // as the broker does when bridged stops
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stopped := make(chan struct{})
	go func() { r.w.Stop(ctx); close(stopped) }()
	until(t, "stopping", func() bool {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		return r.w.stopping
	})
	c.ReleaseAcks("dev")
	<-stopped
	if got, want := payloads(c), []string{"m0", "m1", "m2"}; !slices.Equal(got, want) {
		t.Errorf("the cloud got %q, want %q", got, want)
	}
}

// A SUBSCRIBE of the device that came back is for its new session.
func TestSubscribesWhileYielding(t *testing.T) {
	c, r := onTheWay(t, mqtt.Connect{Clean: true, Will: will("w1")})
	c.RefuseFilter("dev", "forbidden")
	r.w.Disconnected(true, 0)
	r.w.Connected(mqtt.Connect{Clean: true, Will: will("w2")})
	codes := make(chan []byte, 1)
	r.w.Subscribe([]mqtt.Subscription{{Filter: "forbidden", QoS: 1}, {Filter: "x", QoS: 1}}, func(c []byte) { codes <- c })
	pause(50 * time.Millisecond)
	if len(codes) > 0 || c.Totals().Connects != 1 {
		t.Fatal("answered before there was a session for it")
	}
	c.ReleaseAcks("dev")
	if got := <-codes; !slices.Equal(got, []byte{mqtt.Failure, 1}) {
		t.Errorf("codes %v", got)
	}
	s, _ := c.Session("dev")
	if _, ok := s.Subs["x"]; !ok || c.Totals().Connects != 2 {
		t.Errorf("subscriptions %v after %d connects", s.Subs, c.Totals().Connects)
	}
}
