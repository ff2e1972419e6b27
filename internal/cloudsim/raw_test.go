package cloudsim

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

func TestRedeliveryDown(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", false)
	r.subscribe("x", 2)
	for i := range byte(4) {
		must(t, c.Publish("d", "x", fmt.Append(nil, "m", i), i%2+1))
	}
	r.expectPublish("1 x=m0 1")
	r.expectPublish("2 x=m1 2")
	r.expectPublish("3 x=m2 1")
	r.expectPublish("4 x=m3 2")
	r.send(idPacket(packets.Puback, 1), idPacket(packets.Pubrec, 2))
	if id := expect[*packets.PubrelPacket](r).MessageID; id != 2 {
		t.Fatalf("PUBREL %d", id)
	}
	c.Drop("d", CutReset)
	must(t, c.Publish("d", "x", []byte("late"), 1))

	r = dialRaw(t, c, c.WSURL())
	if !r.connect(login("d", false), 0) {
		t.Fatal("no session was present")
	}
	if id := expect[*packets.PubrelPacket](r).MessageID; id != 2 { // in its place, before what was sent later
		t.Fatalf("PUBREL %d", id)
	}
	r.expectPublish("3 x=m2 1 dup")
	r.expectPublish("4 x=m3 2 dup")
	r.expectPublish("5 x=late 1")
	r.send(idPacket(packets.Pubcomp, 2), idPacket(packets.Puback, 3), idPacket(packets.Pubrec, 4))
	if id := expect[*packets.PubrelPacket](r).MessageID; id != 4 {
		t.Fatalf("PUBREL %d", id)
	}
	r.send(idPacket(packets.Pubcomp, 4), idPacket(packets.Puback, 5))
	r.pinged()
	acks := c.AckedBy("d")
	var got []string
	for _, a := range acks {
		got = append(got, fmt.Sprintf("%s %t", a.Payload, a.Resent))
	}
	if want := "m0 false,m1 false,m2 true,m3 true,late false"; strings.Join(got, ",") != want {
		t.Errorf("acknowledged %q, want %q", got, want)
	}
	if s, _ := c.Session("d"); len(s.Unacked) != 0 {
		t.Errorf("in flight %+v", s.Unacked)
	}
	noViolations(t, c)
}

func TestWindow(t *testing.T) {
	c := start(t, Options{Kind: Generic, Window: 3})
	r := online(t, c, "d", true)
	r.subscribe("x", 1)
	for i := range 5 {
		must(t, c.Publish("d", "x", fmt.Append(nil, i), 1))
	}
	for i := range 3 {
		r.expectPublish(fmt.Sprintf("%d x=%d 1", i+1, i))
	}
	r.pinged() // nothing came after the third
	if s, _ := c.Session("d"); s.Queued != 2 || len(s.Unacked) != 3 {
		t.Errorf("queued %d, unacknowledged %d", s.Queued, len(s.Unacked))
	}
	r.send(idPacket(packets.Puback, 1))
	r.expectPublish("4 x=3 1")
	r.pinged()
}

// What waits for the window of a connection that ends stays, but for QoS 0.
func TestQueueOverReconnect(t *testing.T) {
	c := start(t, Options{Kind: Generic, Window: 1})
	r := online(t, c, "d", false)
	r.subscribe("x", 1)
	for i, qos := range []byte{1, 0, 1, 0} {
		must(t, c.Publish("d", "x", fmt.Append(nil, i), qos))
	}
	r.expectPublish("1 x=0 1")
	r.expectPublish("0 x=1 0")
	r.pinged()
	c.Drop("d", CutReset)
	if n := c.Totals().DroppedQoS0; n != 1 {
		t.Errorf("%d dropped", n)
	}
	r = dialRaw(t, c, c.WSURL())
	r.connect(login("d", false), 0)
	r.expectPublish("1 x=0 1 dup")
	r.send(idPacket(packets.Puback, 1))
	r.expectPublish("2 x=2 1")
	r.pinged()
}

