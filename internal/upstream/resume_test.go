package upstream

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridged/internal/cloudsim"
	"bridged/internal/credentials"
	"bridged/internal/governor"
	"bridged/internal/mqtt"
	"bridged/internal/wire"
)

// discard has the cloud lose the device's session, by way of another client of its name that connects clean.
func discard(t *testing.T, c *cloudsim.Cloud) {
	t.Helper()
	ws, resp, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial(c.WSURL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	defer func() { _ = ws.Close() }()
	p := wire.Connect(credentials.Login{ClientID: "dev"}, time.Minute, true)
	if err := ws.WriteMessage(websocket.BinaryMessage, wire.AppendPacket(nil, p)); err != nil {
		t.Fatal(err)
	}
	_, _, _ = ws.ReadMessage() // CONNACK, or the end because the worker has connected again
}

// A PUBREL that was lost with the connection is sent again: the cloud passes the message on with it only.
func TestPubrelIsSentAgain(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{})
	r.inState(Online)
	c.DropAfter("dev", 2, 1, cloudsim.CutReset) // PUBLISH, PUBREL
	r.offer("t", "x", 2, 1)
	r.settled(1)
	if n := len(c.Received()); n != 1 || c.Totals().QoS2Repeats != 0 {
		t.Errorf("the cloud got it %d times, and %d repetitions", n, c.Totals().QoS2Repeats)
	}
	if n := r.w.Status().Connects; n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
}

// When the cloud has lost the session it knows nothing of a message that it had only received: it is published again.
func TestSessionLostUp(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{})
	r.inState(Online)
	c.Delay("dev", 200*time.Millisecond) // PUBREC comes, PUBCOMP not before the session is gone
	r.offer("t", "x", 2, 1)
	until(t, "PUBREC", func() bool {
		r.w.flow.mu.Lock()
		defer r.w.flow.mu.Unlock()
		return len(r.w.flow.out.Released()) == 1
	})
	discard(t, c)
	c.Heal()
	r.settled(1)
	if n := len(c.Received()); n != 2 {
		t.Errorf("the cloud got it %d times, want 2", n)
	}
}

// When the cloud has lost the session, what comes under an identifier that was in use is another message.
func TestSessionLostDown(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.deliver()
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "down", 2)
	for i := range 2 {
		if i > 0 {
			discard(t, c)
			until(t, "a session", func() bool { return r.w.Status().Connects == 2 && r.w.Status().State == Online })
		}
		if err := c.Publish("dev", "down", []byte("same"), 2); err != nil {
			t.Fatal(err)
		}
		until(t, "delivery", func() bool { _, n := r.dev.counts(); return n == i+1 })
	}
}

// A lingering clean session is not the one that a device asks for which wants its session to be kept.
func TestCleanSessionIsNotResumed(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Linger = time.Minute
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	r.w.Disconnected(true, 0)
	r.w.Connected(mqtt.Connect{})
	until(t, "a session of its own", func() bool { return r.w.Status().Connects == 2 })
	if conns := c.Connections("dev"); !conns[0].Clean || conns[1].Clean {
		t.Errorf("connections %+v", conns)
	}
}

// What an earlier session of the device had subscribed to does not come to its clean one.
func TestCleanSessionHasNoSubscriptions(t *testing.T) {
	for name, linger := range map[string]time.Duration{"lingering": time.Minute, "ended": 0} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			cfg := base(c.WSURL())
			cfg.Linger = linger
			r := start(t, cfg)
			r.w.Connected(mqtt.Connect{})
			subscribe(t, r, "old", 1)
			r.w.Disconnected(true, 0)
			if linger == 0 {
				r.inState(Idle)
			}
			r.w.Connected(mqtt.Connect{Clean: true})
			subscribe(t, r, "new", 1)
			if s, _ := c.Session("dev"); len(s.Subs) != 1 {
				t.Errorf("subscriptions %v", s.Subs)
			}
			if n := r.w.Status().Connects; n != 2 {
				t.Errorf("%d sessions, want 2", n)
			}
		})
	}
}

