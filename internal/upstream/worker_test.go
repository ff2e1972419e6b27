package upstream

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"bridged/internal/cloudsim"
	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

func TestRelayUp(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{Clean: true})
	for i := range 30 {
		r.offer("t", fmt.Sprint(i), byte(i%3), mqtt.Token(i))
	}
	got, err := c.WaitReceived(within(t), 30)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range got {
		if string(m.Payload) != fmt.Sprint(i) || m.QoS != byte(i%3) {
			t.Errorf("message %d is %q at QoS %d", i, m.Payload, m.QoS)
		}
	}
	until(t, "settled", func() bool { n, _ := r.dev.counts(); return n == 30 })
	if st := r.w.Status(); st.State != Online || !st.Device || st.Connects != 1 {
		t.Errorf("status %+v", st)
	}
}

func TestStatesOfASession(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Subscribe = []mqtt.Subscription{{Filter: "s", QoS: 1}}
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	c.WithholdAcks("dev")
	r.offer("t", "x", 1, 1)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	r.w.Disconnected(true, 0)
	r.inState(Draining)
	c.ReleaseAcks("dev")
	r.inState(Idle)
	var states []State
	for _, ch := range r.w.Status().Timeline {
		states = append(states, ch.State)
	}
	want := []State{Signing, Dialing, Connecting, Subscribing, Online, Draining, Idle}
	if !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
	if conns := c.Connections("dev"); len(conns) != 1 || conns[0].Reason != cloudsim.EndDisconnect {
		t.Errorf("connections %+v", conns)
	}
}

// The identifiers of QoS 2 messages survive a reconnect of a kept session: a message whose PUBREC was lost is repeated
// under its identifier, so that the cloud recognises it.
func TestQoS2ResumesUnderItsIdentifier(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{})
	r.inState(Online)
	c.LoseAcks("dev", 1)
	r.offer("t", "x", 2, 1)
	until(t, "settled", func() bool { n, _ := r.dev.counts(); return n == 1 })
	if n := len(c.Received()); n != 1 {
		t.Errorf("the cloud took the message %d times", n)
	}
	if tot := c.Totals(); tot.QoS2Repeats != 1 {
		t.Errorf("%d repetitions, want 1", tot.QoS2Repeats)
	}
}

// A cloud message that was not acknowledged when the connection broke is sent again. It is not delivered again.
func TestRedeliveryIsRecognised(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			c := generic(t)
			r := start(t, base(c.WSURL()))
			r.deliver()
			r.w.Connected(mqtt.Connect{})
			subscribe(t, r, "down", 2)
			if err := c.Publish("dev", "down", []byte("x"), qos); err != nil {
				t.Fatal(err)
			}
			until(t, "delivered", func() bool { _, n := r.dev.counts(); return n == 1 })
			c.Drop("dev", cloudsim.CutReset)
			until(t, "a second session", func() bool { return r.w.Status().Connects == 2 })
			until(t, "redelivery", func() bool { return c.Totals().Resent > 0 })
			r.dev.reader.Done(r.dev.delivered[0].Seq)
			if _, err := c.WaitAcked(within(t), 1); err != nil {
				t.Fatal(err)
			}
			if got := r.down.Counters(); got.Accepted != 1 {
				t.Errorf("accepted %d times", got.Accepted)
			}
		})
	}
}

// What the device acknowledged while the cloud was away is acknowledged to the cloud when it asks again.
func TestAcknowledgedWhileAway(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.deliver()
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "down", 1)
	if err := c.Publish("dev", "down", []byte("x"), 1); err != nil {
		t.Fatal(err)
	}
	until(t, "delivered", func() bool { _, n := r.dev.counts(); return n == 1 })
	c.Down()
	_ = r.failure()
	r.dev.reader.Done(r.dev.delivered[0].Seq)
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitAcked(within(t), 1); err != nil {
		t.Fatal(err)
	}
	if got := r.down.Counters(); got.Accepted != 1 {
		t.Errorf("accepted %d times", got.Accepted)
	}
}

func subscribe(t *testing.T, r *rig, filter string, qos byte) byte {
	t.Helper()
	codes := make(chan []byte, 1)
	r.w.Subscribe([]mqtt.Subscription{{Filter: filter, QoS: qos}}, func(c []byte) { codes <- c })
	select {
	case c := <-codes:
		return c[0]
	case <-time.After(patience):
		t.Fatal("no answer to SUBSCRIBE")
		return 0
	}
}

