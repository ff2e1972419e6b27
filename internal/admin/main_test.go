package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"bridged/internal/bridge"
	"bridged/internal/config"
	"bridged/internal/failure"
	"bridged/internal/lane"
	"bridged/internal/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long something that must happen may take.
const patience = 20 * time.Second

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: still not so after %s", what, patience)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// fake is a bridge of which only the devices' summaries matter.
type fake struct {
	mu       sync.Mutex // protects the following fields
	devices  []bridge.DeviceSummary
	overview bridge.Overview
	stuck    []string
}

func (f *fake) Stuck(limit time.Duration) []string {
	if limit != stuckAfter {
		return []string{"a limit of " + limit.String()}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stuck
}

func (f *fake) Overview() bridge.Overview {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.overview
}

func (f *fake) EachSummary(tell func(*bridge.DeviceSummary)) {
	for _, s := range f.Summaries() {
		tell(&s)
	}
}

func (f *fake) Summaries() []bridge.DeviceSummary {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]bridge.DeviceSummary{}, f.devices...)
}

func (f *fake) DeviceStatus(name string) (bridge.DeviceStatus, bool) {
	for _, d := range f.Summaries() {
		if d.Name == name {
			return bridge.DeviceStatus{
				Name: d.Name, Cloud: d.Cloud, Session: upstream.Status{Summary: d.Session}, Up: d.Up, Down: d.Down,
				Queue: config.Queue{OnFull: config.Block},
			}, true
		}
	}
	return bridge.DeviceStatus{}, false
}

// change changes a device.
func (f *fake) change(i int, do func(*bridge.DeviceSummary)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do(&f.devices[i])
}

// fleet is a fake with devices dev-0, dev-1, ... of the cloud lab, all online.
func fleet(n int) *fake {
	f := &fake{overview: bridge.Overview{
		Serving: true, Clouds: []bridge.CloudStatus{{Name: "lab", Provider: "generic", Endpoint: "wss://lab:443"}},
	}}
	for i := range n {
		f.devices = append(f.devices, bridge.DeviceSummary{
			Name: fmt.Sprintf("dev-%d", i), Cloud: "lab",
			Session: upstream.Summary{State: upstream.Online, Since: time.Unix(1e9, 0)},
		})
	}
	return f
}

// fail has a device wait after a failure.
func fail(k failure.Kind) func(*bridge.DeviceSummary) {
	return func(d *bridge.DeviceSummary) {
		f := failure.New(k, failure.StageConnect, nil, "")
		d.Session = upstream.Summary{State: upstream.Waiting, Reason: f.Reason(), Last: f, Latest: f, Failures: 1}
	}
}

// relay has messages accepted and delivered upwards.
func relay(accepted, delivered uint64) func(*bridge.DeviceSummary) {
	return func(d *bridge.DeviceSummary) {
		d.Up = lane.Counters{Accepted: accepted, Delivered: delivered, Queued: int(accepted - delivered)}
	}
}

func newAdmin(s Source) *Admin {
	return New(Options{Source: s, Version: "v1", Log: zap.NewNop()})
}

// get asks for a path and decodes the answer into to, unless that is nil.
func get(t *testing.T, h http.Handler, path string, status int, to any) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	if w.Code != status {
		t.Fatalf("%s: %d, want %d: %s", path, w.Code, status, w.Body)
	}
	if to != nil {
		if err := json.Unmarshal(w.Body.Bytes(), to); err != nil {
			t.Fatalf("%s: %v: %s", path, err, w.Body)
		}
	}
	return w
}

// run runs a bridge of this configuration, below its listener and state directory, until the test ends.
func run(t *testing.T, yaml string) *bridge.Bridge {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "bridged.yaml")
	yaml = fmt.Sprintf("listen: [{url: 'tcp://127.0.0.1:0'}]\nstate_dir: %s\n%s", filepath.Join(dir, "state"), yaml)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, config.Env{})
	if err != nil {
		t.Fatalf("%v\n%s", err, yaml)
	}
	b, err := bridge.New(cfg, zap.NewNop(), bridge.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

// spin runs an Admin until the test ends.
func spin(t *testing.T, a *Admin) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}
