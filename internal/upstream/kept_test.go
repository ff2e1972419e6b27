package upstream

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"bridged/internal/governor"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// notes stands for the disk where sessions are kept.
type notes struct {
	mu    sync.Mutex
	last  *Kept
	all   []*Kept
	full  bool
	dones []func() // that wait while it is full
}

func (n *notes) save(k *Kept, done func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = k
	n.all = append(n.all, k)
	if n.full {
		n.dones = append(n.dones, done)
		return
	}
	go done()
}

// fill makes the disk full, or writes what has waited for room.
func (n *notes) fill(full bool) {
	n.mu.Lock()
	dones := n.dones
	n.full, n.dones = full, nil
	n.mu.Unlock()
	for _, done := range dones {
		done()
	}
}

func (n *notes) kept() (last *Kept, writes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.last, len(n.all)
}

// holds checks what is kept, and how often something was written.
func (n *notes) holds(t *testing.T, writes int, expiry uint32, left bool, filters ...string) {
	t.Helper()
	k, got := n.kept()
	if got != writes {
		t.Errorf("%d writes, want %d", got, writes)
	}
	if k == nil {
		t.Fatal("nothing is kept")
	}
	names := slices.Sorted(maps.Keys(k.Filters))
	if k.Expiry != expiry || k.Left.IsZero() == left || !slices.Equal(names, filters) {
		t.Errorf("kept %+v", *k)
	}
}

// gone checks that nothing is kept.
func (n *notes) gone(t *testing.T, writes int) {
	t.Helper()
	if k, got := n.kept(); k != nil || got != writes {
		t.Errorf("kept %+v, %d writes, want %d", k, got, writes)
	}
}

// keeping starts a worker in front of a cloud that is not there.
func keeping(t *testing.T, change func(*Config)) (*rig, *notes) {
	t.Helper()
	n := new(notes)
	cfg := base("ws://127.0.0.1:1")
	cfg.Retry = governor.NewRetries(once)()
	cfg.Save = n.save
	if change != nil {
		change(&cfg)
	}
	return start(t, cfg), n
}

func unsubscribe(t *testing.T, r *rig, filter string) {
	t.Helper()
	done := make(chan struct{})
	r.w.Unsubscribe([]string{filter}, func() { close(done) })
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("no answer to UNSUBSCRIBE")
	}
}

func TestKeptForever(t *testing.T) {
	r, n := keeping(t, nil)
	forever := mqtt.Connect{Expiry: mqtt.Forever}
	r.w.Connected(forever)
	n.holds(t, 1, mqtt.Forever, false)
	subscribe(t, r, "a", 1)
	n.holds(t, 2, mqtt.Forever, false, "a")
	for range 3 { // costs nothing
		subscribe(t, r, "a", 1)
		r.w.Disconnected(false, mqtt.Forever)
		r.w.Connected(forever)
	}
	n.holds(t, 2, mqtt.Forever, false, "a")
	subscribe(t, r, "a", 2)
	subscribe(t, r, "b", 0)
	n.holds(t, 4, mqtt.Forever, false, "a", "b")
	if k, _ := n.kept(); k.Filters["a"] != 2 {
		t.Errorf("kept %+v", k)
	}
	unsubscribe(t, r, "b")
	n.holds(t, 5, mqtt.Forever, false, "a")
	r.w.Disconnected(true, mqtt.Forever)
	r.w.Connected(mqtt.Connect{Clean: true})
	n.gone(t, 6)
	subscribe(t, r, "a", 1)
	r.w.Disconnected(true, 0)
	n.gone(t, 6)
}

func TestKeptForATime(t *testing.T) {
	r, n := keeping(t, nil)
	hour := mqtt.Connect{Expiry: 3600}
	r.w.Connected(hour)
	subscribe(t, r, "a", 1)
	n.holds(t, 2, 3600, false, "a")
	before := time.Now()
	r.w.Disconnected(true, 3600)
	n.holds(t, 3, 3600, true, "a")
	if k, _ := n.kept(); k.Left.Before(before.Round(0)) || k.Left.After(time.Now()) {
		t.Errorf("left at %s", k.Left)
	}
	r.w.Connected(hour)
	n.holds(t, 4, 3600, false, "a")
	r.w.Disconnected(true, 60) // DISCONNECT says so
	n.holds(t, 5, 60, true, "a")
	r.w.Connected(mqtt.Connect{Expiry: 60})
	r.w.Disconnected(true, mqtt.Forever)
	n.holds(t, 7, mqtt.Forever, false, "a")
	r.w.EndSession()
	n.gone(t, 8)
	r.w.Connected(hour)
	n.holds(t, 9, 3600, false)
	subscribe(t, r, "a", 1)
	r.w.Disconnected(true, 3600)
	r.w.Connected(mqtt.Connect{Reset: true, Expiry: 60}) // another session
	n.holds(t, 12, 60, false)
	r.w.Disconnected(true, 0) // and that one ends with DISCONNECT
	n.gone(t, 13)
}

