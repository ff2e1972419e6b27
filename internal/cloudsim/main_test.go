package cloudsim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

func start(t *testing.T, o Options) *Cloud {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func generic(t *testing.T) *Cloud {
	t.Helper()
	return start(t, Options{Kind: Generic})
}

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func value[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// wait waits for a state of the cloud.
func wait(t *testing.T, c *Cloud, what string, cond func() bool) {
	t.Helper()
	if err := c.WaitUntil(ctx(t), cond); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// noViolations fails the test if a client broke a rule.
func noViolations(t *testing.T, c *Cloud) {
	t.Helper()
	if v := c.Violations(); len(v) > 0 {
		t.Fatalf("violations: %+v", v)
	}
}

func wantRules(t *testing.T, c *Cloud, want ...Rule) {
	t.Helper()
	var got []Rule
	for _, v := range c.Violations() {
		got = append(got, v.Rule)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("violations %v, want %v: %+v", got, want, c.Violations())
	}
}

// device is paho's client, somebody else's MQTT.
type device struct {
	paho.Client
	mu   sync.Mutex
	got  []string // topic=payload qos, and retained or dup
	more chan struct{}
}

func newDevice(t *testing.T, c *Cloud, broker, clientID string, change func(*paho.ClientOptions)) *device {
	t.Helper()
	d := &device{more: make(chan struct{}, 1)}
	o := paho.NewClientOptions().AddBroker(broker).SetClientID(clientID).SetProtocolVersion(4).
		SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(patience).SetKeepAlive(60 * time.Second).
		SetTLSConfig(&tls.Config{RootCAs: c.CA().Pool()}).SetDefaultPublishHandler(d.receive)
	o.WebsocketOptions.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	if change != nil {
		change(o)
	}
	d.Client = paho.NewClient(o)
	t.Cleanup(func() { d.Disconnect(100) })
	return d
}

func (d *device) receive(_ paho.Client, m paho.Message) {
	s := fmt.Sprintf("%s=%s %d", m.Topic(), m.Payload(), m.Qos())
	if m.Retained() {
		s += " retained"
	}
	if m.Duplicate() {
		s += " dup"
	}
	d.mu.Lock()
	d.got = append(d.got, s)
	d.mu.Unlock()
	select {
	case d.more <- struct{}{}:
	default:
	}
}

func (d *device) connect(t *testing.T) *paho.ConnectToken {
	t.Helper()
	tok := d.Connect()
	done(t, tok)
	return tok.(*paho.ConnectToken)
}

func (d *device) subscribe(t *testing.T, filter string, qos byte) byte {
	t.Helper()
	tok := d.Subscribe(filter, qos, nil)
	done(t, tok)
	return tok.(*paho.SubscribeToken).Result()[filter]
}

func (d *device) publish(t *testing.T, topic, payload string, qos byte, retain bool) {
	t.Helper()
	done(t, d.Publish(topic, qos, retain, payload))
}

func done(t *testing.T, tok paho.Token) {
	t.Helper()
	if !tok.WaitTimeout(patience) {
		t.Fatal("no answer")
	}
	must(t, tok.Error())
}

// expect waits for as many messages and compares them in order.
func (d *device) expect(t *testing.T, want ...string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		d.mu.Lock()
		got := slices.Clone(d.got)
		d.mu.Unlock()
		if len(got) >= len(want) {
			if !slices.Equal(got, want) {
				t.Fatalf("got %q, want %q", got, want)
			}
			return
		}
		select {
		case <-d.more:
		case <-timeout:
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// forget drops what was received.
func (d *device) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got = nil
}

// bothWays runs a test over ws and over wss.
func bothWays(t *testing.T, test func(t *testing.T, c *Cloud, url string)) {
	t.Helper()
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			c := generic(t)
			url := c.WSURL()
			if scheme == "wss" {
				url = c.WSSURL()
			}
			test(t, c, url)
			if t.Failed() {
				return
			}
			for _, s := range c.Connections(All) {
				if s.Secure != (scheme == "wss") {
					t.Fatalf("secure %t over %s", s.Secure, scheme)
				}
			}
		})
	}
}

// raw is a client that does just what a test tells it.
type raw struct {
	t  *testing.T
	ws *websocket.Conn
	in *frameReader
}

func dialer(c *Cloud) *websocket.Dialer {
	return &websocket.Dialer{
		Subprotocols: []string{"mqtt"}, HandshakeTimeout: patience,
		TLSClientConfig: &tls.Config{RootCAs: c.CA().Pool()},
	}
}

func dialRaw(t *testing.T, c *Cloud, url string) *raw {
	t.Helper()
	ws, resp, err := dialer(c).Dial(url, nil)
	must(t, err)
	must(t, resp.Body.Close())
	t.Cleanup(func() { _ = ws.Close() })
	must(t, ws.SetReadDeadline(time.Now().Add(patience)))
	return &raw{t: t, ws: ws, in: &frameReader{ws: ws}}
}

func (r *raw) send(list ...packets.ControlPacket) {
	r.t.Helper()
	for _, p := range list {
		r.bytes(encode(p))
	}
}

func (r *raw) bytes(b []byte) {
	r.t.Helper()
	must(r.t, r.ws.WriteMessage(websocket.BinaryMessage, b))
}

func (r *raw) next() packets.ControlPacket {
	r.t.Helper()
	p, err := packets.ReadPacket(r.in)
	must(r.t, err)
	return p
}

// ends waits for the end of the connection and returns what came before.
func (r *raw) ends() []packets.ControlPacket {
	r.t.Helper()
	var got []packets.ControlPacket
	for {
		p, err := packets.ReadPacket(r.in)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			r.t.Fatal("still open")
		}
		if err != nil {
			_ = r.ws.Close() // as a client does
			return got
		}
		got = append(got, p)
	}
}

