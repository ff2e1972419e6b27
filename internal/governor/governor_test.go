package governor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bridged/internal/credentials"
)

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{})
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 300 {
			limit := credentials.Rate{}
			if i%2 == 0 {
				limit = tencent
			}
			wg.Go(func() {
				l := wait(t, g, Dial{Endpoint: "one", Identity: fmt.Sprint(i), Limit: limit})
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				l.Done()
			})
			synctest.Wait()
		}
		wg.Wait()
		if !slices.IsSorted(order) || len(order) != 300 {
			t.Errorf("granted in the order %v", order)
		}
	})
}

// Whom the limit holds does not hold up who comes after.
func TestLimitedDoesNotBlockTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{})
		d := Dial{Endpoint: "one", Identity: "a", Limit: tencent}
		l := now(t, g, d)
		l.Sent()
		l.Connected()
		var hold Hold
		d.OnHold = func(h Hold) { hold = h }
		var again time.Duration
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { wait(t, g, d).Done(); again = time.Since(start) })
		synctest.Wait()
		now(t, g, Dial{Endpoint: "one", Identity: "b", Limit: tencent}).Done()
		wg.Wait()
		if want := 5250 * time.Millisecond; again != want || !hold.Limited || hold.For != want {
			t.Errorf("again after %s, told %+v; want %s", again, hold, want)
		}
	})
}

func TestOnlySentCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{})
		d := Dial{Endpoint: "one", Identity: "a", Limit: tencent}
		for range 3 {
			now(t, g, d).Done() // it did not come as far as CONNECT
		}
		l := now(t, g, d)
		pass(3 * time.Second)
		l.Sent() // from here on
		l.Done()
		pass(5 * time.Second)
		if granted(g, d) {
			t.Error("granted within the limit's margin")
		}
		pass(250 * time.Millisecond)
		now(t, g, d).Done()
	})
}

// CONNECT may take long to arrive, and it is then that the cloud counts it.
func TestLateConnect(t *testing.T) {
	for _, end := range []func(*Lease){(*Lease).Connected, (*Lease).Done} {
		synctest.Test(t, func(t *testing.T) {
			g := New(Config{})
			d := Dial{Endpoint: "one", Identity: "a", Limit: tencent}
			l := now(t, g, d)
			l.Sent()
			pass(3 * time.Second)
			end(l)
			pass(5 * time.Second)
			if granted(g, d) {
				t.Error("the cloud may have the first since 5 s only")
			}
			pass(250 * time.Millisecond)
			now(t, g, d).Done()
			pass(time.Hour)
			g.clean(t)
		})
	}
}

func TestWindowOfSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{})
		d := Dial{Endpoint: "one", Identity: "a", Limit: alibaba}
		start := time.Now()
		for i := range 5 {
			l := now(t, g, d)
			l.Sent()
			l.Done()
			if i == 0 {
				pass(10 * time.Second)
			}
		}
		for range 2 { // 63 s after the first, and then after the second
			l := wait(t, g, d)
			l.Sent()
			l.Done()
			if took := time.Since(start); took != 63*time.Second && took != 73*time.Second {
				t.Errorf("granted after %s", took)
			}
		}
	})
}

func TestOneAttemptOfAnIdentityAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{})
		d := Dial{Endpoint: "one", Identity: "a", Limit: alibaba}
		l := now(t, g, d)
		var second *Lease
		var wg sync.WaitGroup
		wg.Go(func() { second = wait(t, g, d) })
		pass(time.Minute)
		if second != nil {
			t.Fatal("two at once")
		}
		l.Sent()
		l.Done()
		wg.Wait()
		second.Done()
		g.clean(t)
	})
}

// What is known of an identity does not expire while somebody needs it.
func TestIdentityInUseIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{})
		d := Dial{Endpoint: "one", Identity: "a", Limit: tencent}
		l := now(t, g, d)
		l.Sent()
		l.Done()
		l = wait(t, g, d)
		if granted(g, d) {
			t.Error("two at once")
		}
		pass(time.Minute)
		if granted(g, d) {
			t.Error("two at once, later")
		}
		l.Done()
		g.clean(t)
	})
}

// Nor is an endpoint forgotten for which somebody waits.
func TestEndpointInUseIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{})
		d := Dial{Endpoint: "one", Identity: "a", Limit: credentials.Rate{Count: 1, Per: 2 * time.Hour}}
		l := now(t, g, d)
		l.Sent()
		l.Connected()
		var wg sync.WaitGroup
		wg.Go(func() { wait(t, g, d).Done() })
		pass(forget + time.Minute)
		if n, _, _ := g.sizes(); n != 1 {
			t.Errorf("%d endpoints", n)
		}
		wg.Wait()
		g.clean(t)
	})
}

