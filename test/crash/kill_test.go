package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"bridged/internal/lane"
)

// crew are the goroutines of a test: devices, the weather in the cloud, who publishes there.
type crew struct {
	tb     testing.TB
	ctx    context.Context // of all
	cancel func()
	run    *errgroup.Group
}

func newCrew(tb testing.TB) *crew {
	ctx, cancel := context.WithCancel(tb.Context())
	run, ctx := errgroup.WithContext(ctx)
	c := &crew{tb: tb, ctx: ctx, cancel: cancel, run: run}
	tb.Cleanup(func() { // of a test that has failed
		cancel()
		_ = run.Wait()
	})
	return c
}

// wait waits until all have ended.
func (c *crew) wait() {
	c.tb.Helper()
	if err := c.run.Wait(); err != nil {
		c.tb.Error(err)
	}
}

// until is until, and ends when one of the crew has failed.
func (c *crew) until(what string, cond func() bool, progress func() string) {
	c.tb.Helper()
	until(c.tb, what, func() bool {
		if c.ctx.Err() != nil {
			c.tb.Fatalf("%s: %v", what, c.run.Wait())
		}
		return cond()
	}, progress)
}

func child(rng *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(rng.Uint64(), 0)) }

// kills is how often bridged is killed.
func kills() int {
	if testing.Short() {
		return 6
	}
	return 22
}

// killAndStart kills bridged at random moments, now and then while it starts, and starts it again at once, unless ctx
// ends. Now and then it looks at the ledger in between.
func (s *site) killAndStart(ctx context.Context, rng *rand.Rand, times int) {
	s.tb.Helper()
	for i := range times {
		moment := between(rng, 300*time.Millisecond, 2*time.Second)
		if i%4 == 2 {
			moment /= 8
		} else {
			s.ready()
		}
		if !wait(ctx, moment) {
			return
		}
		s.kill()
		if i%4 == 3 {
			s.ledger(nil)
		}
		s.start()
	}
}

// durabilities are the two ways to keep messages.
var durabilities = []string{"spill", "always"}

func queueYAML(durability string) string {
	return fmt.Sprintf("{spill_after: 200ms, durability: %s}", durability)
}

const manyDevices = 50

// onlyQoS2 says which devices use no other QoS.
func onlyQoS2(device int) bool { return device%5 == 4 }

// qosOf is the QoS of a message: each kind of device has its own mixture.
func qosOf(device, n int) byte {
	switch {
	case onlyQoS2(device):
		return 2
	case device%5 == 3:
		return byte(1 + n%2)
	}
	return 1
}

// Devices publish, the cloud comes and goes, and bridged is killed.
func TestUp(t *testing.T) {
	t.Parallel()
	for _, durability := range durabilities {
		t.Run(durability, func(t *testing.T) {
			t.Parallel()
			rng := random(t)
			c := newCloud(t)
			s := newSite(t, settings{cloud: c.WSURL(), queue: queueYAML(durability), devices: names(manyDevices)})
			s.start()
			all := newCrew(t)
			finish := make(chan struct{})
			senders := startSenders(all, s, finish)
			calm, storm := context.WithCancel(all.ctx)
			weather := newCrew(t)
			skies := child(rng)
			weather.run.Go(func() error { return c.weather(calm, skies) })

			s.killAndStart(all.ctx, rng, kills())
			storm()
			weather.wait()
			s.kill()
			s.start()
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
			enough(t, c.all())
			s.stop()
			checkUpLedger(t, s.ledger(nil), senders, durability)
		})
	}
}

// startSenders starts devices of several kinds: some with clean sessions, some that drop their connection now and then.
func startSenders(all *crew, s *site, finish <-chan struct{}) []*sender {
	var senders []*sender
	for i, name := range names(manyDevices) {
		d := &sender{
			name: name, addr: s.addr, clean: i%3 == 2, window: 2 + i%7, burst: 1, pace: 40 * time.Millisecond,
			qos: func(n int) byte { return qosOf(i, n) }, finish: finish,
		}
		if i%4 == 3 {
			d.leaves = 700 * time.Millisecond
		}
		senders = append(senders, d)
		all.run.Go(func() error { return d.run(all.ctx) })
	}
	return senders
}

func upProgress(c *cloud, senders []*sender) string {
	var b strings.Builder
	for _, d := range senders {
		if n := c.from(d.name); !d.ended.Load() || n < d.next {
			fmt.Fprintf(&b, "\n%s: %d acknowledged, %d arrived, ended %v", d.name, d.acked.Load(), n, d.ended.Load())
		}
	}
	return b.String()
}

