package cloudsim

import (
	"fmt"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"
)

func TestUpAllQoS(t *testing.T) {
	bothWays(t, func(t *testing.T, c *Cloud, url string) {
		d := newDevice(t, c, url, "d", nil)
		d.connect(t)
		for qos := range byte(3) {
			d.publish(t, "up/"+fmt.Sprint(qos), fmt.Sprint("m", qos), qos, false)
		}
		got, err := c.WaitReceived(ctx(t), 3)
		must(t, err)
		for i, r := range got {
			if r.Device != "d" || r.Topic != fmt.Sprint("up/", i) || string(r.Payload) != fmt.Sprint("m", i) ||
				int(r.QoS) != i || r.Dup || r.Redelivery || r.Retain || r.Time.IsZero() {
				t.Errorf("message %d: %+v", i, r)
			}
		}
		noViolations(t, c)
	})
}

func TestDownAllQoS(t *testing.T) {
	bothWays(t, func(t *testing.T, c *Cloud, url string) {
		d := newDevice(t, c, url, "d", nil)
		d.connect(t)
		if g := d.subscribe(t, "down/#", 2); g != 2 {
			t.Fatalf("granted %d", g)
		}
		if g := d.subscribe(t, "low/#", 0); g != 0 {
			t.Fatalf("granted %d", g)
		}
		must(t, c.WaitSubscribed(ctx(t), "d", "low/#"))
		for qos := range byte(3) {
			must(t, c.Publish("d", "down/x", fmt.Append(nil, "m", qos), qos))
		}
		must(t, c.Publish("d", "low/x", []byte("m"), 2))
		d.expect(t, "down/x=m0 0", "down/x=m1 1", "down/x=m2 2", "low/x=m 0")
		acks, err := c.WaitAcked(ctx(t), 2)
		must(t, err)
		if len(acks) != 2 || string(acks[0].Payload) != "m1" || string(acks[1].Payload) != "m2" || acks[1].QoS != 2 {
			t.Errorf("acknowledged: %+v", acks)
		}
		wait(t, c, "nothing in flight", func() bool {
			s, _ := c.Session("d")
			return len(s.Unacked) == 0 && s.Queued == 0
		})
		noViolations(t, c)
	})
}

func TestDeviceToDevice(t *testing.T) {
	bothWays(t, func(t *testing.T, c *Cloud, url string) {
		a, b := newDevice(t, c, url, "a", nil), newDevice(t, c, url, "b", nil)
		a.connect(t)
		b.connect(t)
		b.subscribe(t, "t/+", 1)
		a.subscribe(t, "t/own", 2)
		a.publish(t, "t/own", "1", 2, false)
		a.publish(t, "t/deep/er", "2", 1, false)
		a.publish(t, "t/b", "3", 0, false)
		b.expect(t, "t/own=1 1", "t/b=3 0")
		a.expect(t, "t/own=1 2")
		noViolations(t, c)
	})
}

func TestFilters(t *testing.T) {
	c := generic(t)
	d := newDevice(t, c, c.WSURL(), "d", nil)
	d.connect(t)
	// Overlapping filters: one copy at the highest QoS. $ topics: not by a leading wildcard.
	for filter, qos := range map[string]byte{"a/#": 0, "a/b": 2, "+/b": 1, "#": 0, "$SYS/x": 0, "+/x": 1} {
		d.subscribe(t, filter, qos)
	}
	for _, topic := range []string{"a/b", "a", "c/b", "$SYS/x", "$SYS/y", "end"} {
		if _, err := c.PublishAll(topic, []byte("m"), 2, false); err != nil {
			t.Fatal(err)
		}
	}
	d.expect(t, "a/b=m 2", "a=m 0", "c/b=m 1", "$SYS/x=m 0", "end=m 0")
}

