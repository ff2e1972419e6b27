package upstream

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"bridged/internal/clock"
	"bridged/internal/cloudsim"
	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
	"bridged/internal/topicmap"
	"bridged/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// rig is a worker with its lanes, in front of a simulated cloud.
type rig struct {
	tb   testing.TB
	w    *Worker
	up   *lane.Lane
	down *lane.Lane
	logs *observer.ObservedLogs
	dev  *device
	stop func()
}

// device stands for the LAN side: source of the up lane, consumer of the down lane.
type device struct {
	mu        sync.Mutex
	settled   []mqtt.Token
	delivered []lane.Delivery
	reader    *lane.Reader
}

func (d *device) Settled(t mqtt.Token, _ lane.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settled = append(d.settled, t)
}
func (d *device) Room()       {}
func (d *device) Ready() bool { return true }
func (d *device) Deliver(m lane.Delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.delivered = append(d.delivered, m)
}
func (d *device) Flush() {}

func (d *device) counts() (settled, delivered int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.settled), len(d.delivered)
}

// quick is for clouds that come back at once.
var quick = governor.RetryConfig{
	Policies: policies(governor.Policy{First: time.Millisecond, Max: 20 * time.Millisecond, Nudge: true}),
	Stable:   time.Minute,
	War:      governor.Evidence{Alike: 1000, Any: 1000},
}

// once is for tests for which one attempt is enough.
var once = governor.RetryConfig{
	Policies: policies(governor.Policy{Floor: time.Hour, First: time.Second, Max: time.Second}),
}

// policies has the same one for all failures.
func policies(p governor.Policy) governor.Policies {
	all := make(governor.Policies)
	for _, c := range failure.Classes() {
		all[governor.Class(c)] = p
	}
	return all
}

var unlimited = governor.Limits{AtOnce: 1000, PerSecond: 1e6, Burst: 1000}

func dialer(o transport.TLS) *transport.Dialer {
	none, err := transport.ParseProxy("none", "")
	if err != nil {
		panic(err)
	}
	d, err := transport.New(transport.Options{Proxy: none, TLS: o})
	if err != nil {
		panic(err)
	}
	return d
}

// base is a configuration for a generic cloud; tests change what they are about.
func base(rawURL string) Config {
	u, err := url.Parse(rawURL)
	if err != nil {
		panic(err)
	}
	limits, ok := credentials.LimitsOf(credentials.ProviderGeneric)
	if !ok {
		panic("no limits for the generic provider")
	}
	return Config{
		Device: "dev", Cloud: "lab",
		Dialer: dialer(transport.TLS{}), Target: transport.Target{URL: u},
		Identity:  credentials.Generic{ClientID: "dev"},
		Keepalive: time.Minute, Limits: &limits,
		Topics:    (*topicmap.Map)(nil),
		Refused:   lane.TopicLimit,
		MaxPacket: 1 << 20,
		Quiet:     time.Nanosecond,
		Governor:  governor.New(governor.Config{Endpoint: unlimited, Total: unlimited}),
		Retry:     governor.NewRetries(quick)(),
		Clock:     clock.New(clock.Config{}),
		Save:      func(_ *Kept, done func()) { go done() },
	}
}

// start runs a worker and its keeper until the test ends. Lanes are made unless the configuration has them.
func start(tb testing.TB, cfg Config) *rig {
	tb.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	r := &rig{tb: tb, logs: logs, dev: &device{}}
	if cfg.Up == nil {
		cfg.Up = lane.New(lane.Config{Hold: true})
	}
	if cfg.Down == nil {
		r.down = lane.New(lane.Config{Hold: true})
		cfg.Down = r.down
	}
	if cfg.Marks == nil {
		cfg.Marks = cfg.Down.(*lane.Lane)
	}
	cfg.Log = zap.New(core)
	r.up = cfg.Up
	r.w = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { NewKeeper([]*Worker{r.w}).Run(ctx) })
	r.w.Start()
	r.stop = sync.OnceFunc(func() {
		stop, stopped := context.WithTimeout(context.Background(), time.Second)
		defer stopped()
		r.w.Stop(stop)
		cancel()
		wg.Wait()
	})
	tb.Cleanup(func() {
		r.stop()
		if tb.Failed() {
			for _, e := range logs.All() {
				tb.Logf("%s %s %v", e.Level, e.Message, e.ContextMap())
			}
		}
	})
	return r
}

// deliver attaches the device to the down lane.
func (r *rig) deliver() {
	r.dev.reader = r.down.Attach(r.dev, lane.Window{})
	r.dev.reader.Start()
}

func (r *rig) offer(topic, payload string, qos byte, t mqtt.Token) {
	r.tb.Helper()
	if !r.w.Offer(mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: qos}, r.dev, t) {
		r.tb.Fatal("not taken")
	}
}

// tick serves the worker's timers.
func (r *rig) tick(now time.Time) { r.w.tick(now, time.Time{}) }

func (r *rig) inState(s State) {
	r.tb.Helper()
	until(r.tb, "state "+string(s), func() bool { return r.w.Status().State == s })
}

// failure waits for a failure and returns it.
func (r *rig) failure() (f *failure.Failure) {
	r.tb.Helper()
	until(r.tb, "a failure", func() bool { f = r.w.Status().Last; return f != nil })
	return f
}

func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: still not so after %s", what, patience)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func within(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

func simulate(tb testing.TB, o cloudsim.Options) *cloudsim.Cloud {
	tb.Helper()
	c, err := cloudsim.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func generic(tb testing.TB) *cloudsim.Cloud {
	tb.Helper()
	return simulate(tb, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
}