// What the cloud has queued for a session that has expired does not come to the next one.
func TestExpiredSessionIsDiscarded(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.deliver()
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "down", 1)
	r.w.Disconnected(true, 0)
	r.inState(Idle)
	if err := c.Publish("dev", "down", []byte("stale"), 1); err != nil {
		t.Fatal(err)
	}
	r.w.EndSession()
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "other", 1)
	if got := r.down.Counters(); got.Accepted != 0 {
		t.Error("a message of the expired session was delivered")
	}
	if s, _ := c.Session("dev"); len(s.Subs) != 1 {
		t.Errorf("subscriptions %v", s.Subs)
	}
}

// With session: persistent the cloud keeps the subscriptions, and queues, while a device is away that connects clean.
func TestPersistentSessionOutlastsTheDevice(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Persistent = true
	r := start(t, cfg)
	r.deliver()
	r.w.Connected(mqtt.Connect{Clean: true})
	subscribe(t, r, "down", 1)
	r.w.Disconnected(true, 0)
	r.inState(Idle)
	if err := c.Publish("dev", "down", []byte("x"), 1); err != nil {
		t.Fatal(err)
	}
	r.w.Connected(mqtt.Connect{Clean: true})
	until(t, "delivery", func() bool { _, n := r.dev.counts(); return n == 1 })
}

// A filter that the device gave up while the cloud was away is taken back from the kept session.
func TestUnsubscribedWhileAway(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "x", 1)
	c.Down()
	_ = r.failure()
	done := make(chan struct{})
	r.w.Unsubscribe([]string{"x"}, func() { close(done) })
	<-done
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitUnsubscribed(within(t), "dev", "x"); err != nil {
		t.Fatal(err)
	}
}

// A SUBSCRIBE is answered, once, whatever becomes of the cloud.
func TestSubscribeIsAnswered(t *testing.T) {
	later := func(r *rig) { r.tick(time.Now().Add(answerWithin + time.Second)) }
	for name, tc := range map[string]struct {
		before, after func(t *testing.T, c *cloudsim.Cloud, r *rig)
	}{
		"no SUBACK": {
			func(t *testing.T, c *cloudsim.Cloud, r *rig) { r.inState(Online); c.WithholdSubacks("dev") },
			func(_ *testing.T, _ *cloudsim.Cloud, r *rig) { later(r) },
		},
		"no CONNACK": {
			func(t *testing.T, c *cloudsim.Cloud, r *rig) { r.inState(Connecting) },
			func(_ *testing.T, _ *cloudsim.Cloud, r *rig) { later(r) },
		},
		"the connection breaks": {
			func(t *testing.T, c *cloudsim.Cloud, r *rig) { r.inState(Online); c.WithholdSubacks("dev") },
			func(t *testing.T, c *cloudsim.Cloud, r *rig) {
				if err := c.WaitSubscribed(within(t), "dev", "x"); err != nil {
					t.Fatal(err)
				}
				c.Down()
			},
		},
		"there is no cloud": {
			func(_ *testing.T, c *cloudsim.Cloud, r *rig) { c.Down(); _ = r.failure() },
			func(*testing.T, *cloudsim.Cloud, *rig) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			c.StallConnack("dev", name == "no CONNACK")
			r := start(t, base(c.WSURL()))
			r.w.Connected(mqtt.Connect{Clean: true})
			tc.before(t, c, r)
			answers := make(chan []byte, 2)
			r.w.Subscribe([]mqtt.Subscription{{Filter: "x", QoS: 1}}, func(c []byte) { answers <- c })
			tc.after(t, c, r)
			select {
			case codes := <-answers:
				if !slices.Equal(codes, []byte{1}) {
					t.Errorf("codes %v", codes)
				}
			case <-time.After(answerWithin / 2):
				t.Fatal("no answer")
			}
			c.Heal()
			r.w.Disconnected(true, 0)
			if len(answers) > 0 {
				t.Error("answered twice")
			}
		})
	}
}

// A device that is online does not keep others of its cloud from connecting.
func TestLeasesAreForConnectingOnly(t *testing.T) {
	c := generic(t)
	one := governor.Limits{AtOnce: 1, Open: 1, PerSecond: 1e6, Burst: 10}
	g := governor.New(governor.Config{Endpoint: one})
	for _, name := range []string{"dev", "other"} {
		cfg := base(c.WSURL())
		cfg.Governor = g
		cfg.Identity = credentials.Generic{ClientID: name}
		r := start(t, cfg)
		r.w.Connected(mqtt.Connect{Clean: true})
		r.inState(Online)
	}
	if s := g.Stats(); s.Open != 0 || s.Granted != 2 {
		t.Errorf("dials: %+v", s)
	}
}

