package upstream

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"bridged/internal/cloudsim"
	"bridged/internal/failure"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// narrow is a cloud that closes the connection on payloads above 100 bytes.
func narrow(t *testing.T) *cloudsim.Cloud {
	t.Helper()
	rules := cloudsim.RulesFor(cloudsim.Generic)
	rules.MaxPayload = 100
	return simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true, Rules: &rules})
}

// hurry has the worker look at its timers more often than a Keeper does.
func (r *rig) hurry() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			r.tick(time.Now())
			pause(5 * time.Millisecond)
		}
	})
	r.tb.Cleanup(func() { cancel(); wg.Wait() })
}

var large = strings.Repeat("x", 101)

// A message that has the cloud close the connection is dropped in the end, and told of; what is around it arrives, in
// order and once.
func TestRefusedMessageIsDropped(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		c := narrow(t)
		r := start(t, base(c.WSURL()))
		r.hurry()
		r.w.Connected(mqtt.Connect{})
		for i, m := range []string{"m0", "m1", large, "m2", "m3"} {
			r.offer("t", m, qos, mqtt.Token(i))
		}
		r.settled(5)
		got := r.up.Counters()
		if got.Dropped[lane.TopicLimit] != 1 || got.Delivered != 4 || got.Queued != 0 {
			t.Errorf("QoS %d: counters %+v", qos, got)
		}
		var last []string
		for _, p := range payloads(c) {
			if i := slices.Index(last, p); i < 0 {
				last = append(last, p)
			}
		}
		if want := []string{"m0", "m1", "m2", "m3"}; !slices.Equal(last, want) {
			t.Errorf("QoS %d: the cloud got %q, want %q", qos, last, want)
		}
		logs := r.logs.FilterMessageSnippet("dropped a message that the cloud does not take").All()
		if len(logs) != 1 || logs[0].ContextMap()["topic"] != "t" || logs[0].ContextMap()["bytes"] != int64(len(large)) {
			t.Errorf("QoS %d: logged %v", qos, logs)
		}
		told := r.logs.FilterMessage("no session with the cloud").FilterLevelExact(zapcore.WarnLevel).All()
		if n := len(told); n != 3 { // the closed connection, the suspicion, the decision
			t.Errorf("QoS %d: %d warnings", qos, n)
		}
		r.w.Disconnected(true, 0)
	}
}

// A cloud that takes nothing at all must not empty the lane: at most one message is dropped, and none if the cloud has
// not taken any since the start. What is wrong is told.
func TestCloudThatTakesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		first   []string
		dropped uint64
	}{
		"from the start": {nil, 0},
		"suddenly":       {[]string{"m0"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := narrow(t)
			r := start(t, base(c.WSURL()))
			r.hurry()
			r.w.Connected(mqtt.Connect{})
			all := slices.Concat(tc.first, []string{large, large, large})
			for i, m := range all {
				r.offer("t", m, 1, mqtt.Token(i))
			}
			until(t, "the conclusion", func() bool {
				f := r.w.Status().Last
				return f != nil && f.Class() == failure.ClassMessage && strings.Contains(f.Reason(), "everything waits")
			})
			connects := r.w.Status().Connects
			until(t, "more attempts", func() bool { return r.w.Status().Connects > connects+1 })
			got := r.up.Counters()
			if got.DroppedTotal() != tc.dropped || got.Queued != 3-int(tc.dropped) {
				t.Errorf("counters %+v", got)
			}
		})
	}
}

// Without a reason to count it under, a message is kept for ever.
func TestRefusedMessageIsKept(t *testing.T) {
	c := narrow(t)
	cfg := base(c.WSURL())
	cfg.Refused = 0
	r := start(t, cfg)
	r.hurry()
	r.w.Connected(mqtt.Connect{})
	r.offer("t", "m0", 1, 1)
	r.offer("t", large, 1, 2)
	r.offer("t", "m1", 1, 3)
	until(t, "the conclusion", func() bool {
		f := r.w.Status().Last
		return f != nil && strings.Contains(f.Reason(), "everything waits")
	})
	if got := r.up.Counters(); got.DroppedTotal() != 0 || got.Delivered != 1 || got.Queued != 2 {
		t.Errorf("counters %+v", got)
	}
}

// A PUBCOMP for a message of an earlier connection does not confuse the trial.
func TestTrialWithAnEarlierPubcomp(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.hurry()
	r.w.Connected(mqtt.Connect{})
	r.inState(Online)
	c.Delay("dev", 200*time.Millisecond) // PUBREC comes, PUBCOMP does not
	r.offer("t", "m0", 2, 1)
	until(t, "PUBREC", func() bool {
		r.w.flow.mu.Lock()
		defer r.w.flow.mu.Unlock()
		return len(r.w.flow.out.Released()) == 1
	})
	c.Down()
	c.Heal()
	_ = r.failure()
	r.w.flow.mu.Lock()
	r.w.flow.suspicion = suspicion{seq: 2, ends: suspectAfter, spread: 10}
	r.w.flow.mu.Unlock()
	for i, m := range []string{"m1", "m2", "m3"} {
		r.offer("t", m, 1, mqtt.Token(i+2))
	}
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	r.settled(4)
}