func TestRedeliveryUp(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", false)
	r.send(publishPacket("x", "one", 1, 7))
	if id := expect[*packets.PubackPacket](r).MessageID; id != 7 {
		t.Fatalf("PUBACK %d", id)
	}
	r.send(dup(publishPacket("x", "one", 1, 7)), dup(publishPacket("x", "other", 1, 8)))
	expect[*packets.PubackPacket](r)
	expect[*packets.PubackPacket](r)

	// QoS 2: recorded once, until PUBREL, and across connections.
	r.send(publishPacket("x", "two", 2, 9))
	expect[*packets.PubrecPacket](r)
	c.Drop("d", CutReset)
	r = dialRaw(t, c, c.WSURL())
	r.connect(login("d", false), 0)
	r.send(dup(publishPacket("x", "two", 2, 9)))
	expect[*packets.PubrecPacket](r)
	r.send(idPacket(packets.Pubrel, 9))
	expect[*packets.PubcompPacket](r)
	r.send(idPacket(packets.Pubrel, 9)) // lost PUBCOMP: answered again
	expect[*packets.PubcompPacket](r)
	r.send(publishPacket("x", "three", 2, 9))
	expect[*packets.PubrecPacket](r)

	got := c.Received()
	if payloads(got) != "one one other two three" {
		t.Fatalf("received %q", payloads(got))
	}
	for i, want := range []bool{false, true, false, false, false} {
		if got[i].Redelivery != want {
			t.Errorf("message %d: redelivery %t", i, got[i].Redelivery)
		}
	}
	if n := c.Totals().QoS2Repeats; n != 1 {
		t.Errorf("%d repeats", n)
	}
	noViolations(t, c)
}

func TestFraming(t *testing.T) {
	c := start(t, Options{Kind: Generic, FrameSize: 3})
	r := dialRaw(t, c, c.WSURL())
	var all bytes.Buffer
	for _, p := range []packets.ControlPacket{
		login("d", true), subscribePacket(1, "x", 1), publishPacket("x", "a longer payload", 1, 2),
	} {
		all.Write(encode(p))
	}
	b := all.Bytes()
	r.bytes(b[:1])
	r.bytes(nil) // an empty message
	r.bytes(b[1:20])
	r.bytes(b[20:])
	expect[*packets.ConnackPacket](r)
	expect[*packets.SubackPacket](r)
	// The answers come in WebSocket messages of at most three bytes, put together by the reader of the test.
	r.expectPublish("1 x=a longer payload 1")
	expect[*packets.PubackPacket](r)
	r.send(idPacket(packets.Puback, 1))

	r.send(publishPacket("end", "", 0, 0))
	r.pinged()
	must(t, c.Publish("d", "x", []byte("m"), 0))
	kind, frame, err := r.ws.ReadMessage()
	must(t, err)
	if kind != websocket.BinaryMessage || len(frame) != 3 {
		t.Fatalf("a message of kind %d and %d bytes", kind, len(frame))
	}
	noViolations(t, c)
}

// Packets that gathered while nothing could be sent leave in one WebSocket message.
func TestGathering(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", true)
	r.subscribe("x", 0)
	big := strings.Repeat("x", 200<<10) // the writer is busy with this one while the others come
	must(t, c.Publish("d", "x", []byte(big), 0))
	const n = 200
	for range n {
		must(t, c.Publish("d", "x", nil, 0))
	}
	frames := 0
	for got := 0; got < n; frames++ {
		_, frame, err := r.ws.ReadMessage()
		must(t, err)
		for rest := bytes.NewBuffer(frame); rest.Len() > 0; {
			p, err := packets.ReadPacket(rest)
			must(t, err)
			if len(p.(*packets.PublishPacket).Payload) == 0 {
				got++
			}
		}
	}
	if frames >= n {
		t.Errorf("%d messages in %d frames", n, frames)
	}
}

