package broker

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap/zapcore"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
	"bridged/internal/netconn"
)

// clientID and password change one thing of a CONNECT.
func clientID(id string) func(*packets.Packet) {
	return func(pk *packets.Packet) { pk.Connect.ClientIdentifier = id }
}

func password(pk *packets.Packet) { pk.Connect.PasswordFlag, pk.Connect.Password = true, []byte("p") }

// CONNECT packets of MQTT 3 that are refused: with this return code, or without an answer if it is 0.
func TestConnectRefused3(t *testing.T) {
	anonymousKept := func(pk *packets.Packet) { pk.Connect.ClientIdentifier, pk.Connect.Clean = "", false }
	for name, test := range map[string]struct {
		version byte
		change  func(*packets.Packet)
		want    byte
	}{
		"unknown version":            {4, func(pk *packets.Packet) { pk.ProtocolVersion = 6 }, 1},
		"3.1.1's name with 3":        {4, func(pk *packets.Packet) { pk.ProtocolVersion = 3 }, 1},
		"3.1's name with 4":          {3, func(pk *packets.Packet) { pk.ProtocolVersion = 4 }, 1},
		"unknown name":               {4, func(pk *packets.Packet) { pk.Connect.ProtocolName = []byte("AMQP") }, 0},
		"no client id, kept session": {4, anonymousKept, 2},
		"3.1 without client id":      {3, clientID(""), 2},
		"password without user name": {4, password, 0},
		"will of QoS 3":              {4, lastWill("w", "m", 3), 0},
		"will QoS without will":      {4, func(pk *packets.Packet) { pk.Connect.WillQos = 1 }, 0},
		"will retain without will":   {4, func(pk *packets.Packet) { pk.Connect.WillRetain = true }, 0},
		"will topic with wildcard":   {4, lastWill("w/#", "m", 0), 0},
		"empty will topic":           {4, lastWill("", "m", 0), 0},
		"unknown client id":          {4, clientID("x"), 5},
	} {
		t.Run(name, func(t *testing.T) {
			r, cl := one(t)
			c := dial(t, r.addr())
			pk := connectPacket(test.version, "dev")
			test.change(pk)
			c.write(encode(t, pk))
			if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c.conn)
			var want []byte
			if test.want != 0 {
				want = []byte{0x20, 2, 0, test.want}
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got % x (%v), want % x", got, err, want)
			}
			r.stop()
			cl.expect()
		})
	}
}

func TestConnectRefused5(t *testing.T) {
	scram := func(pk *packets.Packet) { pk.Properties.AuthenticationMethod = "SCRAM" }
	for name, test := range map[string]struct {
		change func(*packets.Packet)
		want   packets.Code
	}{
		"authentication":   {scram, packets.ErrBadAuthenticationMethod},
		"will topic":       {lastWill("w/+", "m", 0), packets.ErrTopicNameInvalid},
		"will of QoS 3":    {lastWill("w", "m", 3), packets.ErrProtocolViolation},
		"unknown client":   {clientID("x"), packets.ErrNotAuthorized},
		"no client id":     {clientID(""), packets.ErrNotAuthorized},
		"reserved bit set": {nil, packets.ErrProtocolViolation},
	} {
		t.Run(name, func(t *testing.T) {
			r, cl := one(t)
			c := dial(t, r.addr())
			c.version = 5
			pk := connectPacket(5, "dev")
			if test.change != nil {
				test.change(pk)
			}
			b := encode(t, pk)
			if test.change == nil {
				b[9] |= 1 // connect flags
			}
			c.write(b)
			if ack := c.expect(packets.Connack); ack.ReasonCode != test.want.Code || ack.SessionPresent {
				t.Errorf("CONNACK %#x, want %#x", ack.ReasonCode, test.want.Code)
			}
			c.closed()
			r.stop()
			cl.expect()
		})
	}
}

// What mochi would refuse though it is legal.
func TestConnectLegal(t *testing.T) {
	for name, change := range map[string]func(*packets.Packet){
		"empty will payload": lastWill("w", "", 0),
		"empty password": func(pk *packets.Packet) {
			pk.Connect.UsernameFlag, pk.Connect.Username, pk.Connect.PasswordFlag = true, []byte("u"), true
		},
		"empty user name":   func(pk *packets.Packet) { pk.Connect.UsernameFlag = true },
		"longest keepalive": keepalive(65535),
	} {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, v byte) {
				r, _ := one(t)
				c, _ := r.connect(v, "dev", change)
				c.quiet()
			})
		})
	}
}

