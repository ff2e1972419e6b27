package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"bridged/internal/cloudsim"
)

// cloud is a simulated cloud and what has arrived there. It behaves like a broker with persistent sessions: it keeps
// what was not acknowledged and sends it again.
type cloud struct {
	*cloudsim.Cloud

	mu      sync.Mutex // protects the following fields
	arrived map[string]*order
	faults  []error
}

func newCloud(tb testing.TB) *cloud {
	tb.Helper()
	c := &cloud{arrived: make(map[string]*order)}
	sim, err := cloudsim.New(cloudsim.Options{
		Kind: cloudsim.Generic, Addr: freeAddr(tb), NoWSS: true, KeepReceived: -1, OnMessage: c.take,
	})
	if err != nil {
		tb.Fatal(err)
	}
	c.Cloud = sim
	tb.Cleanup(sim.Close)
	return c
}

func (c *cloud) take(m cloudsim.Received) {
	n, err := number(m.Device, m.Payload)
	if err == nil && m.Topic != "up/"+m.Device {
		err = fmt.Errorf("%s published to %s", m.Device, m.Topic)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.faults = append(c.faults, err)
		return
	}
	o := c.arrived[m.Device]
	if o == nil {
		o = &order{device: m.Device}
		c.arrived[m.Device] = o
	}
	o.take(n, m.Connection)
}

// from is how many different messages of a device have arrived.
func (c *cloud) from(device string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.arrived[device]; o != nil {
		return o.next
	}
	return 0
}

// all is how many different messages have arrived.
func (c *cloud) all() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, o := range c.arrived {
		n += o.next
	}
	return n
}

// check looks at what has arrived of what was sent.
func (c *cloud) check(tb testing.TB, senders []*sender) {
	tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, err := range c.faults {
		tb.Error(err)
	}
	all, repeated := 0, 0
	for _, s := range senders {
		o := c.arrived[s.name]
		if o == nil {
			tb.Errorf("%s: nothing arrived", s.name)
			continue
		}
		if err := o.check(s.next, source{sent: s.sent}); err != nil {
			tb.Error(err)
		}
		if s.early > 0 {
			tb.Errorf("%s: %d acknowledgements came before those of older messages", s.name, s.early)
		}
		all += o.next
		repeated += o.all - o.next
	}
	tb.Logf("%d messages, %d of them came again", all, repeated)
}

// behaved checks that bridged has kept to the standard.
func (c *cloud) behaved(tb testing.TB) {
	tb.Helper()
	for i, v := range c.Violations() {
		if i == 10 {
			tb.Errorf("and %d more violations", c.Totals().Violations-10)
			break
		}
		tb.Errorf("%s did what a client must not: %s: %s", v.Device, v.Rule, v.Detail)
	}
}

// connections are how often each device connected.
func (c *cloud) connections() map[string]int {
	n := make(map[string]int)
	for _, p := range c.Connections(cloudsim.All) {
		n[p.Device]++
	}
	return n
}

// weather has the cloud come and go until ctx ends. Then it is well.
func (c *cloud) weather(ctx context.Context, rng *rand.Rand) error {
	var err error
	for err == nil && wait(ctx, between(rng, 300*time.Millisecond, 1500*time.Millisecond)) {
		err = c.fault(ctx, rng)
	}
	c.Heal()
	return errors.Join(err, c.Up())
}

// fault has something go wrong for a while.
func (c *cloud) fault(ctx context.Context, rng *rand.Rand) error {
	const all = cloudsim.All
	cut := []cloudsim.Cut{cloudsim.CutClose, cloudsim.CutReset, cloudsim.CutCloseFrame}[rng.IntN(3)]
	long := between(rng, 200*time.Millisecond, 2*time.Second)
	switch rng.IntN(8) {
	case 0, 1:
		c.Down()
		wait(ctx, long)
		return c.Up()
	case 2: // it stands still
		c.StallReads(all, true)
		wait(ctx, long)
		c.StallReads(all, false)
	case 3: // it acknowledges nothing, and the acknowledgements come late or are lost
		c.WithholdAcks(all)
		wait(ctx, long)
		if rng.IntN(2) == 0 {
			c.Drop(all, cut)
		}
		c.ReleaseAcks(all)
	case 4:
		c.LoseAcks(all, 1+rng.IntN(8))
	case 5:
		c.DropAfter(all, 1+rng.IntN(8), 1, cut)
	case 6:
		c.Drop(all, cut)
	case 7: // connections get nowhere
		c.StallConnack(all, true)
		c.Drop(all, cut)
		wait(ctx, long)
		c.StallConnack(all, false)
	}
	return nil
}

// publisher publishes numbered messages to devices with persistent sessions.
type publisher struct {
	cloud   *cloud
	devices []string
	qos     func(device, n int) byte

	next []int // by device; to be read when run has returned
}

// run publishes until ctx ends. A cloud's application can always publish, whether the cloud can be reached or not.
func (p *publisher) run(ctx context.Context, rng *rand.Rand, pace time.Duration) error {
	p.next = make([]int, len(p.devices))
	for wait(ctx, between(rng, 0, 2*pace)) {
		i := rng.IntN(len(p.devices))
		for range 1 + rng.IntN(5) {
			name := p.devices[i]
			if err := p.cloud.Publish(name, "down/"+name, text(name, p.next[i]), p.qos(i, p.next[i])); err != nil {
				return fmt.Errorf("message %d: %w", p.next[i], err)
			}
			p.next[i]++
		}
	}
	return nil
}

// subscribed says whether all devices' sessions have a subscription.
func (c *cloud) subscribed(devices []string) bool {
	n := 0
	for _, s := range c.Sessions() {
		if len(s.Subs) > 0 && slices.Contains(devices, s.Device) {
			n++
		}
	}
	return n == len(devices)
}

// send publishes messages of QoS 2 to a device.
func (c *cloud) send(tb testing.TB, device string, numbers ...int) {
	tb.Helper()
	for _, n := range numbers {
		if err := c.Publish(device, "down/"+device, text(device, n), 2); err != nil {
			tb.Fatal(err)
		}
	}
}

// unacked is what the cloud has sent to a device and is not done with.
func (c *cloud) unacked(device string) []cloudsim.Unacked {
	s, _ := c.Session(device)
	return s.Unacked
}
