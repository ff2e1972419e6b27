package page

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"bridged/internal/admin"
	"bridged/internal/admin/page"
	"bridged/internal/bridge"
	"bridged/internal/clock"
	"bridged/internal/cloudsim"
	"bridged/internal/config"
	"bridged/internal/failure"
	"bridged/internal/governor"
)

// server is package admin's, with the status page.
type server struct {
	t       *testing.T
	source  admin.Source
	guard   admin.Guard
	address string
	stop    func()
}

// serve shows a bridge until the test ends.
func serve(t *testing.T, source admin.Source, token string) *server {
	t.Helper()
	s := &server{t: t, source: source, guard: admin.Guard{Token: token}, address: "127.0.0.1:0"}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

// start serves, after stop at the same address as before.
func (s *server) start() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.address = l.Addr().String()
	a := admin.New(admin.Options{Source: s.source, Version: "v1.2.3", Page: page.Handler(), Log: zap.NewNop()})
	ctx, cancel := context.WithCancel(context.Background())
	served, ran := make(chan error, 1), make(chan struct{})
	go func() { served <- a.Serve(ctx, l, &s.guard) }()
	go func() {
		defer close(ran)
		a.Run(ctx)
	}()
	s.stop = func() {
		cancel()
		<-ran
		if err := <-served; err != nil {
			s.t.Error(err)
		}
		s.stop = func() {}
	}
}

func (s *server) url() string { return "http://" + s.address + "/" }

// run runs a bridge of this configuration, below its listener and state directory, until the test ends. It tries again
// soon after a failure, so that tests need not wait.
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
	soon := make(governor.Policies)
	for _, c := range failure.Classes() {
		soon[governor.Class(c)] = governor.Policy{First: 100 * time.Millisecond, Max: 500 * time.Millisecond}
	}
	b, err := bridge.New(cfg, zap.NewNop(), bridge.Options{
		Retry: governor.RetryConfig{Policies: soon},
		Clock: clock.Config{Sync: func() clock.Sync { return clock.Synchronised }}, // whatever this machine's is
	})
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

func newCloud(t *testing.T, o cloudsim.Options) *cloudsim.Cloud {
	t.Helper()
	o.Kind, o.NoWSS = cloudsim.Generic, true
	c, err := cloudsim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// plant is the configuration of a few devices with two clouds.
func plant(first, second string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
clouds:
  north: {provider: generic, url: "%s", proxy: none}
  south: {provider: generic, url: "%s", proxy: none}
defaults: {upstream: always, login: {username: u, password: p}}
devices:
`, first, second)
	for _, name := range []string{"boiler-1", "boiler-2", "press-1"} {
		fmt.Fprintf(&b, "  - {name: %s, cloud: north}\n", name)
	}
	for _, name := range []string{"pump-1", "pump-2"} {
		fmt.Fprintf(&b, "  - {name: %s, cloud: south}\n", name)
	}
	b.WriteString("  - {name: lamp-1, cloud: south, upstream: on_demand}\n")
	return b.String()
}