// Connections that break, however often and at the worst time, cost no message.
func TestBadNetworkDropsNothing(t *testing.T) {
	const n = 20
	for name, breaks := range map[string]func(c *cloudsim.Cloud, r *rig){
		"with whatever is sent": func(c *cloudsim.Cloud, r *rig) {
			c.DropAfter("dev", 1, -1, cloudsim.CutReset)
			r.offer("t", "m0", 1, 1)
			until(r.tb, "suspicion, twice", func() bool { return r.w.Status().Connects > 2*(suspectAfter+1) })
			c.DropAfter("dev", 0, 0, cloudsim.CutReset) // the network is well again
		},
		"whenever there is a connection": func(c *cloudsim.Cloud, r *rig) {
			c.WithholdAcks("dev")
			r.offer("t", "m0", 1, 1)
			for r.w.Status().Connects < n {
				c.Drop("dev", cloudsim.CutClose)
				pause(time.Millisecond)
			}
			c.ReleaseAcks("dev")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			r := start(t, base(c.WSURL()))
			r.hurry()
			r.w.Connected(mqtt.Connect{})
			r.inState(Online)
			r.offer("t", "proof", 1, 0)
			r.settled(1)
			breaks(c, r)
			r.settled(2)
			if got := r.up.Counters(); got.Delivered != 2 || got.DroppedTotal() != 0 {
				t.Errorf("counters %+v", got)
			}
		})
	}
}

// Each condition for dropping a message is needed.
func TestSuspicion(t *testing.T) {
	now := time.Now()
	type end struct {
		closed, busy bool
		change       func(*trial)
	}
	plain := end{closed: true}
	at := func(d time.Duration) func(*trial) { return func(t *trial) { t.first.at = now.Add(d) } }
	repeat := func(n int, e end) []end { return slices.Repeat([]end{e}, n) }
	all := repeat(suspectAfter+refusedAfter, plain)
	with := func(i int, e end) []end {
		ends := slices.Clone(all)
		ends[i] = e
		return ends
	}
	last := len(all) - 1
	for name, tc := range map[string]struct {
		ends []end
		want int // sessions that ended with the message alone, in a row
	}{
		"all conditions":           {all, refusedAfter},
		"one too few":              {all[1:], refusedAfter - 1},
		"a timeout":                {with(2, end{}), 0},
		"a timeout at last":        {with(last, end{}), 0},
		"acknowledged":             {with(last, end{closed: true, change: func(t *trial) { t.acked = 1 }}), 0},
		"nothing was sent":         {with(last, end{closed: true, change: func(t *trial) { t.first = sent{} }}), 0},
		"late":                     {with(last, end{closed: true, change: at(-soon - time.Second)}), 0},
		"SUBSCRIBE was unanswered": {with(last, end{closed: true, busy: true}), 0},
		"not alone":                {with(last, end{closed: true, change: func(t *trial) { t.sent = 2 }}), 0},
		"another message":          {with(last, end{closed: true, change: func(t *trial) { t.first.seq = 8 }}), 0},
		"again after a timeout":    {slices.Concat(with(last, end{}), all), refusedAfter},
	} {
		t.Run(name, func(t *testing.T) {
			var p suspicion
			for i, e := range tc.ends {
				tr := p.try()
				if tr.alone != (p.ends >= suspectAfter) {
					t.Fatalf("session %d: alone %v after %d", i, tr.alone, p.ends)
				}
				tr.first, tr.sent = sent{at: now, seq: 7}, 1
				if e.change != nil {
					e.change(&tr)
				}
				p.add(&tr, e.closed, e.busy)
			}
			if p.alone != tc.want {
				t.Errorf("ended alone %d times, want %d", p.alone, tc.want)
			}
		})
	}
}

// A suspect message is not sent before the cloud has shown on this connection that it is well, nor beside others.
func TestTrialOfASuspect(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Quiet = 10 * time.Second
	cfg.Subscribe = []mqtt.Subscription{{Filter: "s", QoS: 1}}
	c.WithholdSubacks("dev")
	r := start(t, cfg)
	r.w.flow.suspicion = suspicion{seq: 1, ends: suspectAfter, spread: 2}
	r.w.Connected(mqtt.Connect{})
	r.offer("t", "m0", 1, 1)
	r.offer("t", "m1", 1, 2)
	r.offer("t", "m2", 1, 3)
	r.inState(Subscribing)
	r.tick(time.Now().Add(10 * time.Second))
	pause(50 * time.Millisecond)
	if got := c.Received(); len(got) != 0 {
		t.Fatalf("sent before SUBACK: %d", len(got))
	}
	c.ReleaseSubacks("dev")
	r.inState(Online)
	r.tick(time.Now())
	pause(50 * time.Millisecond)
	if got := c.Received(); len(got) != 0 {
		t.Fatalf("sent within the quiet time: %d", len(got))
	}
	c.WithholdAcks("dev")
	r.tick(time.Now().Add(10 * time.Second))
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	pause(50 * time.Millisecond)
	if got := c.Received(); len(got) != 1 || !bytes.Equal(got[0].Payload, []byte("m0")) {
		t.Fatalf("not alone: %d were sent", len(got))
	}
	c.ReleaseAcks("dev")
	r.settled(3)
}
