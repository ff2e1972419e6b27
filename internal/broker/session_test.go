package broker

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// session returns a device's session.
func (r *rig) session(name string) *session {
	d := r.b.devices[name]
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.session
}

func TestSessionPresent(t *testing.T) {
	type changes = []func(*packets.Packet)
	clean := func(*packets.Packet) {}
	fresh := func(pk *packets.Packet) { expiry(100)(pk); pk.Connect.Clean = true }
	for name, test := range map[string]struct {
		version byte
		connect changes
		want    []bool
		events  []string
		asked   mqtt.Connect // of the last
	}{
		"3.1.1 clean": {4, changes{clean, clean}, []bool{false, false}, nil, mqtt.Connect{Clean: true}},
		"3.1.1 kept":  {4, changes{persistent, persistent}, []bool{false, true}, nil, mqtt.Connect{Expiry: mqtt.Forever}},
		"3.1.1 cleaned": {4, changes{persistent, clean, persistent}, []bool{false, false, false}, nil,
			mqtt.Connect{Expiry: mqtt.Forever}},
		"5 kept":  {5, changes{expiry(100), expiry(100)}, []bool{false, true}, nil, mqtt.Connect{Expiry: 100}},
		"5 fresh": {5, changes{expiry(100), fresh}, []bool{false, false}, nil, mqtt.Connect{Reset: true, Expiry: 100}},
		"5 resumed to end": {5, changes{expiry(100), expiry(0), expiry(100)}, []bool{false, true, false},
			[]string{"connected", "disconnected true", "connected", "disconnected true", "session ended", "connected"},
			mqtt.Connect{Expiry: 100}},
		"5 none":   {5, changes{expiry(0), expiry(100)}, []bool{false, false}, nil, mqtt.Connect{Expiry: 100}},
		"5 to end": {5, changes{expiry(100), expiry(0)}, []bool{false, true}, nil, mqtt.Connect{}},
	} {
		t.Run(name, func(t *testing.T) {
			r, cl := one(t)
			for i, change := range test.connect {
				c, ack := r.connect(test.version, "dev", change)
				if ack.SessionPresent != test.want[i] {
					t.Errorf("CONNECT %d: session present %v", i, ack.SessionPresent)
				}
				if i < len(test.connect)-1 {
					n := len(cl.log())
					c.disconnect()
					until(t, "disconnected", func() bool { return len(cl.log()) > n && !r.present("dev") })
				}
			}
			if test.events != nil {
				cl.expect(test.events...)
			}
			if got := cl.asked(); got != test.asked {
				t.Errorf("asked for %+v, want %+v", got, test.asked)
			}
		})
	}
}

func (r *rig) present(name string) bool {
	st, ok := r.b.DeviceStatus(name)
	if !ok {
		r.tb.Fatalf("no device %s", name)
	}
	return st.Connected
}

// A kept session's messages are discarded when the device comes back clean.
func TestCleanDiscards(t *testing.T) {
	r, cl := one(t)
	c, _ := r.connect(4, "dev", persistent)
	c.disconnect()
	cl.expect("connected", "disconnected true")
	cl.send("t", "m", 1)
	if n := cl.down.Counters(); n.Queued != 1 {
		t.Fatalf("%d queued", n.Queued)
	}
	c, _ = r.connect(4, "dev")
	c.quiet()
	if n := cl.down.Counters(); n.Dropped[lane.SessionEnded] != 1 {
		t.Errorf("dropped %v", n.Dropped)
	}
}

func TestSessionExpiry(t *testing.T) {
	t.Parallel()
	r, cl := one(t)
	c, _ := r.connect(5, "dev", expiry(1))
	c.disconnect()
	cl.expect("connected", "disconnected true")
	cl.send("t", "m", 1)
	cl.expect("connected", "disconnected true", "session ended")
	if n := cl.down.Counters(); n.Dropped[lane.SessionEnded] != 1 {
		t.Errorf("dropped %v", n.Dropped)
	}
	if _, ack := r.connect(5, "dev", expiry(1)); ack.SessionPresent {
		t.Error("session present")
	}
}

