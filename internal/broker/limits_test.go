package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"bridged/internal/lane"
)

func TestMaxConnections(t *testing.T) {
	const limit = 5
	r := start(t, options{config: func(c *Config) { c.MaxConnections = limit }}, plain("dev"))
	var in []*client
	for range limit {
		in = append(in, dial(t, r.addr()))
	}
	until(t, "all are served", func() bool { return r.b.Counters().Connections == limit })
	for range 3 {
		dial(t, r.addr()).closed()
	}
	r.logged(zapcore.WarnLevel, "max_connections is reached: further connections are closed at once")
	in[0].drop()
	r.logged(zapcore.InfoLevel, "there is room for connections again")
	c, _ := r.connect(4, "dev")
	c.quiet()
	dial(t, r.addr()).closed()
	if n := r.logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 2 { // one for each episode
		t.Errorf("%d warnings", n)
	}
	if n := r.b.Counters().TurnedAway; n != 4 {
		t.Errorf("%d turned away", n)
	}
}

func TestMaxPacketSize(t *testing.T) {
	const limit = 1000
	versions(t, func(t *testing.T, v byte) {
		r := start(t, options{config: func(c *Config) { c.MaxPacketSize = limit }}, plain("dev"))
		c, ack := r.connect(v, "dev")
		if v == 5 && ack.Properties.MaximumPacketSize != limit {
			t.Errorf("CONNACK says %d", ack.Properties.MaximumPacketSize)
		}
		c.publish("t", strings.Repeat("x", limit-20), 1, 1)
		c.acked(packets.Puback, 1)
		c.write([]byte{0x30, 0xff, 0x7f}) // its length is enough
		c.cut(packets.ErrPacketTooLarge)
		r.clouds["dev"].expect("connected", "disconnected false")
	})
}

func TestManyDevices(t *testing.T) {
	const n = 500
	var devices []Device
	for i := range n {
		devices = append(devices, plain(fmt.Sprintf("dev-%d", i)))
	}
	r := start(t, options{}, devices...)
	clients := make([]*client, n)
	var wg sync.WaitGroup
	var acked atomic.Int32
	for i := range n {
		clients[i] = dial(t, r.addr())
		wg.Go(func() {
			c := clients[i]
			b := append(encode(t, connectPacket(4, devices[i].Name)), encodePublish("t", "m")...)
			if _, err := c.conn.Write(b); err != nil {
				t.Error(err)
				return
			}
			for _, kind := range []byte{packets.Connack, packets.Puback, packets.Publish} {
				if pk, err := c.receive(patience); err != nil || pk.FixedHeader.Type != kind {
					t.Errorf("device %d: %v, %+v", i, err, pk)
					return
				}
				if kind == packets.Puback {
					acked.Add(1)
					r.clouds[devices[i].Name].send("t", "m", 0)
				}
			}
		})
	}
	wg.Wait()
	if acked.Load() != n {
		t.Fatalf("%d acknowledged", acked.Load())
	}
	if got := r.b.Counters(); got.Connections != n {
		t.Errorf("%d connections", got.Connections)
	}
	r.stop()
	for name, cl := range r.clouds {
		cl.expect("connected", "disconnected true")
		if got := len(cl.messages()); got != 1 {
			t.Errorf("%s: %d messages", name, got)
		}
	}
}

// flaky is a listener that has no file descriptors for a while.
type flaky struct {
	acceptor
	failures atomic.Int32
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.acceptor.Accept()
}

func TestAcceptErrors(t *testing.T) {
	r := start(t, options{broker: func(b *Broker) {
		f := &flaky{acceptor: b.listeners[0].acceptor}
		f.failures.Store(5)
		b.listeners[0].acceptor = f
	}}, plain("dev"))
	c, _ := r.connect(4, "dev")
	c.quiet()
	if n := r.logs.FilterMessage("accepting connections fails").Len(); n != 1 {
		t.Errorf("%d log lines", n)
	}
	r.logged(zapcore.InfoLevel, "accepting connections works again")
}