// A full down lane keeps further messages in the cloud, in order, and gets them when it has room.
func TestDownLaneFull(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	down := lane.New(lane.Config{Hold: true, MaxMessages: 2})
	cfg.Down = down
	r := start(t, cfg)
	r.down = down
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "down", 1)
	const n = 7
	for i := range n {
		if err := c.Publish("dev", "down", []byte(fmt.Sprint(i)), 1); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "a full lane", func() bool {
		r.w.flow.mu.Lock()
		defer r.w.flow.mu.Unlock()
		return len(r.w.flow.parking.cars) > 0
	})
	r.offer("t", "up goes on", 1, 1)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	r.deliver()
	for i := range n {
		until(t, "delivery", func() bool { _, got := r.dev.counts(); return got > i })
		r.dev.reader.Done(r.dev.delivered[i].Seq)
	}
	if _, err := c.WaitAcked(within(t), n); err != nil {
		t.Fatal(err)
	}
	for i, d := range r.dev.delivered {
		if string(d.Message.Payload) != fmt.Sprint(i) {
			t.Errorf("delivery %d is %q", i, d.Message.Payload)
		}
	}
}

// MQTT 5's Clean Start with a session expiry: what the cloud kept is discarded, and the new session kept.
func TestReset(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "old", 1)
	r.w.Disconnected(true, 0)
	r.inState(Idle)
	if err := c.Publish("dev", "old", []byte("stale"), 1); err != nil {
		t.Fatal(err)
	}
	r.deliver()
	r.w.Connected(mqtt.Connect{Reset: true})
	r.inState(Online)
	conns := c.Connections("dev")
	if len(conns) != 3 || !conns[1].Clean || conns[2].Clean || conns[2].SessionPresent {
		t.Errorf("connections %+v", conns)
	}
	if got := r.down.Counters(); got.Accepted != 0 {
		t.Error("a message of the discarded session was delivered")
	}
}

// The clouds' limits on SUBSCRIBE are kept; the simulators end the connection otherwise.
func TestSubscribeWithinLimits(t *testing.T) {
	for _, kind := range []cloudsim.Kind{cloudsim.Tencent, cloudsim.Aliyun} {
		t.Run(string(kind), func(t *testing.T) {
			c := simulate(t, cloudsim.Options{
				Kind: kind, NoWSS: true, Product: "P", Devices: []cloudsim.Device{{Name: "dev", Secret: "c2VjcmV0"}},
			})
			cfg := base(c.WSURL())
			cfg.Keepalive = 5 * time.Minute
			*cfg.Limits, _ = credentials.LimitsOf(string(kind))
			if kind == cloudsim.Tencent {
				cfg.Identity = credentials.Tencent{
					ProductID: "P", DeviceName: "dev", Secret: "c2VjcmV0", Method: credentials.HMACSHA256,
				}
			} else {
				cfg.Identity = credentials.Aliyun{
					ProductKey: "P", DeviceName: "dev", Secret: "c2VjcmV0", Method: credentials.HMACSHA1, Timestamp: true,
				}
			}
			for i := range 20 {
				cfg.Subscribe = append(cfg.Subscribe, mqtt.Subscription{Filter: fmt.Sprint("s/", i), QoS: 2})
			}
			r := start(t, cfg)
			r.w.Connected(mqtt.Connect{Clean: true})
			var subs []mqtt.Subscription
			for i := range 20 {
				subs = append(subs, mqtt.Subscription{Filter: fmt.Sprint("d/", i), QoS: 2})
			}
			codes := make(chan []byte, 1)
			r.w.Subscribe(subs, func(c []byte) { codes <- c })
			if got := <-codes; slices.ContainsFunc(got, func(b byte) bool { return b != 1 }) {
				t.Errorf("codes %v", got)
			}
			long := strings.Repeat("x", 300)
			if code := subscribe(t, r, long, 1); code != mqtt.Failure {
				t.Errorf("a filter of 300 bytes: code %d", code)
			}
			r.inState(Online)
			s, _ := c.Session("dev")
			if len(s.Subs) != 40 {
				t.Errorf("%d subscriptions", len(s.Subs))
			}
			if v := c.Violations(); len(v) != 0 {
				t.Errorf("violations %v", v)
			}
		})
	}
}

