package broker

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long something that must happen may take.
const patience = 10 * time.Second

// until waits for a condition.
func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("%s: still not so after %s", what, patience)
		}
	}
}

// cloud is the far side of one device: it implements Upstream and consumes the up lane.
type cloud struct {
	tb       testing.TB
	up, down *lane.Lane

	mu      sync.Mutex
	inCall  bool
	events  []string // connected, disconnected, ... in order
	connect mqtt.Connect
	expiry  uint32 // of the last disconnect
	subs    [][]mqtt.Subscription
	dones   []func([]byte)
	unsubs  [][]string
	answer  func(subs []mqtt.Subscription) []byte // nil: the test calls dones
	reader  *lane.Reader
	manual  bool // the test calls Done
	got     []lane.Delivery
	settled []mqtt.Token // of messages that the device got
}

// newCloud makes lanes that hold messages and a cloud that grants and acknowledges everything.
func newCloud(tb testing.TB, up, down lane.Config) *cloud {
	tb.Helper()
	up.Hold = true
	c := &cloud{tb: tb, up: lane.New(up), down: lane.New(down)}
	c.answer = func(subs []mqtt.Subscription) []byte {
		codes := make([]byte, len(subs))
		for i, s := range subs {
			codes[i] = s.QoS
		}
		return codes
	}
	c.attach()
	return c
}

// attach connects the cloud to the up lane, detach takes it away.
func (c *cloud) attach() {
	r := c.up.Attach(c, lane.Window{})
	c.mu.Lock()
	c.reader = r
	c.mu.Unlock()
	r.Start()
}

func (c *cloud) detach() { c.reader.Detach(true) }

func (c *cloud) Ready() bool { return true }
func (c *cloud) Flush()      {}

func (c *cloud) Deliver(d lane.Delivery) {
	c.mu.Lock()
	c.got = append(c.got, d)
	r, manual := c.reader, c.manual
	c.mu.Unlock()
	if d.Message.QoS > 0 && !manual {
		r.Done(d.Seq)
	}
}

// enter checks that calls to Upstream do not overlap.
func (c *cloud) enter(event string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inCall {
		c.tb.Errorf("%s overlaps with another call", event)
	}
	c.inCall = true
	c.events = append(c.events, event)
}

func (c *cloud) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inCall = false
}

func (c *cloud) Connected(m mqtt.Connect) {
	c.enter("connected")
	defer c.leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connect = m
}

func (c *cloud) Disconnected(graceful bool, expiry uint32) {
	c.enter(fmt.Sprintf("disconnected %v", graceful))
	defer c.leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expiry = expiry
}

func (c *cloud) EndSession() {
	c.enter("session ended")
	c.leave()
}

func (c *cloud) Subscribe(subs []mqtt.Subscription, done func([]byte)) {
	c.mu.Lock()
	c.subs = append(c.subs, subs)
	answer := c.answer
	if answer == nil {
		c.dones = append(c.dones, done)
	}
	c.mu.Unlock()
	if answer != nil {
		done(answer(subs))
	}
}

func (c *cloud) Unsubscribe(filters []string, done func()) {
	c.mu.Lock()
	c.unsubs = append(c.unsubs, filters)
	c.mu.Unlock()
	done()
}

// log returns what happened so far.
func (c *cloud) log() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}

// expect waits until exactly these events have happened.
func (c *cloud) expect(events ...string) {
	c.tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !slices.Equal(c.log(), events) {
		select {
		case <-tick.C:
		case <-deadline:
			c.tb.Fatalf("events: got %q, want %q", c.log(), events)
		}
	}
}

// connected returns what the last CONNECT asked for.
func (c *cloud) asked() mqtt.Connect {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connect
}

// messages returns what the cloud got.
func (c *cloud) messages() []lane.Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// receive waits for n messages in all and returns them.
func (c *cloud) receive(n int) []lane.Delivery {
	c.tb.Helper()
	until(c.tb, fmt.Sprintf("%d messages at the cloud", n), func() bool { return len(c.messages()) >= n })
	got := c.messages()
	if len(got) > n {
		c.tb.Fatalf("the cloud got %d messages, want %d", len(got), n)
	}
	return got
}