// What is kept is taken up without writing, but for the time when the device left.
func TestKeptRestored(t *testing.T) {
	filters := map[string]byte{"a": 1}
	left := time.Now().Add(-time.Minute).Round(0)
	for name, test := range map[string]struct {
		kept   Kept
		writes int
	}{
		"forever":       {Kept{Filters: filters, Expiry: mqtt.Forever}, 0},
		"for a time":    {Kept{Filters: filters, Expiry: 3600, Left: left}, 0},
		"was connected": {Kept{Filters: filters, Expiry: 3600}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r, n := keeping(t, func(c *Config) { c.Kept = &test.kept })
			if k, writes := n.kept(); writes != test.writes || writes > 0 && time.Since(k.Left) > time.Minute {
				t.Errorf("%d writes, kept %+v", writes, k)
			}
			r.w.Connected(mqtt.Connect{Expiry: test.kept.Expiry})
			subscribe(t, r, "a", 1)
			if test.kept.Expiry == mqtt.Forever {
				n.mu.Lock()
				if len(n.all) > 0 {
					t.Errorf("written %+v", n.all)
				}
				n.mu.Unlock()
				return
			}
			n.holds(t, test.writes+1, 3600, false, "a")
			r.w.EndSession()
			n.gone(t, test.writes+2)
		})
	}
}

// The subscriptions of a device that connects clean are kept if its cloud session is, by configuration.
func TestKeptByConfiguration(t *testing.T) {
	persistent := func(c *Config) { c.Persistent = true }
	r, n := keeping(t, persistent)
	for range 3 {
		r.w.Connected(mqtt.Connect{Clean: true})
		subscribe(t, r, "a", 1)
		r.w.Disconnected(true, 0)
	}
	n.holds(t, 1, 0, false, "a")
	k, _ := n.kept()

	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Kept, cfg.Persistent, cfg.Always = k, true, true
	start(t, cfg)
	if err := c.WaitSubscribed(within(t), "dev", "a"); err != nil {
		t.Error(err)
	}

	_, n = keeping(t, func(c *Config) { c.Kept = k }) // it is not any more
	n.gone(t, 1)
}

// Nothing is confirmed to the device before it is on disk; but a full disk does not keep it waiting for long.
func TestSubackWaitsForTheDisk(t *testing.T) {
	r, n := keeping(t, nil)
	r.w.Connected(mqtt.Connect{Expiry: 60})
	answers := make(chan string, 10)
	ask := func() {
		r.w.Subscribe([]mqtt.Subscription{{Filter: "a", QoS: 1}}, func([]byte) { answers <- "SUBACK" })
		r.w.Unsubscribe([]string{"b"}, func() { answers <- "UNSUBACK" })
	}
	next := func() string {
		t.Helper()
		select {
		case a := <-answers:
			return a
		case <-time.After(patience):
			t.Fatal("no answer")
			return ""
		}
	}
	subscribe(t, r, "b", 1)
	r.inState(Waiting)
	n.fill(true)
	ask()
	select {
	case a := <-answers:
		t.Fatalf("%s before it is on disk", a)
	case <-time.After(50 * time.Millisecond):
	}
	n.fill(false)
	if a, b := next(), next(); a != "SUBACK" || b != "UNSUBACK" {
		t.Errorf("%s, %s", a, b)
	}

	n.fill(true)
	began := time.Now()
	r.w.Unsubscribe([]string{"a"}, func() { answers <- "UNSUBACK" })
	r.w.Subscribe([]mqtt.Subscription{{Filter: "a", QoS: 2}}, func([]byte) { answers <- "SUBACK" })
	if a, b := next(), next(); a != "UNSUBACK" || b != "SUBACK" {
		t.Errorf("%s, %s", a, b)
	}
	if took := time.Since(began); took < saveWithin || took > saveWithin+2*tickEvery {
		t.Errorf("answered after %s", took)
	}
	r.w.Subscribe([]mqtt.Subscription{{Filter: "c", QoS: 2}}, func([]byte) { answers <- "SUBACK" })
	next()
	if lines := r.logs.FilterMessageSnippet("the disk does not take").Len(); lines != 1 {
		t.Errorf("%d lines in the log", lines)
	}

	r.w.Disconnected(true, 60)
	r.w.Connected(mqtt.Connect{Clean: true}) // that is not on disk either, but does not matter
	began = time.Now()
	if code := subscribe(t, r, "a", 1); code != 1 || time.Since(began) > saveWithin/2 {
		t.Errorf("code %d after %s", code, time.Since(began))
	}
	n.fill(false)
}

// With upstream always the bridge subscribes before the device returns, and goes on with the session.
func TestKeptIsSubscribed(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Always = true
	cfg.Kept = &Kept{Filters: map[string]byte{"a": 2}, Expiry: 60, Left: time.Now()}
	cfg.Down = lane.New(lane.Config{Hold: true})
	r := start(t, cfg)
	if err := c.WaitSubscribed(within(t), "dev", "a"); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish("dev", "a", []byte("x"), 1); err != nil {
		t.Fatal(err)
	}
	down := cfg.Down.(*lane.Lane)
	until(t, "the message", func() bool { return down.Counters().Queued == 1 })
	r.w.Connected(mqtt.Connect{Expiry: 60})
	r.inState(Online)
	if conns := c.Connections("dev"); len(conns) != 1 || conns[0].Clean {
		t.Errorf("connections %+v", conns)
	}
	if len(c.Acked()) > 0 {
		t.Error("acknowledged without the device")
	}
}