func TestUnsubscribe(t *testing.T) {
	c := generic(t)
	d := newDevice(t, c, c.WSURL(), "d", nil)
	d.connect(t)
	d.subscribe(t, "a", 1)
	d.subscribe(t, "b", 1)
	done(t, d.Unsubscribe("a"))
	must(t, c.WaitUnsubscribed(ctx(t), "d", "a"))
	for topic, want := range map[string]int{"a": 0, "b": 1} {
		if n := value(c.PublishAll(topic, []byte("m"), 1, false))(t); n != want {
			t.Errorf("%s went to %d sessions, want %d", topic, n, want)
		}
	}
	d.expect(t, "b=m 1")
}

func TestRetained(t *testing.T) {
	bothWays(t, func(t *testing.T, c *Cloud, url string) {
		a, b := newDevice(t, c, url, "a", nil), newDevice(t, c, url, "b", nil)
		a.connect(t)
		b.connect(t)
		b.subscribe(t, "live", 1)
		a.publish(t, "live", "1", 1, true)
		a.publish(t, "gone", "2", 1, true)
		a.publish(t, "gone", "", 1, true)
		value(c.PublishAll("app", []byte("3"), 2, true))(t)
		b.expect(t, "live=1 1") // to a subscription that was there: without the flag
		b.forget()
		b.subscribe(t, "+", 1)
		b.expect(t, "app=3 1 retained", "live=1 1 retained")
		if p, ok := c.Retained("live"); !ok || string(p) != "1" {
			t.Errorf("retained %q, %t", p, ok)
		}
		if _, ok := c.Retained("gone"); ok {
			t.Error("an empty payload did not remove the message")
		}
		if got := c.Received(); !got[0].Retain {
			t.Error("the flag was not recorded")
		}
	})
}

func TestWill(t *testing.T) {
	bothWays(t, func(t *testing.T, c *Cloud, url string) {
		watcher := newDevice(t, c, url, "watcher", nil)
		watcher.connect(t)
		watcher.subscribe(t, "will/#", 1)
		will := func(o *paho.ClientOptions) { o.SetWill("will/d", "dead", 1, true) }

		polite := newDevice(t, c, url, "d", will)
		polite.connect(t)
		polite.Disconnect(100)
		must(t, c.WaitOffline(ctx(t), "d"))
		if c.Connections("d")[0].Reason != EndDisconnect {
			t.Errorf("reason %q", c.Connections("d")[0].Reason)
		}

		newDevice(t, c, url, "d", will).connect(t)
		if n := c.Drop("d", CutReset); n != 1 {
			t.Fatalf("cut %d connections", n)
		}
		watcher.expect(t, "will/d=dead 1")
		got := c.ReceivedFrom("d")
		if len(got) != 1 || !got[0].Will || !got[0].Retain {
			t.Errorf("received %+v", got)
		}
		if p, ok := c.Retained("will/d"); !ok || string(p) != "dead" {
			t.Errorf("retained %q", p)
		}
	})
}

// A clean session leaves nothing behind: its subscriptions take no messages.
func TestCleanSessionEnds(t *testing.T) {
	c := generic(t)
	online(t, c, "d", true).subscribe("x/#", 1)
	online(t, c, "e", true).subscribe("y", 1)
	c.Drop("d", CutReset)
	online(t, c, "e", false) // takes over, and discards
	for _, topic := range []string{"x/1", "y"} {
		if n := value(c.PublishAll(topic, nil, 1, false))(t); n != 0 {
			t.Errorf("%d sessions took %s", n, topic)
		}
	}
}

func persistent(o *paho.ClientOptions) { o.SetCleanSession(false).SetResumeSubs(false) }