// done acknowledges the i-th message that the cloud got.
func (c *cloud) done(i int) { c.reader.Done(c.messages()[i].Seq) }

// send offers a message for the device.
func (c *cloud) send(topic, payload string, qos byte) {
	c.tb.Helper()
	c.mu.Lock()
	t := mqtt.Token(len(c.settled) + 1)
	c.mu.Unlock()
	if !c.down.Offer(mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: qos}, downSource{c}, t) {
		c.tb.Errorf("the down lane is full")
	}
}

// downSource counts messages that are settled towards the cloud.
type downSource struct{ c *cloud }

func (s downSource) Settled(t mqtt.Token, _ lane.Outcome) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.settled = append(s.c.settled, t)
}

func (downSource) Room() {}

// balanced checks the ledgers.
func (c *cloud) balanced(tb testing.TB) {
	tb.Helper()
	for name, l := range map[string]*lane.Lane{"up": c.up, "down": c.down} {
		n := l.Counters()
		if n.Accepted != n.Delivered+uint64(n.Queued)+n.DroppedTotal() {
			tb.Errorf("%s lane: accepted %d, delivered %d, queued %d, dropped %d", name, n.Accepted, n.Delivered, n.Queued,
				n.DroppedTotal())
		}
	}
}

// rig is a running broker.
type rig struct {
	tb     testing.TB
	b      *Broker
	logs   *observer.ObservedLogs
	clouds map[string]*cloud
	stop   func()
}

// options change how a rig is made.
type options struct {
	config func(*Config)
	broker func(*Broker) // before Run
	up     lane.Config
	down   lane.Config
}

// start runs a broker for these devices, each with a cloud of its own.
func start(tb testing.TB, o options, devices ...Device) *rig {
	tb.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	r := &rig{tb: tb, logs: logs, clouds: make(map[string]*cloud)}
	for i := range devices {
		d := &devices[i]
		c := newCloud(tb, o.up, o.down)
		d.Up, d.Down, d.Upstream = c.up, c.down, c
		if d.Marks == nil {
			d.Marks = c.up
		}
		r.clouds[d.Name] = c
	}
	cfg := Config{
		Listeners:      []Listener{{Address: "127.0.0.1:0"}},
		MaxConnections: 1000,
		ConnectTimeout: patience,
		MaxPacketSize:  256 << 10,
		Devices:        devices,
		Log:            zap.New(core),
	}
	if o.config != nil {
		o.config(&cfg)
	}
	b, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if o.broker != nil {
		o.broker(b)
	}
	r.b = b
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				tb.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			tb.Error("Run does not end")
		}
		for _, c := range r.clouds {
			c.balanced(tb)
		}
	})
	tb.Cleanup(func() {
		r.stop()
		if tb.Failed() {
			for i, e := range logs.All() {
				if i > 50 {
					break
				}
				tb.Logf("%s %s %v", e.Level, e.Message, e.ContextMap())
			}
		}
	})
	return r
}

func (r *rig) addr() net.Addr { return r.b.Addrs()[0] }

// logged waits for a log line.
func (r *rig) logged(level zapcore.Level, message string) observer.LoggedEntry {
	r.tb.Helper()
	find := func() []observer.LoggedEntry {
		return r.logs.FilterLevelExact(level).FilterMessage(message).All()
	}
	until(r.tb, fmt.Sprintf("log line %q", message), func() bool { return len(find()) > 0 })
	return find()[0]
}

// plain is a device that logs in with its client identifier only.
func plain(name string) Device {
	return Device{Name: name, Login: Login{ClientID: name}, MaxQoS: 2, Retain: true}
}

// one starts a broker with the device dev.
func one(tb testing.TB) (*rig, *cloud) {
	tb.Helper()
	r := start(tb, options{}, plain("dev"))
	return r, r.clouds["dev"]
}
