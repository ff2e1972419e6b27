package bridge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bridged/internal/cloudsim"
	"bridged/internal/failure"
	"bridged/internal/lane"
	"bridged/internal/upstream"
)

// The overview has what is common to all devices, and counts failures although their devices go.
func TestOverview(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	c.Down()
	yaml := strings.Replace(genericYAML(c, "    upstream: always\n"), "clouds:",
		"limits: {memory: 1MiB, disk: 2MiB}\nclouds:", 1)
	r := run(t, yaml)
	until(t, "failures", func() bool { return len(r.bridge.Overview().Failures) > 0 })
	o := r.bridge.Overview()
	if f := o.Failures[0]; f.Cloud != "lab" || f.Kind != failure.Refused || f.Count == 0 {
		t.Errorf("%+v", o.Failures)
	}
	if !o.Serving || o.Stopping || o.MemoryLimit != 1<<20 || o.Spool.Limit != 2<<20 || len(o.Listen) != 1 ||
		len(o.Clouds) != 1 || o.Clouds[0].Endpoint != strings.TrimSuffix(c.WSURL(), "/") || o.MaxConnections == 0 {
		t.Errorf("%+v", o)
	}
	d := r.connect(dev)
	d.Publish("t", []byte("x"), 1)
	until(t, "the message on disk", func() bool { return r.status("dev").Up.Stored == 1 })
	if st := r.status("dev"); !st.Local.Connected || st.Session.Latest == nil {
		t.Errorf("%+v", st)
	}
	if s := r.bridge.Summaries()[0]; !s.Local.Connected || s.Up.Accepted != 1 || s.UpBegan.Accepted != 0 {
		t.Errorf("%+v", s)
	}
	before := o.Failures[0].Count
	r.reload("clouds: {}\ndevices: []\n")
	o = r.bridge.Overview()
	if len(o.Failures) != 1 || o.Failures[0].Count < before {
		t.Errorf("afterwards: %+v", o.Failures)
	}
	if len(o.Unclaimed) != 1 || o.Unclaimed[0] != (Leftover{Device: "dev", Up: 1}) {
		t.Errorf("left: %+v", o.Unclaimed)
	}
	// Back again, it begins with what is counted already.
	r.reload(yaml)
	if s := r.bridge.Summaries()[0]; s.UpBegan.Accepted != 1 || s.Up.Accepted != 1 {
		t.Errorf("%+v", s)
	}
	r.reload(strings.Replace(yaml, "always\n", "always\n    queue: {max_messages: 7}\n", 1))
	if s := r.bridge.Summaries()[0]; s.UpBegan.Accepted != 1 || r.status("dev").Queue.MaxMessages != 7 {
		t.Errorf("changed: %+v", s)
	}
	r.stop()
	if o := r.bridge.Overview(); o.Serving || !o.Stopping {
		t.Errorf("stopped: %+v", o)
	}
}

// Looking at thousands of devices takes milliseconds.
func TestSummariesOfAFleet(t *testing.T) {
	const n = 5000
	var yaml strings.Builder
	yaml.WriteString("clouds: {lab: {provider: generic, url: 'ws://127.0.0.1:1'}}\ndevices:\n")
	for i := range n {
		fmt.Fprintf(&yaml, "  - {name: d%d, login: {username: u, password: p}}\n", i)
	}
	r := run(t, yaml.String())
	began := time.Now()
	all := r.bridge.Summaries()
	took := time.Since(began)
	t.Logf("%d devices took %s", len(all), took)
	if len(all) != n || all[n-1].Name != "d4999" || all[0].Session.State != upstream.Idle ||
		all[0].Up.Accepted != (lane.Counters{}).Accepted {
		t.Errorf("%d devices", len(all))
	}
	if took > time.Second {
		t.Errorf("took %s", took)
	}
}
