package soak

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"bridged/internal/cloudsim"
)

// soak is a run.
type soak struct {
	t       *testing.T
	seed    uint64
	clouds  []*cloud
	devices map[string]*device
	calm    atomic.Bool
	bridged *process
	state   string // the state directory

	mu    sync.Mutex // protects the following field
	count map[string]int
}

func TestSoak(t *testing.T) {
	const each = 10
	s := &soak{t: t, seed: *seed, devices: map[string]*device{}, count: map[string]int{}}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	t.Logf("-soak.time=%s -soak.seed=%d", *soakTime, s.seed)
	s.clouds = []*cloud{
		newCloud(t, cloudsim.Aliyun, true, newTinyproxy(t), each),
		newCloud(t, cloudsim.Tencent, false, nil, each),
		newCloud(t, cloudsim.Generic, true, newMicrosocks(t), each),
	}
	s.start()
	ctx, cancel := context.WithCancel(t.Context())
	var living errgroup.Group
	for _, d := range s.devices {
		living.Go(func() error {
			err := d.run(ctx)
			if err != nil {
				t.Error(err) // soon, since everything else goes on
			}
			return nil
		})
	}
	// What bridged holds is compared between two calms. Before the first, everything has happened once or so.
	warm := s.storm(*soakTime / 4)
	after := s.storm(*soakTime - *soakTime/4)
	cancel()
	_ = living.Wait() // nil
	s.bridged.stop()
	s.check(warm, after)
}

// start starts bridged, and makes the devices.
func (s *soak) start() {
	s.t.Helper()
	dir, addr := s.t.TempDir(), freeAddress(s.t)
	s.state = filepath.Join(dir, "state")
	var y, devices strings.Builder
	y.WriteString("admin: {listen: ''}\n")
	fmt.Fprintf(&y, "listen: [{url: 'tcp://%s'}]\nstate_dir: %s\nlog: {level: info}\nclouds:\n", addr, s.state)
	for _, c := range s.clouds {
		section, list := c.yaml()
		y.WriteString(section)
		devices.WriteString(list)
		for _, name := range c.devices {
			s.devices[name] = &device{name: name, addr: addr, dice: newDice(s.seed, name), calm: &s.calm}
		}
	}
	fmt.Fprintf(&y, "defaults: {linger: 1s, login: {username: %s, password: %s}}\ndevices:\n%s",
		lanUser, lanPassword, devices.String())
	conf := filepath.Join(dir, "bridged.yaml")
	if err := os.WriteFile(conf, []byte(y.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.bridged = startProcess(s.t, conf)
}

// slow is when it is told who keeps everybody waiting.
const slow = 40 * time.Second

// storm has things go wrong for a time, waits until everything is well, and measures.
func (s *soak) storm(d time.Duration) measured {
	s.t.Helper()
	s.calm.Store(false)
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	var raging errgroup.Group
	for _, c := range s.clouds {
		raging.Go(func() error { return c.publish(ctx, newDice(s.seed, c.name+" application "+d.String())) })
		raging.Go(func() error { return c.weather(ctx, newDice(s.seed, c.name+" weather "+d.String()), s.happened) })
	}
	if err := raging.Wait(); err != nil {
		s.t.Fatal(err)
	}
	s.calm.Store(true)
	begin, late := time.Now(), ""
	well := func() bool {
		what, device := s.unfinished()
		if time.Since(begin) > slow && late == "" && what != "" {
			late = device
			s.t.Logf("%s after the storm: %s:\n%s", slow, what, s.bridged.about(device, 20))
		}
		return what == ""
	}
	until(s.t, "everything has arrived", well, func() string {
		what, device := s.unfinished()
		return what + "\n" + s.bridged.about(device, 100)
	})
	m := s.bridged.measure()
	s.t.Logf("all is well %s after a storm of %s: %s", time.Since(begin).Round(time.Millisecond), d, m)
	return m
}

func (s *soak) happened(fault string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[fault]++
}

// unfinished tells what has not arrived, or who is not online, and which device it is about. It is "" for nothing.
func (s *soak) unfinished() (what, device string) {
	for _, c := range s.clouds {
		for _, name := range c.devices {
			d := s.devices[name]
			sent, acked, got := d.counts()
			arrived, published := c.counts(name)
			switch {
			case acked != sent || arrived < sent || got < published:
				return fmt.Sprintf("%s: %d sent, %d acknowledged, %d arrived; %d published to it, %d arrived",
					name, sent, acked, arrived, published, got), name
			case !d.online.Load():
				return name + " is not connected", name
			case !c.Online(name):
				return name + " has no session", name
			}
		}
	}
	return "", ""
}

// check looks at the whole run.
func (s *soak) check(warm, after measured) {
	s.t.Helper()
	var up, down, again, logins int
	for _, c := range s.clouds {
		for _, name := range c.devices {
			d := s.devices[name]
			sent, _, _ := d.counts()
			for way, o := range map[string]*order{"up": c.got[name], "down": &d.got} {
				for _, wrong := range o.wrong {
					s.t.Errorf("%s %s: %s", name, way, wrong)
				}
				again += o.again
			}
			if o := c.got[name]; o.next != sent {
				s.t.Errorf("%s: %d of %d messages have arrived", name, o.next, sent)
			}
			if d.got.next != c.sent[name] {
				s.t.Errorf("%s: %d of %d messages have arrived at it", name, d.got.next, c.sent[name])
			}
			up, down, logins = up+sent, down+d.got.next, logins+int(d.logins.Load())
		}
		for _, v := range c.Violations() {
			if !c.blameless(v) {
				s.t.Errorf("%s did what a client must not at %s: %s: %s", v.Device, v.Time, v.Rule, v.Detail)
			}
		}
		s.t.Logf("%s: %d sessions, %d refused", c.name, c.Totals().Connects, c.Totals().LoginFailures)
	}
	s.t.Logf("%d messages up, %d down, %d came again; devices connected %d times", up, down, again, logins)
	for _, name := range slices.Sorted(maps.Keys(s.count)) {
		s.t.Logf("%4d x %s", s.count[name], name)
	}
	s.ledgers()

	if grown := after.Goroutines - warm.Goroutines; grown > 5 {
		s.t.Errorf("%d more goroutines", grown)
	}
	if grown := after.Files - warm.Files; grown > 3 {
		s.t.Errorf("%d more files are open", grown)
	}
	if after.Heap > warm.Heap*5/4+1<<20 {
		s.t.Errorf("the heap has grown from %d to %d bytes", warm.Heap, after.Heap)
	}
	if after.Anonymous > warm.Anonymous*5/4+4<<20 {
		s.t.Errorf("memory has grown from %d to %d bytes", warm.Anonymous, after.Anonymous)
	}
}