func TestFirstPacket(t *testing.T) {
	for name, first := range map[string][]byte{
		"HTTP":            []byte("GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"),
		"TLS":             {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"zeros":           make([]byte, 100),
		"PUBLISH":         {0x30, 3, 0, 1, 'a'},
		"PINGREQ":         {0xc0, 0},
		"truncated":       {0x10, 4, 0, 4, 'M', 'Q'},
		"endless length":  bytes.Repeat([]byte{0x10, 0xff, 0xff, 0xff, 0xff, 0xff}, 20),
		"oversize packet": {0x10, 0xff, 0xff, 0xff, 0x7f},
	} {
		t.Run(name, func(t *testing.T) {
			r, cl := one(t)
			c := dial(t, r.addr())
			c.write(first)
			c.closed()
			if e := r.logged(zapcore.InfoLevel, "connection ended before a session began"); e.ContextMap()["remote"] == nil {
				t.Errorf("log line %v", e.ContextMap())
			}
			r.stop()
			cl.expect()
			if n := r.logs.FilterMessage("connection ended before a session began").Len(); n != 1 {
				t.Errorf("%d log lines", n)
			}
		})
	}
}

// A connection that comes and goes, as a port check does, is no news.
func TestPortCheck(t *testing.T) {
	r, _ := one(t)
	for range 3 {
		dial(t, r.addr()).drop()
	}
	until(t, "gone", func() bool { return r.logs.FilterMessage("connection ended before a session began").Len() == 3 })
	if n := r.logs.FilterLevelExact(zapcore.InfoLevel).Len(); n != 0 {
		t.Errorf("%d lines at info", n)
	}
}

func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	for name, talk := range map[string]func(c *client){
		"silent": func(*client) {},
		"dribbling": func(c *client) {
			b := encode(c.tb, connectPacket(4, strings.Repeat("x", 200)))
			for i := range b {
				if _, err := c.conn.Write(b[i : i+1]); err != nil {
					return
				}
				<-time.After(timeout / 20)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, options{config: func(cfg *Config) { cfg.ConnectTimeout = timeout }}, plain("dev"))
			began := time.Now()
			c := dial(t, r.addr())
			talk(c)
			c.closed()
			if took := time.Since(began); took < timeout {
				t.Errorf("closed after %s", took)
			}
			e := r.logged(zapcore.InfoLevel, "connection ended before a session began")
			if e.ContextMap()["err"] != errConnectTimeout.Error() {
				t.Errorf("log line %v", e.ContextMap())
			}
			c, _ = r.connect(4, "dev") // whoever has logged in stays, even without a keepalive
			<-time.After(2 * timeout)
			c.quiet()
		})
	}
}

func TestKeepalive(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v byte) {
		t.Parallel()
		r, cl := one(t)
		began := time.Now()
		c, _ := r.connect(v, "dev", keepalive(1))
		for range 5 {
			<-time.After(400 * time.Millisecond)
			c.quiet()
		}
		quiet := time.Now()
		c.cut(packets.ErrKeepAliveTimeout)
		if took := time.Since(quiet); took < 1300*time.Millisecond || took > 3*time.Second {
			t.Errorf("cut %s after the last packet, %s after CONNECT", took, time.Since(began))
		}
		cl.expect("connected", "disconnected false")
	})
}

// The deadline is not set for each packet.
func TestDeadline(t *testing.T) {
	r, _ := one(t)
	c, _ := r.connect(4, "dev", keepalive(65535))
	l := r.link("dev")
	connected := time.Now()
	c.quiet()
	c.disconnect()
	<-l.done
	if l.deadlineSet.After(connected) {
		t.Errorf("set again %s after CONNACK", l.deadlineSet.Sub(connected))
	}
}

func (r *rig) link(name string) *link {
	r.b.mu.Lock()
	d := r.b.devices[name]
	r.b.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.link
}

// Bytes that come after DISCONNECT or a violation are not looked at.
func TestNothingAfterTheEnd(t *testing.T) {
	r, cl := one(t)
	c, _ := r.connect(4, "dev")
	c.write(append([]byte{0xe0, 0}, encodePublish("t", "m")...))
	cl.expect("connected", "disconnected true")
	r.stop()
	cl.receive(0)
}