func TestProtocolViolations(t *testing.T) {
	text := func(r *raw) {
		must(r.t, r.ws.WriteMessage(websocket.TextMessage, encode(publishPacket("x", "", 0, 0))))
	}
	send := func(p packets.ControlPacket) func(*raw) { return func(r *raw) { r.send(p) } }
	bytes := func(b ...byte) func(*raw) { return func(r *raw) { r.bytes(b) } }
	for name, do := range map[string]func(*raw){
		"second CONNECT":             send(login("d", true)),
		"text frame":                 text,
		"server's packet":            send(packets.NewControlPacket(packets.Pingresp)),
		"reserved type":              bytes(0xf0, 0),
		"flags of SUBSCRIBE":         bytes(0x80, 6, 0, 1, 0, 1, 'x', 0),
		"flags of PUBACK":            bytes(0x41, 2, 0, 1),
		"packet identifier 0":        bytes(0x82, 6, 0, 0, 0, 1, 'x', 0),
		"publish identifier 0":       send(publishPacket("x", "", 1, 0)),
		"QoS 3":                      bytes(0x36, 5, 0, 1, 'x', 0, 1),
		"DUP with QoS 0":             send(dup(publishPacket("x", "", 0, 0))),
		"long length":                bytes(0x30, 0x80, 0x80, 0x80, 0x80, 1),
		"above MaxPacket":            bytes(0x30, 0xff, 0xff, 0xff, 0x7f),
		"truncated topic":            bytes(0x30, 3, 0, 9, 'x'),
		"left over":                  bytes(0xc0, 1, 0),
		"short PUBACK":               bytes(0x40, 1, 0),
		"truncated filter":           bytes(0x82, 6, 0, 1, 0, 9, 'x', 0),
		"filter without QoS":         bytes(0x82, 5, 0, 1, 0, 1, 'x'),
		"no filter":                  bytes(0x82, 2, 0, 1),
		"no filter to leave":         bytes(0xa2, 2, 0, 1),
		"subscription QoS 3":         send(subscribePacket(1, "x", 3)),
		"bad filter":                 send(subscribePacket(1, "x#", 0)),
		"bad filter to leave":        send(unsubscribePacket(1, "x+")),
		"topic with wildcard":        send(publishPacket("x/+", "", 0, 0)),
		"empty topic":                send(publishPacket("", "", 0, 0)),
		"topic of invalid UTF-8":     send(publishPacket("\xff", "", 0, 0)),
		"topic with NUL":             send(publishPacket("a\x00", "", 0, 0)),
		"unsubscribe, empty":         bytes(0xa2, 4, 0, 1, 0, 0),
		"subscribe, rest of a field": bytes(0x82, 7, 0, 1, 0, 1, 'x', 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			r := online(t, c, "d", true)
			do(r)
			if rest := r.ends(); len(rest) > 0 {
				t.Errorf("answered with %v", rest)
			}
			must(t, c.WaitOffline(ctx(t), "d"))
			wantRules(t, c, RuleProtocol)
			if v := c.Violations()[0]; v.Device != "d" || v.Detail == "" {
				t.Errorf("violation %+v", v)
			}
			if log := c.Connections("d"); log[0].Reason != EndViolation || len(c.Received()) > 0 {
				t.Errorf("ended for %q, received %+v", log[0].Reason, c.Received())
			}
		})
	}
}

func TestConnectViolations(t *testing.T) {
	change := func(f func(*packets.ConnectPacket)) []byte {
		p := login("d", true)
		f(p)
		return encode(p)
	}
	will := func(topic string, qos byte) func(*packets.ConnectPacket) {
		return func(p *packets.ConnectPacket) { p.WillFlag, p.WillTopic, p.WillQos = true, topic, qos }
	}
	password := func(p *packets.ConnectPacket) { p.PasswordFlag, p.Password = true, []byte("x") }
	reserved := encode(login("d", true))
	reserved[9] |= 1
	for name, b := range map[string][]byte{
		"not a CONNECT":         encode(publishPacket("x", "", 0, 0)),
		"protocol name":         change(func(p *packets.ConnectPacket) { p.ProtocolName = "HTTP" }),
		"reserved flag":         reserved,
		"password, no user":     change(password),
		"will QoS without will": change(func(p *packets.ConnectPacket) { p.WillQos = 1 }),
		"will retain, no will":  change(func(p *packets.ConnectPacket) { p.WillRetain = true }),
		"will QoS 3":            change(will("x", 3)),
		"will topic":            change(will("x/#", 0)),
		"invalid UTF-8":         change(func(p *packets.ConnectPacket) { p.ClientIdentifier = "\xff" }),
		"left over":             append([]byte{0x10, 16}, append(encode(login("dd", true))[2:], 0, 0)...),
	} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			r := dialRaw(t, c, c.WSURL())
			r.bytes(b)
			if rest := r.ends(); len(rest) > 0 {
				t.Errorf("answered with %v", rest)
			}
			wait(t, c, "a login failure", func() bool { return len(c.LoginFailures()) == 1 })
			wantRules(t, c, RuleProtocol)
		})
	}
}

func TestRefusedConnects(t *testing.T) {
	for name, tt := range map[string]struct {
		b    []byte
		code byte
	}{
		"MQTT 3.1":     {[]byte{0x10, 15, 0, 6, 'M', 'Q', 'I', 's', 'd', 'p', 3, 2, 0, 60, 0, 1, 'd'}, 1},
		"MQTT 5":       {[]byte{0x10, 14, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0, 0, 1, 'd'}, 1},
		"no client id": {encode(login("", false)), 2},
	} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			r := dialRaw(t, c, c.WSURL())
			r.bytes(tt.b)
			if code := expect[*packets.ConnackPacket](r).ReturnCode; code != tt.code {
				t.Errorf("CONNACK %d, want %d", code, tt.code)
			}
			if rest := r.ends(); len(rest) > 0 {
				t.Errorf("answered with %v", rest)
			}
			wantRules(t, c, RuleProtocol)
			if f := c.LoginFailures(); len(f) != 1 || f[0].Code != tt.code {
				t.Errorf("login failures %+v", f)
			}
		})
	}
}

