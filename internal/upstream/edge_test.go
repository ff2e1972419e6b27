package upstream

import (
	"context"
	"fmt"
	"testing"
	"time"

	"bridged/internal/cloudsim"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// full down lane with a clean cloud session.
func TestFullDownLaneOfACleanSession(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	down := lane.New(lane.Config{Hold: true, MaxMessages: 2})
	cfg.Down = down
	r := start(t, cfg)
	r.down = down
	r.w.Connected(mqtt.Connect{Clean: true})
	subscribe(t, r, "down", 1)
	const n = 7
	for i := range n {
		if err := c.Publish("dev", "down", []byte(fmt.Sprint(i)), 1); err != nil {
			t.Fatal(err)
		}
	}
	r.deliver()
	for i := range n {
		until(t, "delivery", func() bool { _, got := r.dev.counts(); return got > i })
		r.dev.reader.Done(r.dev.delivered[i].Seq)
	}
	if got := len(c.Connections("dev")); got != 1 {
		t.Errorf("%d connections, want 1: a clean session loses what it has not acknowledged", got)
	}
}

// UNSUBSCRIBE overtakes the SUBACK.
func TestUnsubscribeBeforeSuback(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	c.WithholdSubacks("dev")
	r.w.Subscribe([]mqtt.Subscription{{Filter: "x", QoS: 1}}, func([]byte) {})
	if err := c.WaitSubscribed(within(t), "dev", "x"); err != nil {
		t.Fatal(err)
	}
	un := make(chan struct{})
	r.w.Unsubscribe([]string{"x"}, func() { close(un) })
	c.ReleaseSubacks("dev")
	<-un
	pause(300 * time.Millisecond)
	s, _ := c.Session("dev")
	if _, ok := s.Subs["x"]; ok {
		t.Error("UNSUBACK came, but the cloud is still subscribed")
	}
}

// UNSUBSCRIBE lost with the connection of a kept session.
func TestUnsubscribeLost(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{})
	r.inState(Online)
	subscribe(t, r, "x", 1)
	c.DropAfter("dev", 1, 1, cloudsim.CutReset) // the UNSUBSCRIBE is lost
	r.w.Unsubscribe([]string{"x"}, func() {})
	until(t, "again", func() bool { return r.w.Status().Connects == 2 && r.w.Status().State == Online })
	pause(300 * time.Millisecond)
	s, _ := c.Session("dev")
	if _, ok := s.Subs["x"]; ok {
		t.Error("still subscribed at the cloud")
	}
}

// EndSession right after a drop with a backlog takes the will back.
func willConnect(clean bool) mqtt.Connect {
	return mqtt.Connect{Clean: clean, Will: &mqtt.Message{Topic: "will", Payload: []byte("gone"), QoS: 1}}
}

func wills(c *cloudsim.Cloud) (n int) {
	for _, m := range c.Received() {
		if m.Topic == "will" {
			n++
		}
	}
	return n
}

func TestDueWillWhenTheSessionEnds(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(willConnect(false))
	r.inState(Online)
	c.WithholdAcks("dev")
	r.offer("t", "x", 1, 1)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	r.w.Disconnected(false, 0)
	r.w.EndSession()
	c.ReleaseAcks("dev")
	pause(2 * time.Second)
	if n := wills(c); n != 1 {
		t.Errorf("%d wills", n)
	}
}

func TestDueWillWhenStopping(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(willConnect(true))
	r.inState(Online)
	c.WithholdAcks("dev")
	r.offer("t", "x", 1, 1)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	r.w.Disconnected(false, 0)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	r.w.Stop(ctx)
	pause(500 * time.Millisecond)
	if n := wills(c); n != 1 {
		t.Errorf("%d wills", n)
	}
}

// an overflow restart takes a due will back.
func TestDueWillWithAFullDownLane(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	down := lane.New(lane.Config{Hold: true, MaxMessages: 2})
	cfg.Down = down
	r := start(t, cfg)
	r.down = down
	r.w.Connected(willConnect(true))
	subscribe(t, r, "down", 1)
	r.deliver()
	c.WithholdAcks("dev")
	r.offer("t", "x", 1, 1)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		_ = c.Publish("dev", "down", []byte(fmt.Sprint(i)), 1)
	}
	r.dev.reader.Detach(false) // as the broker does for a clean device that drops
	r.w.Disconnected(false, 0)
	pause(2500 * time.Millisecond)
	c.ReleaseAcks("dev")
	pause(500 * time.Millisecond)
	if n := wills(c); n != 1 {
		t.Errorf("%d wills", n)
	}
}

