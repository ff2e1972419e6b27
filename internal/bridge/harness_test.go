package bridge

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"bridged/internal/cloudsim"
	"bridged/internal/config"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/lane"
	"bridged/internal/testdevice"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is for clouds that come back at once.
var quick = Options{
	Retry: governor.RetryConfig{Policies: alike(governor.Policy{First: 5 * time.Millisecond, Max: 50 * time.Millisecond})},
	Quiet: time.Nanosecond,
}

// alike has the same one for all failures.
func alike(p governor.Policy) governor.Policies {
	all := make(governor.Policies)
	for _, c := range failure.Classes() {
		all[governor.Class(c)] = p
	}
	return all
}

// rig is a bridge under test.
type rig struct {
	tb     testing.TB
	dir    string
	bridge *Bridge
	logs   *observer.ObservedLogs
	stop   func()
}

// run starts a bridge with this configuration below the listener and the state directory, which are added.
func run(tb testing.TB, yaml string) *rig {
	tb.Helper()
	return runIn(tb, tb.TempDir(), yaml)
}

// runIn is run with a directory where an earlier bridge may have been.
func runIn(tb testing.TB, dir, yaml string) *rig {
	tb.Helper()
	return runWith(tb, dir, yaml, quick)
}

func runWith(tb testing.TB, dir, yaml string, o Options) *rig {
	tb.Helper()
	cfg := load(tb, dir, yaml)
	core, logs := observer.New(zapcore.DebugLevel)
	b, err := New(cfg, zap.New(core), o)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	r := &rig{tb: tb, dir: dir, bridge: b, logs: logs}
	r.stop = func() {
		if cancel == nil {
			return
		}
		cancel()
		cancel = nil
		select {
		case err := <-ended:
			if err != nil {
				tb.Errorf("Run: %v", err)
			}
		case <-time.After(time.Minute):
			tb.Error("Run does not end")
		}
		r.balanced()
	}
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

// load writes a configuration and loads it.
func load(tb testing.TB, dir, yaml string) *config.Config {
	tb.Helper()
	file := filepath.Join(dir, "bridged.yaml")
	if !strings.Contains(yaml, "listen:") {
		yaml = "listen: [{url: 'tcp://127.0.0.1:0'}]\n" + yaml
	}
	yaml = fmt.Sprintf("state_dir: %s\n%s", filepath.Join(dir, "state"), yaml)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		tb.Fatal(err)
	}
	cfg, err := config.Load(file, config.Env{})
	if err != nil {
		tb.Fatalf("configuration:\n%v\n%s", err, yaml)
	}
	return cfg
}

// reload has the bridge go over to another configuration.
func (r *rig) reload(yaml string) *Changes {
	r.tb.Helper()
	c, err := r.bridge.Reload(context.Background(), load(r.tb, r.dir, yaml))
	if err != nil {
		r.tb.Fatal(err)
	}
	return c
}

// addr is where devices connect.
func (r *rig) addr() string { return r.bridge.Addrs()[0].String() }

// connect logs a device in.
func (r *rig) connect(o testdevice.Options) *testdevice.Device {
	r.tb.Helper()
	return testdevice.Connect(r.tb, r.addr(), o)
}

// balanced checks the ledgers.
func (r *rig) balanced() {
	r.tb.Helper()
	for _, st := range r.bridge.Status() {
		for dir, c := range map[string]lane.Counters{"up": st.Up, "down": st.Down} {
			if c.Accepted != c.Delivered+uint64(c.Queued)+c.DroppedTotal() {
				r.tb.Errorf("%s %s: accepted %d, delivered %d, queued %d, dropped %d", st.Name, dir, c.Accepted, c.Delivered,
					c.Queued, c.DroppedTotal())
			}
		}
	}
}

// status of a device.
func (r *rig) status(device string) DeviceStatus {
	r.tb.Helper()
	st, ok := r.bridge.DeviceStatus(device)
	if !ok {
		r.tb.Fatalf("no device %s", device)
	}
	return st
}

// until waits for a condition.
func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(testdevice.Patience)
	for !cond() {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: still not so after %s", what, testdevice.Patience)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// within is a context for waiting.
func within(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testdevice.Patience)
	tb.Cleanup(cancel)
	return ctx
}

// warnings are the messages logged above info.
func (r *rig) warnings() (all []string) {
	for _, e := range r.logs.FilterLevelExact(zapcore.WarnLevel).All() {
		all = append(all, fmt.Sprintf("%s %v", e.Message, e.ContextMap()))
	}
	for _, e := range r.logs.FilterLevelExact(zapcore.ErrorLevel).All() {
		all = append(all, fmt.Sprintf("%s %v", e.Message, e.ContextMap()))
	}
	return all
}

// simulate starts a cloud.
func simulate(tb testing.TB, o cloudsim.Options) *cloudsim.Cloud {
	tb.Helper()
	c, err := cloudsim.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

// generic starts a generic cloud and a bridge with one device, dev, in front of it. extra is added to the device.
func generic(tb testing.TB, extra string) (*rig, *cloudsim.Cloud) {
	tb.Helper()
	c := simulate(tb, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	return run(tb, genericYAML(c, extra)), c
}

func genericYAML(c *cloudsim.Cloud, extra string) string {
	return fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s"}
devices:
  - name: dev
    cloud: lab
    login: {username: u, password: p}
%s`, c.WSURL(), extra)
}

// secureYAML is genericYAML with wss, and with more keys for the cloud.
func secureYAML(c *cloudsim.Cloud, cloud, device string) string {
	return strings.Replace(genericYAML(c, device), `"`+c.WSURL()+`"`, `"`+c.WSSURL()+`"`+cloud, 1)
}

// caFile has the cloud's authority.
func caFile(tb testing.TB, c *cloudsim.Cloud) string {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "ca.pem")
	if err := c.CA().WriteFile(file); err != nil {
		tb.Fatal(err)
	}
	return file
}

// twoWays begins a configuration with the generic cloud c as ws and as wss.
func twoWays(tb testing.TB, c *cloudsim.Cloud) *strings.Builder {
	tb.Helper()
	ca := caFile(tb, c)
	yaml := new(strings.Builder)
	fmt.Fprintf(yaml, `
clouds:
  ws: {provider: generic, url: "%s"}
  wss: {provider: generic, url: "%s", tls: {ca_file: "%s"}}
devices:
`, c.WSURL(), c.WSSURL(), ca)
	return yaml
}

// dev is the login of the device dev.
var dev = testdevice.Options{ClientID: "dev", Username: "u", Password: "p"}