func TestAnonymousClientIDs(t *testing.T) {
	c := generic(t)
	online(t, c, "", true)
	online(t, c, "", true)
	if s := c.Sessions(); len(s) != 2 || s[0].Device == s[1].Device {
		t.Errorf("sessions %+v", s)
	}
	noViolations(t, c)
}

// Acknowledgements that a client must not send are recorded and do no harm.
func TestBadAcknowledgements(t *testing.T) {
	acks := func(list ...packets.ControlPacket) func(*raw) { return func(r *raw) { r.send(list...) } }
	pubrec := func(id uint16, times int) func(*raw) {
		return func(r *raw) {
			for range times {
				r.send(idPacket(packets.Pubrec, id))
				expect[*packets.PubrelPacket](r)
			}
		}
	}
	// In flight: 1 and 2 with QoS 1, 3 and 4 with QoS 2.
	for name, tt := range map[string]struct {
		send func(r *raw)
		want []Rule
	}{
		"PUBACK of nothing":   {acks(idPacket(packets.Puback, 9)), []Rule{RuleUnknownAck}},
		"PUBREC of nothing":   {pubrec(9, 1), []Rule{RuleUnknownAck}},
		"PUBCOMP of nothing":  {acks(idPacket(packets.Pubcomp, 9)), []Rule{RuleUnknownAck}},
		"PUBACK twice":        {acks(idPacket(packets.Puback, 1), idPacket(packets.Puback, 1)), []Rule{RuleUnknownAck}},
		"PUBACK for QoS 2":    {acks(idPacket(packets.Puback, 3)), []Rule{RuleUnknownAck}},
		"PUBCOMP too early":   {acks(idPacket(packets.Pubcomp, 3)), []Rule{RuleUnknownAck}},
		"PUBACK out of order": {acks(idPacket(packets.Puback, 2)), []Rule{RuleAckOrder}},
		"PUBREC out of order": {pubrec(4, 1), []Rule{RuleAckOrder}},
		"in order":            {acks(idPacket(packets.Puback, 1), idPacket(packets.Puback, 2)), nil},
		"QoS 2 has its own":   {pubrec(3, 1), nil},
		"PUBREC again":        {pubrec(3, 2), nil},
		"PUBRECs in order":    {func(r *raw) { pubrec(3, 1)(r); pubrec(4, 1)(r) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			r := online(t, c, "d", true)
			r.subscribe("x", 2)
			for i := range byte(4) {
				must(t, c.Publish("d", "x", nil, i/2+1))
				expect[*packets.PublishPacket](r)
			}
			tt.send(r)
			r.pinged()
			wantRules(t, c, tt.want...)
		})
	}
}

func TestPacketIDInUse(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", true)
	c.WithholdAcks("d")
	r.send(publishPacket("x", "1", 1, 5), publishPacket("x", "2", 1, 5))
	r.pinged()
	wantRules(t, c, RulePacketID)
	c.ClearRecords()
	r.send(dup(publishPacket("x", "2", 1, 5))) // a resend is no violation
	r.send(publishPacket("x", "3", 2, 6), publishPacket("x", "3", 2, 6))
	r.pinged()
	wantRules(t, c, RulePacketID)
	if got := payloads(c.Received()); got != "2 3" {
		t.Errorf("received %q", got)
	}
}

func TestKeepalive(t *testing.T) {
	c := generic(t)
	r := dialRaw(t, c, c.WSURL())
	p := login("d", true)
	p.Keepalive = 1
	r.connect(p, 0)
	if rest := r.ends(); len(rest) > 0 {
		t.Errorf("got %v", rest)
	}
	must(t, c.WaitOffline(ctx(t), "d"))
	log := c.Connections("d")[0]
	if log.Reason != EndKeepalive {
		t.Fatalf("ended for %q", log.Reason)
	}
	if lived := log.End.Sub(log.Start).Seconds(); lived < 1.4 || lived > 10 {
		t.Errorf("lived for %.1f s with a keepalive of 1 s", lived)
	}
	noViolations(t, c)
}