// a cloud without wills: a device with one makes the worker reconnect each time.
func TestWillWithoutCloudWill(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Limits.Will = false
	cfg.Always = true
	r := start(t, cfg)
	r.w.Connected(willConnect(true))
	r.inState(Online)
	for range 3 {
		r.w.Disconnected(true, 0)
		r.w.Connected(willConnect(true))
	}
	pause(500 * time.Millisecond)
	if n := r.w.Status().Connects; n != 1 {
		t.Errorf("%d connects", n)
	}
}

// SUBSCRIBE right behind the CONNECT of a device with a will, on a reachable cloud.
func TestSubscribeBehindATakeover(t *testing.T) {
	c := generic(t)
	c.RefuseFilter("dev", "forbidden")
	bad := 0
	r := start(t, base(c.WSURL()))
	r.w.Connected(willConnect(true))
	r.inState(Online)
	for range 20 {
		r.w.Disconnected(false, 0)
		r.w.Connected(willConnect(true))
		if code := subscribe(t, r, "forbidden", 1); code != mqtt.Failure {
			bad++
		}
	}
	if bad > 0 {
		t.Errorf("%d of 20 were granted locally", bad)
	}
}

// identifiers of messages that expired while the cloud was away are never freed.
func TestIdentifiersOfExpiredMessages(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Up = lane.New(lane.Config{Hold: true, MaxAge: 30 * time.Millisecond})
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{})
	r.inState(Online)
	tok := mqtt.Token(1)
	for round := range 11 {
		c.WithholdAcks("dev")
		until(t, "sent", func() bool {
			for r.up.Counters().Queued < 100 { // some may expire before they are sent
				r.offer("t", "x", 1, tok)
				tok++
			}
			return r.up.Counters().InFlight == 100
		})
		c.Down()
		until(t, "away", func() bool { s := r.w.Status().State; return s != Online && s != Subscribing })
		pause(50 * time.Millisecond)
		r.up.Sweep()
		c.ReleaseAcks("dev")
		if err := c.Up(); err != nil {
			t.Fatal(err)
		}
		n := uint64(round + 2)
		until(t, "back", func() bool { return r.w.Status().Connects >= n && r.w.Status().State == Online })
		r.w.flow.mu.Lock()
		l := r.w.flow.out.Len()
		r.w.flow.mu.Unlock()
		if l > 100 {
			t.Fatalf("%d identifiers in use", l)
		}
	}
	r.offer("t", "after", 1, tok)
	until(t, "the next message", func() bool {
		got := c.Received()
		return len(got) > 0 && string(got[len(got)-1].Payload) == "after"
	})
}

// a QoS 2 identifier that an earlier process left at the cloud swallows a message on the second session.
func TestPreReleaseOnLaterSessions(t *testing.T) {
	c := generic(t)
	a := start(t, base(c.WSURL()))
	a.w.Connected(mqtt.Connect{})
	a.inState(Online)
	c.WithholdAcks("dev")
	for i := range 3 {
		a.offer("t", fmt.Sprint("old", i), 2, mqtt.Token(i+1))
	}
	if _, err := c.WaitReceived(within(t), 3); err != nil {
		t.Fatal(err)
	}
	c.Down() // the gateway dies
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	a.w.Stop(ctx)
	c.ReleaseAcks("dev")
	c.Heal()
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	b := start(t, base(c.WSURL()))
	b.w.Connected(mqtt.Connect{})
	b.inState(Online)
	c.Drop("dev", cloudsim.CutReset)
	until(t, "second session", func() bool { return b.w.Status().Connects == 2 && b.w.Status().State == Online })
	for i := range 3 {
		b.offer("t", fmt.Sprint("new", i), 2, mqtt.Token(i+1))
	}
	until(t, "settled", func() bool { n, _ := b.dev.counts(); return n == 3 })
	if n := len(c.Received()); n != 6 {
		t.Errorf("acknowledged 3 to the device, but the cloud took %d of 6: %+v", n, c.Totals())
	}
}