// checkUpLedger checks the ledgers after everything was delivered. Where all is stored first nothing is missing in
// them, and what a device of QoS 2 with a session repeated is not in them twice.
func checkUpLedger(t *testing.T, l ledger, senders []*sender, durability string) {
	t.Helper()
	l.drained(t, lane.Up, names(manyDevices))
	if durability != "always" {
		return
	}
	for i, d := range senders {
		accepted, sent := int(l[lane.Key{Device: d.name, Direction: lane.Up}].Accepted), d.next
		if accepted < sent || accepted > sent && onlyQoS2(i) && !d.clean {
			t.Errorf("%s: %d messages were accepted, and %d published", d.name, accepted, sent)
		}
	}
}

// The cloud publishes to devices with persistent sessions that come and go, the cloud does so too, and bridged is
// killed.
func TestDown(t *testing.T) {
	t.Parallel()
	for _, durability := range durabilities {
		t.Run(durability, func(t *testing.T) {
			t.Parallel()
			rng := random(t)
			c := newCloud(t)
			devices := names(manyDevices)
			s := newSite(t, settings{
				cloud: c.WSURL(), queue: queueYAML(durability), devices: devices,
				each: func(i int) string { return []string{"", ", linger: 200ms", ", upstream: always"}[i%3] },
			})
			s.start()
			all := newCrew(t)
			stay := make(chan struct{})
			receivers := startReceivers(all, s, rng, stay)
			all.until("all devices have subscribed", func() bool { return c.subscribed(devices) }, nil)
			s.unchanged(time.Second)

			calm, storm := context.WithCancel(all.ctx)
			others := newCrew(t)
			skies, dice := child(rng), child(rng)
			others.run.Go(func() error { return c.weather(calm, skies) })
			p := &publisher{cloud: c, devices: devices, qos: qosOf}
			others.run.Go(func() error { return p.run(calm, dice, 3*time.Millisecond) })
			s.killAndStart(all.ctx, rng, kills())
			storm()
			others.wait()
			s.kill()
			s.start()
			close(stay)
			all.until("all has arrived", func() bool { return downProgress(receivers, p.next) == "" },
				func() string { return downProgress(receivers, p.next) })
			all.cancel()
			all.wait()
			c.behaved(t)
			checkDown(t, c, receivers, p.next)
			s.stop()
			checkDownLedger(t, s.ledger(nil), devices, p.next, durability)
		})
	}
}

func startReceivers(all *crew, s *site, rng *rand.Rand, stay <-chan struct{}) []*receiver {
	var receivers []*receiver
	for i, name := range names(manyDevices) {
		r := newReceiver(name, s.addr, child(rng))
		r.stay, r.later = stay, onlyQoS2(i)
		receivers = append(receivers, r)
		all.run.Go(func() error { return r.run(all.ctx) })
	}
	return receivers
}

// downProgress tells what is missing.
func downProgress(receivers []*receiver, published []int) string {
	var b strings.Builder
	for i, r := range receivers {
		if n := r.arrived(); n < published[i] {
			fmt.Fprintf(&b, "\n%s: %d of %d", r.name, n, published[i])
		}
	}
	return b.String()
}

func checkDown(t *testing.T, c *cloud, receivers []*receiver, published []int) {
	t.Helper()
	connections := c.connections()
	all, repeated := 0, 0
	for i, r := range receivers {
		if err := r.got.check(published[i], source{repeats: connections[r.name] - 1}); err != nil {
			t.Error(err)
		}
		all += r.got.next
		repeated += r.got.all - r.got.next
	}
	t.Logf("%d messages, %d of them came again", all, repeated)
	enough(t, all)
}

// enough checks that there were messages to be lost between the kills.
func enough(t *testing.T, messages int) {
	t.Helper()
	if least := 20 * kills(); messages < least {
		t.Errorf("%d messages only, want %d at least: this shows nothing", messages, least)
	}
}

func checkDownLedger(t *testing.T, l ledger, devices []string, published []int, durability string) {
	t.Helper()
	l.drained(t, lane.Down, devices)
	if durability != "always" {
		return
	}
	for i, name := range devices {
		accepted := int(l[lane.Key{Device: name, Direction: lane.Down}].Accepted)
		if accepted < published[i] || accepted > published[i] && onlyQoS2(i) {
			t.Errorf("%s: %d messages were accepted, and %d published", name, accepted, published[i])
		}
	}
}