// A SUBSCRIBE of MQTT 5 without the options of its filter makes mochi's decoder panic.
func TestDecoderPanic(t *testing.T) {
	r, cl := one(t)
	c, _ := r.connect(5, "dev")
	c.write([]byte{0x82, 6, 0, 1, 0, 0, 1, 'a'})
	c.cut(packets.ErrMalformedPacket)
	cl.expect("connected", "disconnected false")
	if n := r.b.server.Clients.Len(); n != 0 {
		t.Errorf("mochi still knows %d clients", n)
	}
	c, _ = r.connect(5, "dev")
	c.quiet()
}

// mochi keeps nothing of devices that have left.
func TestNothingKeptByMochi(t *testing.T) {
	for v, keep := range map[byte]func(*packets.Packet){4: persistent, 5: expiry(100)} {
		r, cl := one(t)
		c, _ := r.connect(v, "dev", keep, lastWill("w", "m", 1), func(pk *packets.Packet) { pk.Connect.WillRetain = true })
		c.subscribe(1, packets.Subscription{Filter: "a", Qos: 2})
		c.acked(packets.Suback, 1)
		c.publish("t", "m", 2, 1, func(pk *packets.Packet) { pk.FixedHeader.Retain = true })
		c.acked(packets.Pubrec, 1)
		if n := r.b.server.Clients.Len(); n != 0 {
			t.Errorf("mochi still knows %d clients", n)
		}
		c.drop()
		cl.expect("connected", "disconnected false")
		r.stop()
		if s := r.b.server; s.Clients.Len()+s.Topics.Retained.Len()+len(s.Topics.Subscribers("a").Subscriptions) != 0 {
			t.Errorf("%d clients, %d retained", s.Clients.Len(), s.Topics.Retained.Len())
		}
	}
}

// Whatever comes late for a link that has ended does nothing: neither what was in its read buffer, nor a delivery.
func TestEndedLink(t *testing.T) {
	r, cl := one(t)
	c, _ := r.connect(4, "dev", persistent)
	l, s := r.link("dev"), r.session("dev")
	c.drop()
	<-l.done
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "t"}
	if _, err := l.packet(l.client, pk); !errors.Is(err, packets.ErrRejectPacket) {
		t.Errorf("got %v", err)
	}
	l.Deliver(lane.Delivery{Seq: 9, Message: mqtt.Message{Topic: "t", QoS: 1}})
	cl.receive(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.out.Len(); n != 0 {
		t.Errorf("%d identifiers in use", n)
	}
}

// A device that does not read what it is sent is cut, and delays nobody.
func TestStuckDevice(t *testing.T) {
	r := start(t, options{broker: func(b *Broker) { b.stall = 300 * time.Millisecond }}, plain("dev"), plain("other"))
	cl, others := r.clouds["dev"], r.clouds["other"]
	c, _ := r.connect(4, "dev")
	if err := c.conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	other, _ := r.connect(4, "other")
	payload := strings.Repeat("x", 1<<20)
	for range 20 {
		cl.send("t", payload, 0)
		others.send("t", "m", 1)
		other.ack(packets.Puback, other.message("m").PacketID)
		if l := r.link("dev"); l != nil && l.nc.Pending() > sendReady+1<<20+100 {
			t.Fatalf("%d bytes pending", l.nc.Pending())
		}
	}
	cl.expect("connected", "disconnected false")
	e := r.logged(zapcore.InfoLevel, "device disconnected").ContextMap()
	if e["device"] != "dev" || !strings.Contains(e["err"].(string), "timeout") && e["err"] != netconn.ErrSlow.Error() {
		t.Errorf("log line %v", e)
	}
	other.quiet()
}

// A message that is larger than what may wait is delivered to a device that reads slowly.
func TestLargeMessage(t *testing.T) {
	r, cl := one(t)
	c, _ := r.connect(4, "dev")
	payload := strings.Repeat("x", 8<<20)
	cl.send("t", payload, 1)
	cl.send("t", "after", 1)
	c.ack(packets.Puback, c.message(payload).PacketID)
	c.message("after")
}

// Deliveries go on when a device that was slow has taken what was sent.
func TestSlowDevice(t *testing.T) {
	r, cl := one(t)
	c, _ := r.connect(4, "dev")
	payload := strings.Repeat("x", 1<<20)
	const n = 20
	for range n {
		cl.send("t", payload, 0)
	}
	until(t, "the device holds deliveries up", func() bool {
		l := r.link("dev")
		return l != nil && l.nc.Pending() >= sendReady && cl.down.Counters().Queued > 0
	})
	for range n {
		c.message(payload)
	}
	c.quiet()
}