// a clean connection that never reached the cloud does not discard the cloud's session.
func TestCleanWhileTheCloudIsAway(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.deliver()
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "old", 1)
	r.w.Disconnected(true, 0)
	r.inState(Idle)
	if err := c.Publish("dev", "old", []byte("stale"), 1); err != nil {
		t.Fatal(err)
	}
	c.Down()
	r.w.Connected(mqtt.Connect{Clean: true})
	_ = r.failure()
	r.w.Disconnected(true, 0)
	r.inState(Idle)
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	r.w.Connected(mqtt.Connect{})
	r.inState(Online)
	pause(300 * time.Millisecond)
	if got := r.down.Counters(); got.Accepted != 0 {
		t.Error("a message of the discarded session was delivered")
	}
}

// one message too large for the queue ends every session for ever.
func TestMessageTooLarge(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.MaxPacket = 64 << 10
	r := start(t, cfg)
	r.deliver()
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "down", 1)
	if err := c.Publish("dev", "down", make([]byte, 100<<10), 1); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish("dev", "down", []byte("behind"), 1); err != nil {
		t.Fatal(err)
	}
	until(t, "the message behind it", func() bool { _, n := r.dev.counts(); return n == 1 })
	r.dev.reader.Done(r.dev.delivered[0].Seq)
	if _, err := c.WaitAcked(within(t), 2); err != nil {
		t.Fatal(err)
	}
	if got := r.down.Counters(); got.Dropped[lane.TooLarge] != 1 {
		t.Errorf("counters %+v", got)
	}
	if n := len(c.Connections("dev")); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// session: persistent, device connects clean: what comes between its CONNECT and its SUBSCRIBE is lost.
func TestPersistentKeepsSubscriptions(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Persistent = true
	cfg.Linger = time.Minute
	r := start(t, cfg)
	r.deliver()
	r.w.Connected(mqtt.Connect{Clean: true})
	subscribe(t, r, "cmd", 1)
	r.w.Disconnected(false, 0)
	r.w.Connected(mqtt.Connect{Clean: true}) // a blip
	pause(200 * time.Millisecond)            // before it subscribes again
	err := c.Publish("dev", "cmd", []byte("x"), 1)
	subscribe(t, r, "cmd", 1)
	pause(300 * time.Millisecond)
	if _, n := r.dev.counts(); n != 1 {
		t.Errorf("lost (publish: %v)", err)
	}
}

// a bridge that stops does not drain the backlog of a device with a will.
func TestStopDrainsWithAWill(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(willConnect(true))
	r.inState(Online)
	c.Delay("dev", 200*time.Millisecond)
	for i := range 5 {
		r.offer("t", fmt.Sprint(i), 1, mqtt.Token(i+1))
	}
	r.w.Disconnected(true, 0) // as the broker does when the bridge stops
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	r.w.Stop(ctx)
	if q := r.up.Counters().Queued; q != 0 {
		t.Errorf("%d messages were not drained within 3 s", q)
	}
}

// clean device leaves before its SUBACK; the lingering session keeps the subscription for the next one.
func TestLateSubackOfACleanSession(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Linger = time.Minute
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	c.WithholdSubacks("dev")
	r.w.Subscribe([]mqtt.Subscription{{Filter: "old", QoS: 1}}, func([]byte) {})
	if err := c.WaitSubscribed(within(t), "dev", "old"); err != nil {
		t.Fatal(err)
	}
	r.w.Disconnected(true, 0)
	c.ReleaseSubacks("dev")
	r.w.Connected(mqtt.Connect{Clean: true})
	pause(300 * time.Millisecond)
	if s, _ := c.Session("dev"); len(s.Subs) != 0 {
		t.Errorf("the new clean session has %v", s.Subs)
	}
}

// granted QoS above what was asked.
func TestGrantedAtMostWhatWasAsked(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Subscribe = []mqtt.Subscription{{Filter: "s", QoS: 2}}
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	if code := subscribe(t, r, "s", 0); code != 0 {
		t.Errorf("asked for QoS 0, granted %d", code)
	}
}

// pause gives something time to happen that must not.
func pause(d time.Duration) { <-time.After(d) }
