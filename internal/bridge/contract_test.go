package bridge

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/cloudsim"
	"bridged/internal/testdevice"
	"bridged/internal/upstream"
)

// short is how long a thing that must not happen is given to happen.
const short = 150 * time.Millisecond

// Line 1, upwards: the device's acknowledgement comes after the cloud's, not before.
func TestAcknowledgedUpOnlyByTheCloud(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			r, c := generic(t, "")
			d := r.connect(dev)
			c.WithholdAcks("dev")
			id := d.Publish("a/b", []byte("x"), qos)
			if _, err := c.WaitReceived(within(t), 1); err != nil {
				t.Fatal(err)
			}
			d.Quiet(short)
			c.ReleaseAcks("dev")
			if qos == 1 {
				if ack := testdevice.Expect[*packets.PubackPacket](d); ack.MessageID != id {
					t.Errorf("PUBACK %d, want %d", ack.MessageID, id)
				}
				return
			}
			if rec := testdevice.Expect[*packets.PubrecPacket](d); rec.MessageID != id {
				t.Errorf("PUBREC %d, want %d", rec.MessageID, id)
			}
			d.Ack(packets.Pubrel, id)
			testdevice.Expect[*packets.PubcompPacket](d)
		})
	}
}

// Line 1, downwards: the cloud's message is acknowledged when the device has acknowledged it.
func TestAcknowledgedDownOnlyByTheDevice(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			r, c := generic(t, "")
			d := r.connect(dev)
			if codes := d.Subscribe(2, "down"); codes[0] != 2 {
				t.Fatalf("SUBACK %v", codes)
			}
			if err := c.Publish("dev", "down", []byte("x"), qos); err != nil {
				t.Fatal(err)
			}
			p := testdevice.Expect[*packets.PublishPacket](d)
			if p.Qos != qos || string(p.Payload) != "x" || p.Dup {
				t.Errorf("got %v", p)
			}
			d.Quiet(short)
			if acked := c.Acked(); len(acked) != 0 {
				t.Fatalf("acknowledged before the device did: %v", acked)
			}
			if qos == 1 {
				d.Ack(packets.Puback, p.MessageID)
			} else {
				d.Ack(packets.Pubrec, p.MessageID)
				testdevice.Expect[*packets.PubrelPacket](d)
				d.Ack(packets.Pubcomp, p.MessageID)
			}
			if _, err := c.WaitAcked(within(t), 1); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Lines 1 and 3: while the cloud is away everything is stored, then acknowledged, and goes out in order later.
func TestStoredWhileTheCloudIsAway(t *testing.T) {
	r, c := generic(t, "")
	d := r.connect(dev)
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	c.Down()
	until(t, "a failure", func() bool { return r.status("dev").Session.Failures > 0 })
	const n = 100
	for i := range n {
		d.Publish("t", []byte(fmt.Sprint(i)), 1)
	}
	for i := range n {
		if ack := testdevice.Expect[*packets.PubackPacket](d); int(ack.MessageID) != i+1 {
			t.Fatalf("PUBACK %d, want %d", ack.MessageID, i+1)
		}
	}
	if st := r.status("dev"); st.Up.Stored != n {
		t.Fatalf("acknowledged with %d of %d on disk", st.Up.Stored, n)
	}
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	got, err := c.WaitReceived(within(t), n)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range got {
		if string(m.Payload) != fmt.Sprint(i) || m.Dup {
			t.Fatalf("message %d is %q, DUP %v", i, m.Payload, m.Dup)
		}
	}
}

// Lines 3 and 4: resends begin with the oldest unacknowledged message, carry DUP, and nothing that was acknowledged is
// sent again.
func TestResendAfterReconnect(t *testing.T) {
	r, c := generic(t, "")
	d := r.connect(dev)
	d.Publish("t", []byte("acknowledged"), 1)
	testdevice.Expect[*packets.PubackPacket](d)
	c.WithholdAcks("dev")
	for i := range 3 {
		d.Publish("t", []byte(fmt.Sprint(i)), 1)
	}
	if _, err := c.WaitReceived(within(t), 4); err != nil {
		t.Fatal(err)
	}
	c.Drop("dev", cloudsim.CutReset)
	c.Heal() // not before: it sends what was withheld
	for range 3 {
		testdevice.Expect[*packets.PubackPacket](d)
	}
	got, err := c.WaitReceived(within(t), 7)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 7 {
		t.Fatalf("%d messages, want 1 + 3 + 3 again: %v", len(got), got)
	}
	for i, m := range got[4:] {
		if string(m.Payload) != fmt.Sprint(i) || !m.Dup {
			t.Errorf("resent %d is %q, DUP %v", i, m.Payload, m.Dup)
		}
	}
}

// Line 4: towards the device QoS 2 is exactly once, also when either connection breaks in between.
func TestExactlyOnceDown(t *testing.T) {
	r, c := generic(t, "")
	persist := dev
	persist.Persist = true
	d := r.connect(persist)
	d.Subscribe(2, "down")
	if err := c.Publish("dev", "down", []byte("x"), 2); err != nil {
		t.Fatal(err)
	}
	first := testdevice.Expect[*packets.PublishPacket](d)
	c.Drop("dev", cloudsim.CutReset) // the cloud will send it again
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	until(t, "a second session", func() bool { return r.status("dev").Session.Connects == 2 })
	d.Ack(packets.Pubrec, first.MessageID)
	testdevice.Expect[*packets.PubrelPacket](d)
	d.Drop() // PUBCOMP is not sent

	d = testdevice.Dial(t, r.addr())
	ack := d.Login(persist)
	if !ack.SessionPresent {
		t.Error("session present is not set")
	}
	if rel := testdevice.Expect[*packets.PubrelPacket](d); rel.MessageID != first.MessageID {
		t.Errorf("PUBREL %d, want %d", rel.MessageID, first.MessageID)
	}
	d.Ack(packets.Pubcomp, first.MessageID)
	if _, err := c.WaitAcked(within(t), 1); err != nil {
		t.Fatal(err)
	}
	d.Quiet(short)
}

// A QoS 2 message that the device repeats before PUBREL reaches the cloud once, also across reconnects.
func TestExactlyOnceUp(t *testing.T) {
	r, c := generic(t, "")
	persist := dev
	persist.Persist = true
	d := r.connect(persist)
	c.WithholdAcks("dev")
	p := d.NewPublish("t", []byte("x"), 2)
	d.Send(p)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	d.Drop()
	d = r.connect(persist)
	p.Dup = true
	d.Send(p)
	d.Quiet(short)
	c.ReleaseAcks("dev")
	testdevice.Expect[*packets.PubrecPacket](d)
	d.Send(p)
	testdevice.Expect[*packets.PubrecPacket](d)
	d.Ack(packets.Pubrel, p.MessageID)
	testdevice.Expect[*packets.PubcompPacket](d)
	if st := r.status("dev"); st.Up.Accepted != 1 || st.Up.Delivered != 1 {
		t.Errorf("accepted %d, delivered %d, want 1 and 1", st.Up.Accepted, st.Up.Delivered)
	}
}

// Line 7: devices with the same subscription each get their own session's copy, and only that.
func TestIsolation(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	r := run(t, fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s"}
devices:
  - {name: a, cloud: lab, login: {password: pa, username: a}}
  - {name: b, cloud: lab, login: {password: pb, username: b}}
`, c.WSURL()))
	a := r.connect(testdevice.Options{ClientID: "a", Username: "a", Password: "pa"})
	b := r.connect(testdevice.Options{ClientID: "b", Username: "b", Password: "pb"})
	a.Subscribe(1, "same/#")
	b.Subscribe(1, "same/#")

	if err := c.Publish("a", "same/x", []byte("for a"), 1); err != nil {
		t.Fatal(err)
	}
	if p := testdevice.Expect[*packets.PublishPacket](a); string(p.Payload) != "for a" {
		t.Errorf("a got %q", p.Payload)
	}
	b.Quiet(short)

	// What a publishes comes to b by way of the cloud, once; locally nothing is passed on.
	a.Publish("same/y", []byte("from a"), 0)
	for name, d := range map[string]*testdevice.Device{"a": a, "b": b} {
		if p := testdevice.Expect[*packets.PublishPacket](d); string(p.Payload) != "from a" {
			t.Errorf("%s got %q", name, p.Payload)
		}
		d.Quiet(short)
	}
	for _, m := range c.Received() {
		if m.Device != "a" {
			t.Errorf("the cloud received %q from %s", m.Payload, m.Device)
		}
	}

	// A device cannot log in as another.
	for _, o := range []testdevice.Options{
		{ClientID: "b", Username: "a", Password: "pa"},
		{ClientID: "a", Username: "b", Password: "pb"},
		{ClientID: "b", Username: "b", Password: "pa"},
		{ClientID: "b"},
	} {
		if ack := testdevice.Dial(t, r.addr()).Login(o); ack.ReturnCode == 0 {
			t.Errorf("%+v was let in", o)
		}
	}
	b.Publish("still/me", nil, 1)
	testdevice.Expect[*packets.PubackPacket](b)
}

// Line 8: what came down does not go up again, nor the reverse.
func TestNoLoops(t *testing.T) {
	c := simulate(t, cloudsim.Options{
		Kind: cloudsim.Tencent, NoWSS: true, Product: "P",
		Devices: []cloudsim.Device{{Name: "dev", Secret: "c2VjcmV0"}},
	})
	r := run(t, fmt.Sprintf(`
clouds:
  gz: {provider: tencent, url: "%s", product_id: P}
devices:
  - {name: dev, cloud: gz, login: {username: u, password: p}, device_secret: c2VjcmV0}
`, c.WSURL()))
	d := r.connect(dev)
	d.Subscribe(1, "P/dev/#", "#") // also its own uplink topics
	if err := c.Publish("dev", "P/dev/control", []byte("down"), 1); err != nil {
		t.Fatal(err)
	}
	p := testdevice.Expect[*packets.PublishPacket](d)
	d.Ack(packets.Puback, p.MessageID)
	d.Publish("P/dev/event", []byte("up"), 1)
	testdevice.Expect[*packets.PubackPacket](d)
	d.Quiet(short)
	if got := c.Received(); len(got) != 1 || string(got[0].Payload) != "up" {
		t.Errorf("the cloud received %v", got)
	}
	if v := c.Violations(); len(v) != 0 {
		t.Errorf("violations: %v", v)
	}
}

// Line 9: the cloud sees the device come and go, and its clean session flag.
func TestPresenceIsMirrored(t *testing.T) {
	r, c := generic(t, "    linger: 0s\n")
	if c.Online("dev") {
		t.Fatal("online without the device")
	}
	d := r.connect(dev)
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	until(t, "online", func() bool { return r.status("dev").Session.State == upstream.Online })
	d.Disconnect()
	if err := c.WaitOffline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	persist := dev
	persist.Persist = true
	r.connect(persist)
	until(t, "a second connection", func() bool { return len(c.Connections("dev")) == 2 })
	conns := c.Connections("dev")
	if !conns[0].Clean || conns[0].Reason != cloudsim.EndDisconnect || conns[1].Clean {
		t.Errorf("connections %+v", conns)
	}
}

// Line 9: the session outlives the device until its backlog is delivered, and for linger after that.
func TestBacklogThenLinger(t *testing.T) {
	r, c := generic(t, "    linger: 1s\n")
	d := r.connect(dev)
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	c.WithholdAcks("dev")
	d.Publish("t", []byte("x"), 1)
	if _, err := c.WaitReceived(within(t), 1); err != nil {
		t.Fatal(err)
	}
	d.Disconnect()
	until(t, "draining", func() bool { return r.status("dev").Session.State == upstream.Draining })
	since := time.Now()
	until(t, "longer than linger", func() bool { return time.Since(since) > 2*time.Second })
	if !c.Online("dev") {
		t.Fatal("the session ended before the backlog was delivered")
	}
	c.ReleaseAcks("dev")
	if err := c.WaitOffline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	until(t, "idle", func() bool { return r.status("dev").Session.State == upstream.Idle })
}

// Line 9: a device that is back within linger finds its session, without the subscriptions of its clean session.
func TestBackWithinLinger(t *testing.T) {
	r, c := generic(t, "    linger: 60s\n")
	d := r.connect(dev)
	d.Subscribe(1, "old")
	d.Disconnect()
	if err := c.WaitUnsubscribed(within(t), "dev", "old"); err != nil {
		t.Fatal(err)
	}
	d = r.connect(dev)
	d.Publish("t", []byte("x"), 1)
	testdevice.Expect[*packets.PubackPacket](d)
	if n := len(c.Connections("dev")); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// Line 9: always keeps the session up; persistent keeps the cloud's queue for a device that connects clean.
func TestAlwaysAndPersistent(t *testing.T) {
	r, c := generic(t, "    upstream: always\n    session: persistent\n    subscribe: [{filter: cmd/#, qos: 1}]\n")
	if err := c.WaitSubscribed(within(t), "dev", "cmd/#"); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish("dev", "cmd/1", []byte("early"), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitAcked(within(t), 1); err != nil {
		t.Fatal(err)
	}
	if st := r.status("dev"); st.Down.Stored != 1 {
		t.Fatal("acknowledged without the device, and not on disk")
	}
	d := r.connect(dev)
	p := testdevice.Expect[*packets.PublishPacket](d)
	if string(p.Payload) != "early" {
		t.Errorf("got %q", p.Payload)
	}
	d.Ack(packets.Puback, p.MessageID)
	until(t, "an empty queue", func() bool { return r.status("dev").Down.Queued == 0 })
	if conns := c.Connections("dev"); len(conns) != 1 || conns[0].Clean {
		t.Errorf("connections %+v", conns)
	}
}

// Line 10: SUBACK carries the cloud's verdict while it is reachable.
func TestSubackIsTheClouds(t *testing.T) {
	r, c := generic(t, "")
	c.RefuseFilter("dev", "forbidden/#")
	d := r.connect(dev)
	if codes := d.Subscribe(1, "forbidden/#", "ok"); codes[0] != 0x80 || codes[1] != 1 {
		t.Errorf("SUBACK %v, want [128 1]", codes)
	}
	c.WithholdSubacks("dev")
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics, p.Qoss = d.ID(), []string{"later"}, []byte{0}
	d.Send(p)
	d.Quiet(short)
	c.ReleaseSubacks("dev")
	testdevice.Expect[*packets.SubackPacket](d)
	d.Unsubscribe("ok")
	if err := c.WaitUnsubscribed(within(t), "dev", "ok"); err != nil {
		t.Fatal(err)
	}
}

// Line 10: while the cloud is away a filter is granted here and subscribed on connect; a later refusal is made known.
func TestSubscribeWhileTheCloudIsAway(t *testing.T) {
	r, c := generic(t, "")
	c.RefuseFilter("dev", "forbidden/#")
	c.Down()
	d := r.connect(dev)
	until(t, "a failure", func() bool { return r.status("dev").Session.Failures > 0 })
	if codes := d.Subscribe(1, "forbidden/#", "ok"); codes[0] != 1 || codes[1] != 1 {
		t.Errorf("SUBACK %v, want [1 1]", codes)
	}
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitSubscribed(within(t), "dev", "ok"); err != nil {
		t.Fatal(err)
	}
	until(t, "the late refusal", func() bool { return r.status("dev").Session.LateRefusals == 1 })
	if got := r.status("dev").Session.Refused; len(got) != 1 || got[0] != "forbidden/#" {
		t.Errorf("refused %v", got)
	}
	if !strings.Contains(strings.Join(r.warnings(), "\n"), "forbidden/#") {
		t.Error("the refusal is not in the log")
	}
}

// Line 10: the subscriptions of a session are made again when the cloud has lost it.
func TestResubscribe(t *testing.T) {
	r, c := generic(t, "")
	d := r.connect(dev)
	d.Subscribe(1, "a", "b/#")
	d.Unsubscribe("a")
	c.Drop("dev", cloudsim.CutReset)
	if err := c.WaitSubscribed(within(t), "dev", "b/#"); err != nil {
		t.Fatal(err)
	}
	s, _ := c.Session("dev")
	if _, ok := s.Subs["a"]; ok {
		t.Error("subscribed to what the device has unsubscribed from")
	}
}

func will(retain bool) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.Retain = "will", []byte("gone"), 1, retain
	return p
}

// wills counts the wills that arrived, whoever sent them.
func wills(c *cloudsim.Cloud) (n int) {
	for _, m := range c.Received() {
		if m.Topic == "will" {
			n++
		}
	}
	return n
}

// Line 11: the will is delivered once, by whichever way, and not if the device said goodbye.
func TestWill(t *testing.T) {
	withWill := dev
	withWill.Will = will(true)
	cases := []struct {
		name string
		do   func(t *testing.T, r *rig, c *cloudsim.Cloud, d *testdevice.Device)
		want int
	}{
		{"goodbye", func(t *testing.T, _ *rig, _ *cloudsim.Cloud, d *testdevice.Device) { d.Disconnect() }, 0},
		{"drop", func(t *testing.T, _ *rig, _ *cloudsim.Cloud, d *testdevice.Device) { d.Drop() }, 1},
		{"both connections break, the cloud's first", cloudBreaksFirst, 1},
		{"take-over", func(t *testing.T, r *rig, _ *cloudsim.Cloud, _ *testdevice.Device) {
			r.connect(dev).Disconnect()
		}, 1},
		{"the bridge stops", func(t *testing.T, r *rig, _ *cloudsim.Cloud, _ *testdevice.Device) { r.stop() }, 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r, c := generic(t, "    linger: 0s\n")
			d := r.connect(withWill)
			d.Publish("before", []byte("x"), 1)
			testdevice.Expect[*packets.PubackPacket](d)
			tc.do(t, r, c, d)
			if err := c.WaitOffline(within(t), "dev"); err != nil {
				t.Fatal(err)
			}
			if tc.want > 0 {
				until(t, "the will", func() bool { return wills(c) > 0 })
			}
			r.stop() // a second one had every chance
			if n := wills(c); n != tc.want {
				t.Errorf("%d wills, want %d", n, tc.want)
			}
		})
	}
}

func cloudBreaksFirst(t *testing.T, r *rig, c *cloudsim.Cloud, d *testdevice.Device) {
	c.Down()
	until(t, "a failure", func() bool { return r.status("dev").Session.Failures > 1 })
	d.Drop()
	until(t, "the device to be away", func() bool { return !r.status("dev").Session.Device })
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	again := r.connect(dev) // what is in the lane goes out, before its message
	again.Publish("after", []byte("x"), 1)
	testdevice.Expect[*packets.PubackPacket](again)
	again.Disconnect()
}

// Line 11: a cloud without wills gets it as an ordinary message, behind what the device sent before.
func TestWillIsPublishedForCloudsWithout(t *testing.T) {
	c := simulate(t, cloudsim.Options{
		Kind: cloudsim.Aliyun, NoWSS: true, Product: "pk", Devices: []cloudsim.Device{{Name: "dev", Secret: "s"}},
	})
	r := run(t, fmt.Sprintf(`
clouds:
  sh: {provider: aliyun, url: "%s", product_key: pk}
devices:
  - {name: dev, cloud: sh, login: {username: u, password: p}, device_secret: s, linger: 0s}
`, c.WSURL()))
	withWill := dev
	withWill.Will = will(true)
	d := r.connect(withWill)
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	c.Delay("dev", 50*time.Millisecond)
	for i := range 3 {
		d.Publish("t", []byte(fmt.Sprint(i)), 2)
	}
	until(t, "three messages", func() bool { return r.status("dev").Up.Accepted == 3 })
	d.Drop()
	if _, err := c.WaitReceived(within(t), 4); err != nil {
		t.Fatal(err)
	}
	got := c.Received()
	for i, m := range got {
		if m.QoS > 1 || m.Retain {
			t.Errorf("QoS %d, retain %v", m.QoS, m.Retain)
		}
		if want := []string{"0", "1", "2", "gone"}[i]; string(m.Payload) != want {
			t.Errorf("message %d is %q, want %q", i, m.Payload, want)
		}
	}
	if v := c.Violations(); len(v) != 0 {
		t.Errorf("violations: %v", v)
	}
	st := r.status("dev").Session
	if st.Lowered != 3 || st.Stripped != 1 {
		t.Errorf("lowered %d, stripped %d, want 3 and 1", st.Lowered, st.Stripped)
	}
}

// Line 12: retained messages come with their flag, also when subscribing again.
func TestRetained(t *testing.T) {
	r, c := generic(t, "")
	d := r.connect(dev)
	p := d.NewPublish("state", []byte("on"), 1)
	p.Retain = true
	d.Send(p)
	testdevice.Expect[*packets.PubackPacket](d)
	for range 2 {
		d.Subscribe(1, "state")
		m := testdevice.Expect[*packets.PublishPacket](d)
		if !m.Retain || string(m.Payload) != "on" {
			t.Errorf("got %v", m)
		}
		d.Ack(packets.Puback, m.MessageID)
	}
	if st := r.status("dev").Session; st.Stripped != 0 || st.Lowered != 0 {
		t.Errorf("stripped %d, lowered %d", st.Stripped, st.Lowered)
	}
	if _, err := c.WaitAcked(within(t), 2); err != nil {
		t.Fatal(err)
	}
}

// Line 12: a persistent session's messages wait for the device, in the cloud when the session has ended there.
func TestQueuedDuringAbsence(t *testing.T) {
	r, c := generic(t, "    linger: 0s\n")
	persist := dev
	persist.Persist = true
	d := r.connect(persist)
	d.Subscribe(1, "down")
	d.Disconnect()
	if err := c.WaitOffline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := c.Publish("dev", "down", []byte(fmt.Sprint(i)), 1); err != nil {
			t.Fatal(err)
		}
	}
	d = testdevice.Dial(t, r.addr())
	if ack := d.Login(persist); !ack.SessionPresent {
		t.Error("session present is not set")
	}
	for i := range 3 {
		m := testdevice.Expect[*packets.PublishPacket](d)
		if string(m.Payload) != fmt.Sprint(i) {
			t.Errorf("message %d is %q", i, m.Payload)
		}
		d.Ack(packets.Puback, m.MessageID)
	}
	if _, err := c.WaitAcked(within(t), 3); err != nil {
		t.Fatal(err)
	}
	// A clean session forgets.
	d.Disconnect()
	d = testdevice.Dial(t, r.addr())
	if ack := d.Login(dev); ack.SessionPresent {
		t.Error("session present is set for a clean session")
	}
}

// publishMuch sends more than fits anywhere, and sees that the connection is served all the same.
func publishMuch(d *testdevice.Device) {
	payload := make([]byte, 200<<10)
	for range 30 {
		d.Publish("t", payload, 0)
		d.Publish("t", payload[:100], 1)
	}
	d.Send(packets.NewControlPacket(packets.Pingreq))
	for {
		if _, ok := d.Next(testdevice.Patience).(*packets.PingrespPacket); ok {
			return
		}
	}
}

func inState(t *testing.T, r *rig, device string, s upstream.State) {
	t.Helper()
	until(t, device+": "+string(s), func() bool { return r.status(device).Session.State == s })
}

// Line 13: a cloud that does not answer delays nobody else, nor its own device's CONNECT.
func TestNothingUpstreamBlocksTheLAN(t *testing.T) {
	good := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	hole, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hole.Close() }()
	stuck := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	r := run(t, fmt.Sprintf(`
shutdown_timeout: 1s
clouds:
  good: {provider: generic, url: "%s"}
  hole: {provider: generic, url: "ws://%s"}
  nameless: {provider: generic, url: "ws://does-not-exist.invalid"}
  stuck: {provider: generic, url: "%s"}
devices:
  - {name: good, cloud: good}
  - {name: hole, cloud: hole}
  - {name: nameless, cloud: nameless}
  - {name: stuck, cloud: stuck}
`, good.WSURL(), hole.Addr(), stuck.WSURL()))
	for _, name := range []string{"hole", "nameless", "stuck"} {
		d := r.connect(testdevice.Options{ClientID: name})
		switch name {
		case "hole":
			inState(t, r, name, upstream.Dialing)
			d.Drop()
			d = r.connect(testdevice.Options{ClientID: name}) // while its dial hangs
			inState(t, r, name, upstream.Dialing)
		case "stuck":
			if err := stuck.WaitOnline(within(t), name); err != nil {
				t.Fatal(err)
			}
			stuck.StallReads(name, true)
		}
		publishMuch(d)
		if name == "stuck" {
			d.Drop()
			publishMuch(r.connect(testdevice.Options{ClientID: name})) // while nothing moves upstream
		}
	}
	d := r.connect(testdevice.Options{ClientID: "good"})
	for range 50 {
		d.Publish("t", []byte("x"), 1)
		testdevice.Expect[*packets.PubackPacket](d)
	}
}
