package crash

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/cloudsim"
	"bridged/internal/lane"
)

// plain is the program without the race detector, which takes several times the memory.
var plain = sync.OnceValues(func() (string, error) {
	program := filepath.Join(filepath.Dir(bridged), "bridged-plain")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "bridged/cmd/bridged").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return program, nil
})

func plainProgram(tb testing.TB) string {
	tb.Helper()
	program, err := plain()
	if err != nil {
		tb.Fatal(err)
	}
	return program
}

// memory is what a process has in memory, in bytes.
type memory struct {
	own  int64 // the heap and the like
	file int64 // pages of files that are mapped: the kernel takes them back when it needs room
}

func (m memory) String() string {
	return fmt.Sprintf("%d MiB and %d MiB of files", m.own>>20, m.file>>20)
}

func (s *site) memory() memory {
	s.tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.cmd.Process.Pid))
	if err != nil {
		s.tb.Fatal(err)
	}
	value := func(name string) int64 {
		_, after, _ := strings.Cut(string(status), "\n"+name+":")
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]), " kB"), 10, 64)
		if err != nil {
			s.tb.Fatalf("%s in %s: %v", name, status, err)
		}
		return n << 10
	}
	return memory{own: value("RssAnon"), file: value("RssFile")}
}

// most returns the most memory that bridged had while f ran.
func (s *site) most(f func()) memory {
	s.tb.Helper()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(s.tb.Context())
	most := s.memory()
	wg.Go(func() {
		for wait(ctx, 20*time.Millisecond) {
			now := s.memory()
			most.own, most.file = max(most.own, now.own), max(most.file, now.file)
		}
	})
	defer wg.Wait()
	defer cancel()
	f()
	cancel()
	wg.Wait()
	return most
}

// outage is a cloud that is away, and how it comes back.
type outage struct {
	name              string
	devices, messages int
	away, back        func(*cloud) error
	restart           bool // bridged is killed and started before that
}

var outages = []outage{
	{
		name: "frozen", devices: 1, messages: 100_000,
		away: func(c *cloud) error { c.StallReads(cloudsim.All, true); return nil },
		back: func(c *cloud) error { c.Heal(); return nil },
	},
	{
		name: "gone", devices: 50, messages: 50_000, restart: true,
		away: func(c *cloud) error { c.Down(); return nil },
		back: func(c *cloud) error { return c.Up() },
	},
}

// The cloud is away for 100,000 messages of a device. Memory stays within bounds, and the drain is complete and in
// order. The same with many devices, and a kill before the drain.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				o.messages /= 10
			}
			o.run(t)
		})
	}
}

// mostMemory is what bridged may have beyond what it has when it does nothing: limits.memory, as much for the garbage
// collector, and what one commit and the store need. The messages take more than that.
const mostMemory = 32 << 20

func (o outage) run(t *testing.T) {
	c := newCloud(t)
	if err := o.away(c); err != nil {
		t.Fatal(err)
	}
	devices := names(o.devices)
	s := newSite(t, settings{
		cloud: c.WSURL(), program: plainProgram(t), devices: devices,
		queue: "{max_messages: 200000, max_bytes: 64MiB}", more: "limits: {memory: 8MiB}",
	})
	s.start()
	s.ready()
	idle := s.memory()
	start := time.Now()
	var senders []*sender
	storing := s.most(func() { senders = backlog(t, s, devices, o.messages/o.devices) })
	took := time.Since(start)
	t.Logf("%d messages were stored and acknowledged in %s, %.0f a second", o.messages, took, rate(o.messages, took))
	if n := c.all(); n > o.messages/100 {
		t.Errorf("%d messages have arrived during the outage", n)
	}
	if o.restart {
		s.kill()
		s.ledger(nil)
		start = time.Now()
		s.start()
		s.ready()
		t.Logf("the next process was ready after %s", time.Since(start))
	}
	start = time.Now()
	if err := o.back(c); err != nil {
		t.Fatal(err)
	}
	draining := s.most(func() {
		moves(newCrew(t), "delivered", o.messages, c.all)
	})
	took = time.Since(start)
	t.Logf("they were delivered in %s, %.0f a second", took, rate(o.messages, took))
	t.Logf("memory: %s at first, %s while storing, %s while draining", idle, storing, draining)
	for _, m := range []memory{storing, draining} {
		if more := m.own - idle.own; more > mostMemory {
			t.Errorf("it took %d MiB more than at first", more>>20)
		}
	}
	c.check(t, senders)
	c.behaved(t)
	s.stop()
	s.ledger(nil).drained(t, lane.Up, devices)
}

func rate(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

// moves waits until a number has reached its end, for as long as it takes while it moves.
func moves(c *crew, what string, end int, count func() int) {
	c.tb.Helper()
	for n := count(); n < end; n = count() {
		c.until(fmt.Sprintf("more than %d of %d messages are %s", n, end, what), func() bool { return count() > n }, nil)
	}
}

// backlog has devices publish messages of QoS 1, and returns when all are acknowledged.
func backlog(t *testing.T, s *site, devices []string, each int) (senders []*sender) {
	t.Helper()
	window := max(20, 500/len(devices))
	all := newCrew(t)
	for _, name := range devices {
		d := &sender{
			name: name, addr: s.addr, window: window, burst: window, pace: time.Millisecond, total: each,
			qos: func(int) byte { return 1 },
		}
		senders = append(senders, d)
		all.run.Go(func() error { return d.run(all.ctx) })
	}
	moves(all, "acknowledged", each*len(devices), func() int { return int(sum(senders)) })
	all.wait()
	return senders
}

// While twenty devices have a backlog that drains, one without is served as if there was none, and none of the twenty
// has to wait for the others.
func TestFairDrain(t *testing.T) {
	t.Parallel()
	const old, each, own = 20, 2000, 10
	c := newCloud(t)
	c.Down()
	devices := names(old + 1)
	s := newSite(t, settings{
		cloud: c.WSURL(), program: plainProgram(t), devices: devices, queue: "{spill_after: 1m}",
		more: "limits: {memory: 8MiB}",
	})
	s.start()
	s.ready()
	senders := backlog(t, s, devices[:old], each)
	s.kill() // the next one tries at once to reach the cloud
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.ready()
	fresh := devices[old]
	l, err := dial(t.Context(), s.addr, fresh, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	until(t, "the backlog drains", func() bool { return c.all() >= old*each/10 }, nil)
	var took []time.Duration
	for i := range own {
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Payload, p.Qos, p.MessageID = "up/"+fresh, text(fresh, i), 1, uint16(i+1)
		start := time.Now()
		if err := l.send(p); err != nil {
			t.Fatal(err)
		}
		next[*packets.PubackPacket](t, l)
		took = append(took, time.Since(start))
	}
	all, least := c.all()-own, each
	for _, d := range senders {
		least = min(least, c.from(d.name))
	}
	slices.Sort(took)
	t.Logf("with %d of %d messages delivered: a new message took %s (the middle one of %d), %s at most",
		all, old*each, took[own/2], own, took[own-1])
	t.Logf("of those with a backlog the slowest has %d of %d delivered", least, each)
	if c.from(fresh) != own {
		t.Errorf("%d messages of the device without a backlog have arrived", c.from(fresh))
	}
	if all == old*each {
		t.Error("the backlog had drained before: either it was not fair, or this shows nothing")
	}
	if least < all/old/20 {
		t.Errorf("a device has %d messages delivered while they have %d on average", least, all/old)
	}
	moves(newCrew(t), "delivered", old*each+own, c.all)
	c.check(t, senders)
	s.stop()
}
