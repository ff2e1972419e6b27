package governor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bridged/internal/credentials"
)

// diary is what happened in a simulation.
type diary struct {
	mu      sync.Mutex
	dials   map[string][]time.Time // by endpoint
	sent    map[string][]time.Time // by identity
	back    map[string]time.Time
	fresh   map[string]int // handshakes younger than SlowAfter, by endpoint
	open    map[string]int
	maxima  map[string]int // of fresh
	openMax map[string]int
}

func newDiary() *diary {
	return &diary{
		dials: map[string][]time.Time{}, sent: map[string][]time.Time{}, back: map[string]time.Time{},
		fresh: map[string]int{}, open: map[string]int{}, maxima: map[string]int{}, openMax: map[string]int{},
	}
}

func (d *diary) dialled(endpoint string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dials[endpoint] = append(d.dials[endpoint], time.Now())
	for _, key := range []string{endpoint, ""} {
		d.fresh[key]++
		d.open[key]++
		d.maxima[key] = max(d.maxima[key], d.fresh[key])
		d.openMax[key] = max(d.openMax[key], d.open[key])
	}
}

func (d *diary) add(m map[string]int, endpoint string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m[endpoint] += n
	m[""] += n
}

// most is how many handshakes there were at once, young ones and all.
func (d *diary) most() (fresh, open int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.maxima[""], d.openMax[""]
}

// simulated is a device of a simulation.
type simulated struct {
	name, endpoint string
	limit          credentials.Rate
	handshake      func() (took time.Duration, ok bool)
}

// run dials until the device is back.
func (s simulated) run(ctx context.Context, g *Governor, d *diary) {
	for ctx.Err() == nil {
		l, err := g.Wait(ctx, Dial{Endpoint: s.endpoint, Identity: s.name, Limit: s.limit})
		if err != nil {
			return
		}
		d.dialled(s.endpoint)
		took, ok := s.handshake()
		quick := min(took, defaultSlowAfter)
		pass(quick)
		d.add(d.fresh, s.endpoint, -1)
		pass(took - quick)
		d.mu.Lock()
		d.sent[s.name] = append(d.sent[s.name], time.Now())
		d.mu.Unlock()
		l.Sent()
		d.add(d.open, s.endpoint, -1)
		if ok {
			d.mu.Lock()
			d.back[s.name] = time.Now()
			d.mu.Unlock()
			l.Connected()
			return
		}
		l.Done()
	}
}

// withinBucket fails the test if in any span of time there were more than the burst and what the rate gives.
func withinBucket(t *testing.T, what string, times []time.Time, l Limits) {
	t.Helper()
	for i := range times {
		for j := i; j < len(times); j++ {
			span := times[j].Sub(times[i])
			if n := float64(j - i + 1); n > float64(l.Burst)+l.PerSecond*span.Seconds()+1e-6 {
				t.Fatalf("%s: %.0f dials within %s, from %s on", what, n, span, times[i])
			}
		}
	}
}

// withinRate fails the test if an identity sent more in any span than its cloud allows.
func withinRate(t *testing.T, name string, sent []time.Time, r credentials.Rate) {
	t.Helper()
	for i := 0; i+r.Count < len(sent); i++ {
		if span := sent[i+r.Count].Sub(sent[i]); span < r.Per {
			t.Fatalf("%s sent %d within %s", name, r.Count+1, span)
		}
	}
}

// A power cut: two thousand devices of one cloud want to be back at once. One in five attempts fails.
func TestFleetComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, d := New(Config{}), newDiary()
		var devices []simulated
		for i := range 2000 {
			s := simulated{name: fmt.Sprint("dev", i), endpoint: "one"}
			s.limit = []credentials.Rate{tencent, alibaba, {}}[i%3]
			failures := 0
			if i%5 == 0 {
				failures = 1 + i%7 // more than Alibaba allows in a minute for some
			}
			s.handshake = func() (time.Duration, bool) {
				failures--
				return 200*time.Millisecond + rand.N(800*time.Millisecond), failures < 0
			}
			devices = append(devices, s)
		}
		attempts := 2000
		for i := 0; i < 2000; i += 5 {
			attempts += 1 + i%7
		}
		start := time.Now()
		var wg sync.WaitGroup
		for _, s := range devices {
			wg.Go(func() { s.run(t.Context(), g, d) })
		}
		wg.Wait()
		l := defaultEndpoint
		if n := len(d.dials["one"]); n != attempts {
			t.Errorf("%d dials, want %d", n, attempts)
		}
		withinBucket(t, "one", d.dials["one"], l)
		for _, s := range devices {
			withinRate(t, s.name, d.sent[s.name], s.limit)
			if d.back[s.name].IsZero() {
				t.Fatalf("%s is not back", s.name)
			}
		}
		if d.maxima["one"] > l.AtOnce {
			t.Errorf("%d handshakes at once", d.maxima["one"])
		}
		// The rate decides, and for who needs more than five connects Alibaba's minute.
		within := time.Duration(float64(attempts-l.Burst)/l.PerSecond*float64(time.Second)) + span(alibaba) + time.Second
		if took := time.Since(start); took > within {
			t.Errorf("back after %s, want within %s", took, within)
		}
		g.clean(t)
		pass(span(alibaba) + time.Millisecond)
		if _, n, _ := g.sizes(); n != 0 {
			t.Errorf("%d identities are remembered for ever", n)
		}
		pass(forget + time.Millisecond)
		if endpoints, _, entries := g.sizes(); endpoints+entries != 0 {
			t.Errorf("%d endpoints and %d entries are remembered for ever", endpoints, entries)
		}
	})
}