// A SUBSCRIBE is granted here at once if the cloud's connect limit keeps the device away for long.
func TestSubscribeWhileHeld(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Limits.Connects, cfg.Key = credentials.Rate{Count: 1, Per: time.Minute}, "generic/dev"
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	r.w.Disconnected(true, 0)
	r.inState(Idle)
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Waiting)
	if reason := r.w.Status().Reason; !strings.Contains(reason, "limits how often") {
		t.Errorf("waiting because of %q", reason)
	}
	began := time.Now()
	if code := subscribe(t, r, "x", 1); code != 1 || time.Since(began) > answerWithin/2 {
		t.Errorf("code %d after %s", code, time.Since(began))
	}
}

// Nothing that the LAN side calls waits for an attempt that hangs.
func TestNothingWaitsForAnAttempt(t *testing.T) {
	for name, stall := range map[string]func(c *cloudsim.Cloud){
		string(Dialing):    func(c *cloudsim.Cloud) { c.StallUpgrade(true) },
		string(Connecting): func(c *cloudsim.Cloud) { c.StallConnack("dev", true) },
	} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			stall(c)
			r := start(t, base(c.WSURL()))
			began := time.Now()
			r.w.Connected(mqtt.Connect{})
			r.inState(State(name))
			for i := range 3 {
				r.offer("t", "x", byte(i), mqtt.Token(i))
				r.w.Subscribe([]mqtt.Subscription{{Filter: "x", QoS: 1}}, func([]byte) {})
				r.w.Unsubscribe([]string{"x"}, func() {})
				r.w.Disconnected(false, 0)
				r.w.Connected(willConnect(i%2 == 0))
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			c.Heal()
		})
	}
}

// What a cloud that does not read is sent stays in the lane, beyond a little.
func TestCloudThatDoesNotRead(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{})
	r.inState(Online)
	c.StallReads("dev", true)
	const n, size = 48, 1 << 20 // more than a connection's limit
	payload := string(make([]byte, size))
	for range n {
		r.offer("t", payload, 0, 0)
	}
	queued := r.up.Counters().Queued
	if queued < n/2 {
		t.Errorf("%d messages are in the lane", queued)
	}
	r.w.mu.Lock()
	pending := r.w.live.nc.Pending()
	r.w.mu.Unlock()
	if pending > sendReady+2*size {
		t.Errorf("%d bytes wait for the cloud", pending)
	}
	c.StallReads("dev", false)
	until(t, "messages to flow again", func() bool { return r.up.Counters().Queued < queued-2 })
}

// Stop delivers what there is, for as long as it may, and then ends.
func TestStop(t *testing.T) {
	t.Run("in order", func(t *testing.T) {
		c, r := onTheWay(t, mqtt.Connect{})
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		stopped := make(chan struct{})
		go func() { r.w.Stop(ctx); close(stopped) }()
		pause(50 * time.Millisecond)
		select {
		case <-stopped:
			t.Error("stopped with messages that the cloud had not acknowledged")
		default:
		}
		c.ReleaseAcks("dev")
		<-stopped
		if !r.up.Empty() {
			t.Error("stopped with messages in the lane")
		}
		if conns := c.Connections("dev"); len(conns) != 1 || conns[0].Reason != cloudsim.EndDisconnect {
			t.Errorf("connections %+v", conns)
		}
	})
	t.Run("stuck", func(t *testing.T) {
		c, r := onTheWay(t, mqtt.Connect{})
		c.StallReads("dev", true)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		stopped := make(chan struct{})
		go func() { r.w.Stop(ctx); close(stopped) }()
		select {
		case <-stopped:
		case <-time.After(patience / 2):
			t.Error("does not stop")
			c.Heal()
			<-stopped
		}
		if r.up.Empty() {
			t.Error("what the cloud has not acknowledged is gone")
		}
	})
}