func expect[T packets.ControlPacket](r *raw) T {
	r.t.Helper()
	p := r.next()
	want, ok := p.(T)
	if !ok {
		r.t.Fatalf("got %v, want a %T", p, want)
	}
	return want
}

// connectRaw logs in and expects a code; it returns session present.
func (r *raw) connect(p *packets.ConnectPacket, code byte) bool {
	r.t.Helper()
	r.send(p)
	ack := expect[*packets.ConnackPacket](r)
	if ack.ReturnCode != code {
		r.t.Fatalf("CONNACK %d, want %d", ack.ReturnCode, code)
	}
	return ack.SessionPresent
}

func login(clientID string, clean bool) *packets.ConnectPacket {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.Keepalive = "MQTT", 4, 60
	p.ClientIdentifier, p.CleanSession = clientID, clean
	return p
}

func withUser(p *packets.ConnectPacket, user, password string) *packets.ConnectPacket {
	p.UsernameFlag, p.PasswordFlag = true, true
	p.Username, p.Password = user, []byte(password)
	return p
}

// online is a raw client that is logged in.
func online(t *testing.T, c *Cloud, clientID string, clean bool) *raw {
	t.Helper()
	r := dialRaw(t, c, c.WSURL())
	r.connect(login(clientID, clean), 0)
	return r
}

func publishPacket(topic, payload string, qos byte, id uint16) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID = topic, []byte(payload), qos, id
	return p
}

func dup(p *packets.PublishPacket) *packets.PublishPacket {
	p.Dup = true
	return p
}

func subscribePacket(id uint16, filtersAndQoS ...any) *packets.SubscribePacket {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID = id
	for i := 0; i < len(filtersAndQoS); i += 2 {
		p.Topics = append(p.Topics, filtersAndQoS[i].(string))
		p.Qoss = append(p.Qoss, byte(filtersAndQoS[i+1].(int)))
	}
	return p
}

func unsubscribePacket(id uint16, filters ...string) *packets.UnsubscribePacket {
	p := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
	p.MessageID, p.Topics = id, filters
	return p
}

// idPacket is a PUBACK, PUBREC, PUBREL or PUBCOMP.
func idPacket(kind byte, id uint16) packets.ControlPacket {
	p := packets.NewControlPacket(kind)
	switch p := p.(type) {
	case *packets.PubackPacket:
		p.MessageID = id
	case *packets.PubrecPacket:
		p.MessageID = id
	case *packets.PubrelPacket:
		p.MessageID = id
	case *packets.PubcompPacket:
		p.MessageID = id
	}
	return p
}

func (r *raw) subscribe(filter string, qos int) {
	r.t.Helper()
	r.send(subscribePacket(60000, filter, qos))
	if codes := expect[*packets.SubackPacket](r).ReturnCodes; len(codes) != 1 || int(codes[0]) != qos {
		r.t.Fatalf("SUBACK %v, want %d", codes, qos)
	}
}

// pinged sends a ping and expects the answer: everything before it was handled, and nothing else came.
func (r *raw) pinged() {
	r.t.Helper()
	r.send(packets.NewControlPacket(packets.Pingreq))
	expect[*packets.PingrespPacket](r)
}

// message describes a PUBLISH.
func describe(p *packets.PublishPacket) string {
	s := fmt.Sprintf("%d %s=%s %d", p.MessageID, p.TopicName, p.Payload, p.Qos)
	if p.Retain {
		s += " retained"
	}
	if p.Dup {
		s += " dup"
	}
	return s
}

func (r *raw) expectPublish(want string) *packets.PublishPacket {
	r.t.Helper()
	p := expect[*packets.PublishPacket](r)
	if got := describe(p); got != want {
		r.t.Fatalf("got %q, want %q", got, want)
	}
	return p
}

// payloads of messages, joined.
func payloads(list []Received) string {
	var out []string
	for _, r := range list {
		out = append(out, string(r.Payload))
	}
	return strings.Join(out, " ")
}

func isErr(err, want error) bool { return errors.Is(err, want) }