// The cloud's connect rate holds however often the device comes and goes.
func TestConnectRate(t *testing.T) {
	rule := cloudsim.RulesFor(cloudsim.Generic)
	rule.Connects = cloudsim.Rate{Count: 2, Per: time.Second}
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true, Rules: &rule})
	cfg := base(c.WSURL())
	cfg.Limits.Connects, cfg.Key = credentials.Rate{Count: 2, Per: time.Second}, "generic/dev"
	r := start(t, cfg)
	for range 5 {
		r.w.Connected(mqtt.Connect{Clean: true})
		r.inState(Online)
		r.w.Disconnected(true, 0)
		r.inState(Idle)
	}
	if v := c.Violations(); len(v) != 0 {
		t.Errorf("violations %v", v)
	}
}

// Whether another message may leave is asked for each of them.
func TestReadyDoesNotAllocate(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	r.w.mu.Lock()
	s := r.w.live
	r.w.mu.Unlock()
	if n := testing.AllocsPerRun(1000, func() { s.Ready() }); n > 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// Two gateways with the same device use up its connect limit between them, so that most of their connects are refused.
// It is found out all the same that there are two.
func TestKickWarAtALimit(t *testing.T) {
	const per = 50 * time.Millisecond
	rule := cloudsim.RulesFor(cloudsim.Generic)
	rule.Connects = cloudsim.Rate{Count: 1, Per: per}
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true, Rules: &rule})
	var both []*rig
	for range 2 {
		cfg := base(c.WSURL()) // with a governor of its own
		cfg.Limits.Connects, cfg.Key = credentials.Rate{Count: 1, Per: per}, "generic/dev"
		retry := governor.RetryConfig{Policies: policies(governor.Policy{First: time.Millisecond, Max: time.Millisecond})}
		retry.Policies[governor.ClassThrottled] = governor.Policy{Floor: per, First: per, Max: per}
		cfg.Retry = governor.NewRetries(retry)()
		both = append(both, start(t, cfg))
	}
	for _, r := range both {
		r.w.Connected(mqtt.Connect{Clean: true})
	}
	refused := func() (n int) {
		for _, r := range both {
			n += r.logs.FilterField(zap.String("kind", string(failure.ConnackUnavailable))).Len()
		}
		return n
	}
	until(t, "the war is named", func() bool {
		for _, r := range both {
			if r.logs.FilterField(zap.String("kind", string(failure.KickWar))).Len() > 0 {
				return true
			}
		}
		return false
	})
	if refused() == 0 {
		t.Error("no connect was refused")
	}
}

// Silence of the cloud is noticed; a cloud that answers pings is left alone.
func TestKeepalive(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Keepalive = 2 * time.Second
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	online := time.Now()
	until(t, "the cloud would have ended a silent connection", func() bool { return time.Since(online) > 5*time.Second })
	if conns := c.Connections("dev"); len(conns) != 1 || !conns[0].End.IsZero() {
		t.Errorf("connections %+v", conns)
	}
	if r.w.Status().Last != nil {
		t.Errorf("failure %v", r.w.Status().Last)
	}
}

func TestCloudGoesSilent(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Retry = governor.NewRetries(once)()
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	c.StallReads("dev", true)
	// As if a keepalive, and then the time to answer a ping, had passed.
	r.tick(time.Now().Add(time.Minute))
	r.tick(time.Now().Add(2 * time.Minute))
	if f := r.failure(); f.Kind != failure.KeepaliveLost || !strings.Contains(f.Reason(), "PINGRESP") {
		t.Errorf("failure %v", f)
	}
}

// A device that is gone before the cloud could be reached leaves no attempt behind.
func TestGivesUpWithoutReason(t *testing.T) {
	c := generic(t)
	c.StallConnack("dev", true)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Connecting)
	r.w.Disconnected(true, 0)
	r.inState(Idle)
}

// Identifiers that an earlier process may have left half-way are released before they are used.
func TestPreRelease(t *testing.T) {
	c := generic(t)
	first := start(t, base(c.WSURL()))
	first.w.Connected(mqtt.Connect{})
	first.inState(Online)
	c.WithholdAcks("dev")
	first.offer("t", "first", 2, 1)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	c.Drop("dev", cloudsim.CutReset) // as if the process had been killed
	c.Heal()
	second := start(t, base(c.WSURL())) // takes the session over, and uses the identifier 1 as well
	second.w.Connected(mqtt.Connect{})
	second.inState(Online)
	second.offer("t", "second", 2, 1)
	until(t, "both", func() bool {
		return slices.ContainsFunc(c.Received(), func(m cloudsim.Received) bool { return string(m.Payload) == "second" })
	})
	first.w.Disconnected(true, 0)
}