// A device that returns in time keeps its session, and DISCONNECT may change how long it is kept.
func TestSessionExpiryChanged(t *testing.T) {
	t.Parallel()
	r, cl := one(t)
	leave := func(c *client, seconds uint32) {
		c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
			Properties: packets.Properties{SessionExpiryInterval: seconds, SessionExpiryIntervalFlag: true}})
	}
	c, _ := r.connect(5, "dev", expiry(1))
	leave(c, 1000)
	c.closed()
	cl.expect("connected", "disconnected true")
	<-time.After(1200 * time.Millisecond) // the first interval has passed
	c, ack := r.connect(5, "dev", expiry(1000))
	if !ack.SessionPresent {
		t.Error("the session is not present")
	}
	leave(c, 0)
	c.closed()
	cl.expect("connected", "disconnected true", "connected", "disconnected true", "session ended")
	c, _ = r.connect(5, "dev", expiry(0))
	leave(c, 5)
	c.cut(packets.ErrProtocolViolation)
}

func TestWill(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := one(t)
		c, _ := r.connect(v, "dev", lastWill("w", "", 1)) // an empty payload is legal
		want := &mqtt.Message{Topic: "w", Payload: []byte{}, QoS: 1}
		if got := cl.asked().Will; !cmp.Equal(got, want) {
			t.Fatalf("will %+v", got)
		}
		c.drop()
		cl.expect("connected", "disconnected false")
		c, _ = r.connect(v, "dev", lastWill("w", "bye", 0), func(pk *packets.Packet) { pk.Connect.WillRetain = true })
		if got := cl.asked().Will; string(got.Payload) != "bye" || !got.Retain {
			t.Errorf("will %+v", got)
		}
		c.disconnect()
		cl.expect("connected", "disconnected false", "connected", "disconnected true")
		_, _ = r.connect(v, "dev")
		if got := cl.asked().Will; got != nil {
			t.Errorf("will %+v", got)
		}
	})
}

func TestDisconnectWithWill(t *testing.T) {
	for _, reason := range []byte{packets.CodeDisconnectWillMessage.Code, packets.ErrUnspecifiedError.Code} {
		r, cl := one(t)
		c, _ := r.connect(5, "dev", lastWill("w", "bye", 0))
		c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: reason})
		c.closed()
		cl.expect("connected", "disconnected false")
	}
}

func willDelay(seconds uint32) func(*packets.Packet) {
	return func(pk *packets.Packet) { pk.Connect.WillProperties.WillDelayInterval = seconds }
}

func TestWillDelay(t *testing.T) {
	t.Parallel()
	r, cl := one(t)
	connect := func(sessionExpiry, delay uint32) *client {
		c, _ := r.connect(5, "dev", expiry(sessionExpiry), lastWill("w", "bye", 1), willDelay(delay))
		if cl.asked().Will != nil {
			t.Error("the cloud side was given a will that is not due with the connection")
		}
		return c
	}
	c := connect(100, 1)
	c.drop()
	until(t, "disconnected", func() bool { return !r.present("dev") })
	cl.receive(0)
	if m := cl.receive(1)[0].Message; m.Topic != "w" || string(m.Payload) != "bye" || m.QoS != 1 {
		t.Errorf("will %+v", m)
	}

	c = connect(100, 1) // back in time
	c.drop()
	until(t, "disconnected", func() bool { return !r.present("dev") })
	c = connect(1, 100)
	c.disconnect() // graceful
	until(t, "disconnected", func() bool { return !r.present("dev") })
	c = connect(1, 100) // the session ends before the delay
	<-time.After(1200 * time.Millisecond)
	cl.receive(1)
	c.drop()
	cl.receive(2)
	until(t, "the end of the session", func() bool { e := cl.log(); return e[len(e)-1] == "session ended" })

	c = connect(100, 100)
	c.drop()
	until(t, "disconnected", func() bool { return !r.present("dev") })
	c, _ = r.connect(5, "dev") // the session ends
	cl.receive(3)
	c.disconnect()
	until(t, "disconnected", func() bool { return !r.present("dev") })

	c = connect(100, 100) // DISCONNECT asks for the will and ends the session
	c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
		ReasonCode: packets.CodeDisconnectWillMessage.Code, Properties: packets.Properties{SessionExpiryIntervalFlag: true}})
	c.closed()
	cl.receive(4)
	until(t, "disconnected", func() bool { return !r.present("dev") })

	c = connect(100, 100)
	c.drop()
	until(t, "disconnected", func() bool { return !r.present("dev") })
	r.stop() // nobody will remember it
	cl.receive(5)
}