// Endpoints share the process's rate evenly, whoever came first.
func TestEndpointsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Endpoint: Limits{PerSecond: 100, Burst: 100}, Total: Limits{PerSecond: 10, Burst: 1}})
		var mu sync.Mutex
		count := map[string]int{"0": 0, "1": 0, "2": 0}
		var wg sync.WaitGroup
		for i := range 90 {
			wg.Go(func() {
				e := fmt.Sprint(i / 30)
				wait(t, g, Dial{Endpoint: e}).Done()
				mu.Lock()
				defer mu.Unlock()
				count[e]++
				for other, n := range count {
					if count[e]-n > 2 { // the first came before the others had asked
						t.Errorf("%d of %s, %d of %s", count[e], e, n, other)
					}
				}
			})
			synctest.Wait()
		}
		wg.Wait()
	})
}

func TestCancelledLeaveNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Endpoint: Limits{AtOnce: 1, Burst: 1, PerSecond: 1}})
		first := now(t, g, Dial{Endpoint: "one"})
		limited := now(t, g, Dial{Endpoint: "two", Identity: "used", Limit: tencent})
		limited.Sent()
		limited.Done()
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		for i := range 1000 {
			d := Dial{Endpoint: "one", Identity: fmt.Sprint(i % 100), Limit: alibaba}
			if i%3 == 0 {
				d = Dial{Endpoint: "two", Identity: "used", Limit: tencent}
			}
			wg.Go(func() {
				if l, err := g.Wait(ctx, d); !errors.Is(err, context.Canceled) || l != nil {
					t.Errorf("got %v, %v", l, err)
				}
			})
		}
		synctest.Wait()
		if s := g.Stats(); s.Waiting != 1000 {
			t.Fatalf("%d are waiting", s.Waiting)
		}
		cancel(nil)
		wg.Wait()
		first.Done()
		g.clean(t)
		if _, n, _ := g.sizes(); n != 1 {
			t.Errorf("%d identities are known, want the one that has connected", n)
		}
		pass(time.Second)
		now(t, g, Dial{Endpoint: "one"}).Done()
		if _, err := g.Wait(ctx, Dial{Endpoint: "one"}); !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}

// A waiter whose context ends when its turn has come gives everything back.
func TestCancelledWhenGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Endpoint: Limits{Burst: 1, PerSecond: 1}})
		ctx, cancel := context.WithCancel(t.Context())
		l := now(t, g, Dial{Endpoint: "one"})
		g.mu.Lock()
		w := g.joinLocked(Dial{Endpoint: "one", Identity: "a", Limit: tencent}, time.Now())
		g.mu.Unlock()
		pass(time.Second)
		g.mu.Lock()
		g.pumpLocked(time.Now())
		g.mu.Unlock()
		if w.lease == nil {
			t.Fatal("not granted")
		}
		cancel()
		<-ctx.Done()
		g.leave(w)
		l.Done()
		g.clean(t)
		now(t, g, Dial{Endpoint: "one", Identity: "a", Limit: tencent}).Done()
		if s := g.Stats(); s.Granted != 2 {
			t.Errorf("%d granted", s.Granted)
		}
	})
}

func TestEarlierProcess(t *testing.T) {
	tests := []struct {
		name  string
		limit credentials.Rate
		ago   time.Duration // when the earlier process may last have connected
		waits time.Duration
		then  time.Duration // after the first
	}{
		{"tencent, just now", tencent, 0, 5250 * time.Millisecond, 5250 * time.Millisecond},
		{"tencent, three seconds ago", tencent, 3 * time.Second, 2250 * time.Millisecond, 5250 * time.Millisecond},
		{"tencent, long ago", tencent, 5250 * time.Millisecond, 0, 5250 * time.Millisecond},
		{"alibaba, just now", alibaba, 0, 12600 * time.Millisecond, 12600 * time.Millisecond},
		{"alibaba, a moment ago", alibaba, 10 * time.Second, 2600 * time.Millisecond, 12600 * time.Millisecond},
		{"alibaba, long ago", alibaba, 63 * time.Second, 0, 0},
		{"no limit", credentials.Rate{}, 0, 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := New(Config{Earlier: time.Now().Add(-test.ago)})
				for i, want := range []time.Duration{test.waits, test.then} {
					start := time.Now()
					l := wait(t, g, Dial{Endpoint: "one", Identity: "a", Limit: test.limit})
					l.Sent()
					l.Done()
					if took := time.Since(start); took != want {
						t.Errorf("attempt %d after %s, want %s", i, took, want)
					}
				}
			})
		})
	}
}

func TestUsedIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := New(Config{})
		d := Dial{Endpoint: "one", Identity: "a", Limit: tencent}
		l := now(t, old, d)
		l.Sent()
		l.Connected()
		now(t, old, Dial{Endpoint: "one", Identity: "b", Limit: tencent}).Done()
		pass(2 * time.Second)
		used := old.Used()
		if len(used) != 1 || used[0].Identity != "a" || len(used[0].Sent) != 1 {
			t.Fatalf("used: %+v", used)
		}
		fresh := New(Config{Used: used})
		start := time.Now()
		wait(t, fresh, d).Done()
		if took := time.Since(start); took != 3250*time.Millisecond {
			t.Errorf("granted after %s", took)
		}
		if used := fresh.Used(); len(used) != 0 {
			t.Errorf("still used: %+v", used)
		}
		pass(10 * time.Second)
		if _, n, _ := New(Config{Used: used}).sizes(); n != 0 {
			t.Errorf("%d identities from long ago", n)
		}
		ahead := []Used{{Identity: "a", Sent: []time.Time{time.Now().Add(time.Hour)}, For: span(tencent)}}
		start = time.Now()
		wait(t, New(Config{Used: ahead}), d).Done()
		if took := time.Since(start); took != span(tencent) {
			t.Errorf("granted %s after a time in the future", took)
		}
	})
}

func TestRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		g := New(Config{Recovered: func(e string) { told = append(told, e) }})
		attempt := func(ok bool) {
			l := now(t, g, Dial{Endpoint: "one"})
			if ok {
				l.Connected()
			}
			l.Done()
			pass(time.Second)
		}
		for _, ok := range []bool{true, false, false, true, false, false, false, true, true} {
			attempt(ok)
		}
		if !slices.Equal(told, []string{"one"}) {
			t.Errorf("told %v", told)
		}
		g.clean(t)
	})
}

func TestHoldSaysWhatIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Endpoint: Limits{Burst: 1, PerSecond: 2}})
		var wg sync.WaitGroup
		holds := make([]Hold, 4)
		for i := range holds {
			d := Dial{Endpoint: "one", OnHold: func(h Hold) { holds[i] = h }}
			wg.Go(func() { wait(t, g, d).Done() })
			synctest.Wait()
		}
		wg.Wait()
		want := []Hold{{}, {For: time.Second / 2}, {Ahead: 1, For: time.Second}, {Ahead: 2, For: 3 * time.Second / 2}}
		if !slices.Equal(holds, want) {
			t.Errorf("told %+v, want %+v", holds, want)
		}
		if limited := (Hold{Limited: true}).Reason(); limited == (Hold{}).Reason() {
			t.Errorf("both are %q", limited)
		}
	})
}

// Ten thousand who wait cost their own goroutine each, and nothing else.
func TestWaitersCostNoGoroutines(t *testing.T) {
	g := New(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	var joined sync.WaitGroup
	const n = 10000
	joined.Add(n)
	for i := range n {
		held := sync.OnceFunc(joined.Done)
		wg.Go(func() {
			d := Dial{Endpoint: "one", Identity: fmt.Sprint(i), Limit: alibaba, OnHold: func(Hold) { held() }}
			if l, err := g.Wait(ctx, d); err == nil {
				held()
				<-ctx.Done()
				l.Done()
			}
		})
	}
	joined.Wait()
	if more := runtime.NumGoroutine() - before; more > n+10 { // the timer's, at times
		t.Errorf("%d goroutines for %d waiters", more, n)
	}
	cancel()
	wg.Wait()
	g.clean(t)
}

// Everything at the same time, in real time, for the race detector.
func TestStorm(t *testing.T) {
	limits := Limits{AtOnce: 4, Open: 8, PerSecond: 20000, Burst: 10}
	g := New(Config{Endpoint: limits, Total: limits, SlowAfter: time.Millisecond})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(5*time.Millisecond))
				d := Dial{Endpoint: fmt.Sprint(i % 3), Identity: fmt.Sprint(rand.N(20))}
				d.Limit = credentials.Rate{Count: rand.N(3), Per: time.Millisecond}
				if l, err := g.Wait(ctx, d); err == nil {
					if rand.N(3) == 0 {
						pass(rand.N(3 * time.Millisecond))
					}
					if rand.N(2) == 0 {
						l.Sent()
					}
					if rand.N(2) == 0 {
						l.Connected()
					}
					l.Done()
				}
				cancel()
				if rand.N(50) == 0 {
					_, _ = g.Stats(), g.Used()
				}
			}
		})
	}
	wg.Wait()
	g.clean(t)
}

// BenchmarkWait is one dial while others wait behind a limit, cancelling included.
func BenchmarkWait(b *testing.B) {
	for _, n := range []int{0, 100, 10000} {
		b.Run(fmt.Sprint(n, " waiting"), func(b *testing.B) {
			g := New(Config{
				Endpoint: Limits{PerSecond: 1e8, Burst: 1e6}, Total: Limits{PerSecond: 1e8, Burst: 1e6},
				Earlier: time.Now(),
			})
			ctx, cancel := context.WithCancel(b.Context())
			var wg, joined sync.WaitGroup
			joined.Add(n)
			for i := range n {
				d := Dial{Endpoint: "one", Identity: fmt.Sprint(i), OnHold: func(Hold) { joined.Done() }}
				d.Limit = credentials.Rate{Count: 1, Per: time.Hour + rand.N(time.Hour)}
				wg.Go(func() { _, _ = g.Wait(ctx, d) })
			}
			joined.Wait()
			dead, end := context.WithCancel(b.Context())
			end()
			for b.Loop() {
				l, err := g.Wait(ctx, Dial{Endpoint: "one"})
				if err != nil {
					b.Fatal(err)
				}
				l.Connected()
				g.mu.Lock()
				w := g.joinLocked(Dial{Endpoint: "one", Identity: "x", Limit: tencent}, time.Now())
				g.mu.Unlock()
				<-dead.Done()
				g.leave(w)
			}
			cancel()
			wg.Wait()
		})
	}
}