// Without failures the time is exactly what the rate says.
func TestFleetTakesTheComputedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, d := New(Config{}), newDiary()
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 2000 {
			s := simulated{name: fmt.Sprint(i), endpoint: fmt.Sprint("cloud", i%2), limit: tencent,
				handshake: func() (time.Duration, bool) { return time.Second, true }}
			wg.Go(func() { s.run(t.Context(), g, d) })
		}
		wg.Wait()
		var all []time.Time
		for _, times := range d.dials {
			all = append(all, times...)
		}
		slices.SortFunc(all, time.Time.Compare)
		withinBucket(t, "all", all, defaultTotal)
		want := time.Duration((2000-20)/50.0*float64(time.Second)) + time.Second
		if took := time.Since(start); took.Round(time.Millisecond) != want {
			t.Errorf("back after %s, want %s", took, want)
		}
	})
}

// A cloud that never answers a quarter of its connections does not keep the others' devices for long.
func TestSlowHandshakesMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, d := New(Config{}), newDiary()
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 2000 {
			first := i%4 == 0
			s := simulated{name: fmt.Sprint(i), endpoint: "one", handshake: func() (time.Duration, bool) {
				if first {
					first = false
					return 35 * time.Second, false
				}
				return time.Second, true
			}}
			wg.Go(func() { s.run(t.Context(), g, d) })
		}
		wg.Wait()
		if d.maxima["one"] > defaultEndpoint.AtOnce || d.openMax["one"] != defaultEndpoint.Open {
			t.Errorf("%d fresh ones at once, %d open; want at most %d, and %d", d.maxima["one"], d.openMax["one"],
				defaultEndpoint.AtOnce, defaultEndpoint.Open)
		}
		// 500 stuck ones, at most 128 at a time, for 35 s each.
		within := time.Duration((500.0/128*35 + 500.0/25 + 35) * float64(time.Second))
		if took := time.Since(start); took > within {
			t.Errorf("back after %s, want within %s", took, within)
		}
		g.clean(t)
	})
}

// Endpoints that never answer do not hold up one that does, not even all together.
func TestEndpointsAreIsolated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, d := New(Config{}), newDiary()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 2000 {
			s := simulated{name: fmt.Sprint("dead", i), endpoint: fmt.Sprint("dead", i%5),
				handshake: func() (time.Duration, bool) { return 35 * time.Second, false }}
			wg.Go(func() { s.run(ctx, g, d) })
		}
		pass(20 * time.Second)
		if s := g.Stats(); s.Open < defaultTotal.Open {
			t.Fatalf("%d open, want %d at least: this tests nothing", s.Open, defaultTotal.Open)
		}
		if fresh, open := d.most(); fresh > defaultTotal.AtOnce+5*spare || open > defaultTotal.Open+5*spare {
			t.Errorf("%d handshakes at once, %d open", fresh, open)
		}
		start := time.Now()
		var good sync.WaitGroup
		for i := range 40 {
			s := simulated{name: fmt.Sprint("good", i), endpoint: "good",
				handshake: func() (time.Duration, bool) { return 200 * time.Millisecond, true }}
			good.Go(func() { s.run(ctx, g, d) })
		}
		good.Wait()
		// At worst four at a time, and a sixth of the process's rate.
		if took := time.Since(start); took > 40*6*time.Second/50+2*time.Second {
			t.Errorf("the good endpoint's devices were back after %s", took)
		}
		cancel()
		wg.Wait()
		g.clean(t)
	})
}