// A will with a message expiry is delivered at once, by the bridge, because its time counts from then.
func TestWillExpiry(t *testing.T) {
	r := start(t, options{up: lane.Config{MaxMessages: 1}}, plain("dev"))
	cl := r.clouds["dev"]
	cl.manual = true
	c, _ := r.connect(5, "dev", lastWill("w", "bye", 1), func(pk *packets.Packet) {
		pk.Connect.WillProperties.MessageExpiryInterval = 60
	})
	c.publish("t", "m", 1, 1)
	cl.receive(1) // and the lane is full
	c.drop()
	cl.expect("connected", "disconnected false")
	cl.done(0)
	m := cl.receive(2)[1].Message
	if left := time.Until(m.Expires); string(m.Payload) != "bye" || left < 50*time.Second || left > time.Minute {
		t.Errorf("will %+v", m)
	}
}

func TestTakeover(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := one(t)
		c, _ := r.connect(v, "dev", lastWill("w", "bye", 0))
		next, _ := r.connect(v, "dev")
		c.cut(packets.ErrSessionTakenOver)
		cl.expect("connected", "disconnected false", "connected")
		next.publish("t", "m", 1, 1)
		next.acked(packets.Puback, 1)
		cl.send("t", "down", 0)
		next.message("down")
		next.disconnect()
		cl.expect("connected", "disconnected false", "connected", "disconnected true")
	})
}

// However many connections of a device arrive at once, one is left, and the cloud side hears of them in order.
func TestTakeoverStorm(t *testing.T) {
	r, cl := one(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var clients []*client
	for i := range 40 {
		c := dial(t, r.addr())
		clients = append(clients, c)
		wg.Go(func() {
			pk := connectPacket(4, "dev")
			pk.Connect.Clean = i%2 == 0
			mu.Lock() // encode may fail the test
			b := encode(t, pk)
			mu.Unlock()
			b = append(b, encodePublish("up", fmt.Sprint(i))...)
			_, _ = c.conn.Write(b) // it may be cut already
		})
	}
	wg.Wait()
	until(t, "one connection left", func() bool { return r.b.Counters().Connections == 1 })
	until(t, "the device is there", func() bool { return r.present("dev") })
	cl.send("t", "winner", 0)
	winners := 0
	for _, c := range clients {
		for {
			pk, err := c.receive(patience)
			if err != nil {
				break
			}
			if pk.FixedHeader.Type == packets.Publish {
				winners++
				break
			}
		}
	}
	if winners != 1 {
		t.Errorf("%d connections got the message", winners)
	}
	r.stop()
	events := cl.log()
	for i, e := range events {
		if want := "connected"; i%2 == 0 && e != want || i%2 == 1 && e == want {
			t.Fatalf("event %d is %q: %q", i, e, events)
		}
	}
	if len(events)%2 != 0 {
		t.Errorf("events do not end with a disconnect: %q", events)
	}
}

func encodePublish(topic, payload string) []byte {
	return appendPublish(nil, 4, &mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: 1}, false, 1)
}

func TestStop(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		r, cl := one(t)
		c, _ := r.connect(v, "dev", lastWill("w", "bye", 0))
		r.stop()
		c.cut(packets.ErrServerShuttingDown)
		cl.expect("connected", "disconnected true")
	})
}