func TestPersistentSession(t *testing.T) {
	bothWays(t, func(t *testing.T, c *Cloud, url string) {
		d := newDevice(t, c, url, "d", persistent)
		if d.connect(t).SessionPresent() {
			t.Fatal("a session was present")
		}
		d.subscribe(t, "q/#", 2)
		d.Disconnect(100)
		must(t, c.WaitOffline(ctx(t), "d"))
		for qos := range byte(3) {
			err := c.Publish("d", "q/x", fmt.Append(nil, "m", qos), qos)
			if (err != nil) != (qos == 0) {
				t.Fatalf("QoS %d: %v", qos, err)
			}
		}
		again := newDevice(t, c, url, "d", persistent)
		if !again.connect(t).SessionPresent() {
			t.Fatal("no session was present")
		}
		again.expect(t, "q/x=m1 1", "q/x=m2 2")
		again.Disconnect(100)
		must(t, c.WaitOffline(ctx(t), "d"))

		clean := newDevice(t, c, url, "d", nil)
		if clean.connect(t).SessionPresent() {
			t.Fatal("a clean session was present")
		}
		if s, _ := c.Session("d"); len(s.Subs) != 0 || !s.Clean {
			t.Fatalf("session %+v", s)
		}
		clean.Disconnect(100)
		must(t, c.WaitOffline(ctx(t), "d"))
		if _, ok := c.Session("d"); ok {
			t.Fatal("a clean session outlived its connection")
		}
		noViolations(t, c)
	})
}

func TestTakeOver(t *testing.T) {
	c := generic(t)
	lost := make(chan struct{}, 1)
	first := newDevice(t, c, c.WSURL(), "d", func(o *paho.ClientOptions) {
		persistent(o)
		o.SetConnectionLostHandler(func(paho.Client, error) { lost <- struct{}{} })
	})
	first.connect(t)
	first.subscribe(t, "x", 1)
	second := newDevice(t, c, c.WSSURL(), "d", persistent) // one set of sessions behind both listeners
	if !second.connect(t).SessionPresent() {
		t.Fatal("no session was present")
	}
	select {
	case <-lost:
	case <-ctx(t).Done():
		t.Fatal("the first connection lives")
	}
	must(t, c.Publish("d", "x", []byte("m"), 1))
	second.expect(t, "x=m 1")
	log := c.Connections("d")
	if len(log) != 2 || log[0].Reason != EndTakenOver || log[1].Reason != "" || !log[1].Secure {
		t.Fatalf("connections %+v", log)
	}
}

func TestErrorsOfPublish(t *testing.T) {
	c := generic(t)
	online(t, c, "d", true).subscribe("a", 1)
	for _, tt := range []struct {
		device, topic string
		qos           byte
		want          error
	}{
		{"d", "a", 1, nil},
		{"nobody", "a", 1, ErrNoSession},
		{"d", "b", 1, ErrNotSubscribed},
		{"d", "a/+", 1, ErrBadMessage},
		{"d", "", 1, ErrBadMessage},
		{"d", "a", 3, ErrBadMessage},
	} {
		if err := c.Publish(tt.device, tt.topic, nil, tt.qos); !isErr(err, tt.want) {
			t.Errorf("%s %q %d: %v, want %v", tt.device, tt.topic, tt.qos, err, tt.want)
		}
	}
}

func TestSessionsSnapshot(t *testing.T) {
	c := generic(t)
	online(t, c, "b", true)
	a := online(t, c, "a", false)
	a.subscribe("x", 1)
	must(t, c.Publish("a", "x", []byte("1"), 1))
	a.expectPublish("1 x=1 1")
	list := c.Sessions()
	if len(list) != 2 || list[0].Device != "a" || list[1].Device != "b" {
		t.Fatalf("sessions %+v", list)
	}
	s := list[0]
	if !s.Connected || s.Clean || s.Subs["x"] != 1 || len(s.Unacked) != 1 || string(s.Unacked[0].Payload) != "1" {
		t.Errorf("session %+v", s)
	}
	if n := c.Totals(); n.Connects != 2 || n.Sent != 1 || n.Acked != 0 {
		t.Errorf("totals %+v", n)
	}
	if len(c.Acked()) != 0 {
		t.Errorf("acknowledged %+v", c.Acked())
	}
}
