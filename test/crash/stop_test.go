package crash

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"bridged/internal/cloudsim"
	"bridged/internal/lane"
)

// A second bridged on the same state directory does not start, and says why. The first one goes on.
func TestTwoOnOneDirectory(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	s := newSite(t, settings{cloud: c.WSURL(), queue: queueYAML("spill"), devices: names(1)})
	s.start()
	h := newHealthy(t, c, s, names(1))
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := exec.CommandContext(ctx, bridged, "run", "-c", s.conf).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("the second one ended with %v", err)
		}
		message := ""
		for _, l := range strings.Split(string(out), "\n") {
			if strings.HasPrefix(l, "error: ") {
				message = l
			}
		}
		pid := strconv.Itoa(s.process.cmd.Process.Pid)
		if !strings.Contains(message, s.state) || !strings.Contains(message, pid) {
			t.Errorf("the second one does not name %s and process %s:\n%s", s.state, pid, out)
		}
	}
	h.relay(t, 100)
	h.stop()
	s.stop()
	s.ledger(nil)
	s.start() // the directory is free again
	s.ready()
	s.stop()
}

// bridged is stopped in order while devices publish and the cloud is away. What it has acknowledged is on the disk, and
// is delivered after the next start.
func TestStopWithoutCloud(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		away, up func(*cloud) error
	}{
		{"gone", func(c *cloud) error { c.Down(); return nil }, func(c *cloud) error { return c.Up() }},
		{
			"frozen",
			func(c *cloud) error { c.StallReads(cloudsim.All, true); return nil },
			func(c *cloud) error { c.Heal(); return nil },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCloud(t)
			devices := names(20)
			s := newSite(t, settings{
				cloud: c.WSURL(), queue: queueYAML("spill"), devices: devices, more: "shutdown_timeout: 1s",
			})
			s.start()
			all := newCrew(t)
			finish := make(chan struct{})
			var senders []*sender
			for i, name := range devices {
				d := &sender{
					name: name, addr: s.addr, clean: i%2 == 1, window: 10, burst: 5, pace: 10 * time.Millisecond,
					qos: func(n int) byte { return qosOf(i, n) }, finish: finish,
				}
				senders = append(senders, d)
				all.run.Go(func() error { return d.run(all.ctx) })
			}
			acked := func(more int64) func() bool {
				from := make([]int64, len(senders))
				for i, d := range senders {
					from[i] = d.acked.Load()
				}
				return func() bool {
					for i, d := range senders {
						if d.acked.Load() < from[i]+more {
							return false
						}
					}
					return true
				}
			}
			all.until("the cloud acknowledges", acked(20), nil)
			if err := tc.away(c); err != nil {
				t.Fatal(err)
			}
			all.until("messages are stored and acknowledged", acked(100), nil)
			s.stop()
			checkKept(t, c, s, senders)

			if err := tc.up(c); err != nil {
				t.Fatal(err)
			}
			s.start()
			all.until("devices go on", acked(50), nil)
			close(finish)
			all.until("all is acknowledged to the devices, and in the cloud", func() bool {
				for _, d := range senders {
					if !d.ended.Load() || c.from(d.name) < d.next {
						return false
					}
				}
				return true
			}, func() string { return upProgress(c, senders) })
			all.wait()
			c.check(t, senders)
			c.behaved(t)
			s.stop()
			s.ledger(nil).drained(t, lane.Up, devices)
		})
	}
}

// checkKept checks, while bridged does not run, that what it has acknowledged is in the cloud or on the disk.
func checkKept(t *testing.T, c *cloud, s *site, senders []*sender) {
	t.Helper()
	have := make(map[string]int) // how many, from the first on without a gap
	for _, d := range senders {
		have[d.name] = c.from(d.name)
	}
	stored := 0
	s.ledger(func(k lane.Key, r *lane.Record) {
		n, err := number(k.Device, r.Message.Payload)
		if err != nil {
			t.Error(err)
		}
		stored++
		if n == have[k.Device] {
			have[k.Device]++
		}
	})
	if stored < len(senders)*100 {
		t.Errorf("%d messages are stored only", stored)
	}
	for _, d := range senders {
		if n := int(d.acked.Load()); have[d.name] < n {
			t.Errorf("%s: %d messages were acknowledged, and %d are there", d.name, n, have[d.name])
		}
	}
}

// Devices leave a large backlog. bridged is killed while it starts with it, and while it drains it.
func TestBacklog(t *testing.T) {
	t.Parallel()
	rng := random(t)
	c := newCloud(t)
	c.Down()
	devices := names(10)
	each := 3000
	if testing.Short() {
		each = 1000
	}
	s := newSite(t, settings{cloud: c.WSURL(), queue: queueYAML("spill"), devices: devices})
	s.start()
	all := newCrew(t)
	var senders []*sender
	for i, name := range devices {
		d := &sender{
			name: name, addr: s.addr, window: 50, burst: 50, pace: time.Millisecond, total: each,
			qos: func(n int) byte { return qosOf(i, n) },
		}
		senders = append(senders, d)
		all.run.Go(func() error { return d.run(all.ctx) })
	}
	all.wait()
	for range 8 {
		s.kill()
		s.start()
		wait(t.Context(), between(rng, 0, 400*time.Millisecond))
	}
	s.kill()
	s.ledger(nil)
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	total := each * len(devices)
	for part := range 6 {
		s.start()
		arrived := func() bool { return c.all() > part*total/6 }
		until(t, "the backlog drains", arrived, func() string { return fmt.Sprintf("%d of %d", c.all(), total) })
		s.kill()
		if part%2 == 0 {
			s.ledger(nil)
		}
	}
	if n := c.all(); n == total {
		t.Error("the backlog has drained before the last kill: the test shows nothing")
	}
	s.start()
	drained := func() bool { return c.all() == total }
	until(t, "the backlog has drained", drained, func() string { return upProgress(c, senders) })
	c.check(t, senders)
	c.behaved(t)
	s.stop()
	s.ledger(nil).drained(t, lane.Up, devices)
}