func TestStopWhileAcceptFails(t *testing.T) {
	r := start(t, options{broker: func(b *Broker) {
		f := &flaky{acceptor: b.listeners[0].acceptor}
		f.failures.Store(1 << 30)
		b.listeners[0].acceptor = f
	}}, plain("dev"))
	r.logged(zapcore.WarnLevel, "accepting connections fails")
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > maxPause {
		t.Errorf("took %s", took)
	}
}

func TestNewFaults(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	cl := newCloud(t, lane.Config{}, lane.Config{})
	device := func(change func(*Device)) func(*Config) {
		return func(c *Config) { change(&c.Devices[0]) }
	}
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no listener":    {func(c *Config) { c.Listeners = nil }, "listener"},
		"no connections": {func(c *Config) { c.MaxConnections = 0 }, "max_connections"},
		"no timeout":     {func(c *Config) { c.ConnectTimeout = 0 }, "connect_timeout"},
		"no packet size": {func(c *Config) { c.MaxPacketSize = 0 }, "max_packet_size"},
		"no logger":      {func(c *Config) { c.Log = nil }, "logger"},
		"no name":        {device(func(d *Device) { d.Name = "" }), "name"},
		"same name":      {func(c *Config) { c.Devices = append(c.Devices, c.Devices[0]) }, `device "dev"`},
		"QoS 3":          {device(func(d *Device) { d.MaxQoS = 3 }), "QoS"},
		"no lane":        {device(func(d *Device) { d.Up = nil }), "lanes"},
		"no marks":       {device(func(d *Device) { d.Marks = nil }), "lanes"},
		"no bcrypt":      {device(func(d *Device) { d.Login.PasswordHash = []byte("secret") }), "password_hash"},
		"password and hash": {device(func(d *Device) {
			d.Login.PasswordHash, d.Login.Password = []byte("x"), "y"
		}), "exclude"},
		"address in use": {func(c *Config) {
			c.Listeners = append(c.Listeners, Listener{Address: taken.Addr().String()})
		}, taken.Addr().String()},
	} {
		t.Run(name, func(t *testing.T) {
			d := plain("dev")
			d.Up, d.Marks, d.Down, d.Upstream = cl.up, cl.up, cl.down, cl
			cfg := Config{
				Listeners: []Listener{{Address: "127.0.0.1:0"}}, MaxConnections: 1, ConnectTimeout: time.Second,
				MaxPacketSize: 1, Devices: []Device{d}, Log: zap.NewNop(),
			}
			test.change(&cfg)
			_, err := New(cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want something about %s", err, test.want)
			}
			if strings.Contains(fmt.Sprint(err), "secret") {
				t.Errorf("a secret in %v", err)
			}
			if name == "address in use" && !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Run with a context that has ended closes the listeners.
func TestRunEndedContext(t *testing.T) {
	cfg := Config{
		Listeners: []Listener{{Address: "127.0.0.1:0"}}, MaxConnections: 1, ConnectTimeout: time.Second,
		MaxPacketSize: 1, Log: zap.NewNop(),
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", b.Addrs()[0].String()); err == nil {
		_ = c.Close()
		t.Error("still listening")
	}
}

func TestQuiet(t *testing.T) {
	var q quiet
	now := time.Now()
	expect := func(key string, at time.Duration, want bool, missed int) {
		t.Helper()
		if ok, n := q.allow(key, now.Add(at)); ok != want || n != missed {
			t.Errorf("%s after %s: %v %d, want %v %d", key, at, ok, n, want, missed)
		}
	}
	expect("a", 0, true, 0)
	expect("a", 1, false, 0)
	expect("b", 1, true, 0)
	expect("a", quietFor-1, false, 0)
	expect("a", quietFor, true, 2)
	expect("a", 2*quietFor, true, 0)
	for i := range 2 * quietKeys {
		q.allow(fmt.Sprint(i), now.Add(2*quietFor))
	}
	if len(q.keys) > quietKeys+1 {
		t.Errorf("%d keys are remembered", len(q.keys))
	}
	expect("c", 4*quietFor, true, 0)
	if len(q.keys) != 1 {
		t.Errorf("%d old keys are remembered", len(q.keys)-1)
	}
}
