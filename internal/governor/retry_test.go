package governor

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// most draws the longest time each time, so that delays are what their bounds are.
func most(d time.Duration) time.Duration { return d }

func newRetry(cfg RetryConfig) *Retry {
	if cfg.Rand == nil {
		cfg.Rand = most
	}
	return NewRetries(cfg)()
}

// delay is what Next says at a time.
func (r *Retry) delay(now time.Time) time.Duration {
	d, _ := r.Next(now)
	return d
}

func TestDelaysByClass(t *testing.T) {
	tests := []struct {
		class                Class
		first, second, worst time.Duration
		soonest              time.Duration
		nudge                bool
	}{
		{ClassNetwork, time.Second, 2 * time.Second, 5 * time.Minute, 0, true},
		{ClassProxy, 2 * time.Second, 4 * time.Second, 5 * time.Minute, 0, true},
		{ClassProxyRefused, 35 * time.Second, 40 * time.Second, 10*time.Minute + 30*time.Second, 30 * time.Second, false},
		{ClassClock, 10 * time.Second, 15 * time.Second, 65 * time.Second, 5 * time.Second, true},
		{ClassTLS, 35 * time.Second, 40 * time.Second, 10*time.Minute + 30*time.Second, 30 * time.Second, false},
		{ClassRejected, 35 * time.Second, 40 * time.Second, 15*time.Minute + 30*time.Second, 30 * time.Second, false},
		{ClassThrottled, 30 * time.Second, 45 * time.Second, 5*time.Minute + 15*time.Second, 15 * time.Second, false},
		{ClassProtocol, 20 * time.Second, 25 * time.Second, 10*time.Minute + 15*time.Second, 15 * time.Second, false},
		{ClassConfig, 65 * time.Second, 70 * time.Second, 16 * time.Minute, time.Minute, false},
		{ClassMessage, 5 * time.Second, 10 * time.Second, 5 * time.Minute, 0, false},
		{ClassTakenOver, 3 * time.Minute, 5 * time.Minute, 21 * time.Minute, time.Minute, false},
		{"new", 20 * time.Second, 25 * time.Second, 10*time.Minute + 15*time.Second, 15 * time.Second, false},
	}
	for _, test := range tests {
		t.Run(string(test.class), func(t *testing.T) {
			r := newRetry(RetryConfig{})
			for i, want := range []time.Duration{test.first, test.second} {
				r.Failed(test.class, start)
				if got, why := r.Next(start); got != want || why == "" {
					t.Errorf("failure %d: wait %s (%q), want %s", i+1, got, why, want)
				}
			}
			for range 254 { // more than a byte counts
				r.Failed(test.class, start)
			}
			if got := r.delay(start); got != test.worst || r.Failures() != 256 {
				t.Errorf("in the end %s after %d failures, want %s", got, r.Failures(), test.worst)
			}
			if got := r.Nudge(start.Add(4 * time.Minute)); got != (test.nudge && test.worst > 4*time.Minute) {
				t.Errorf("a nudge has an effect: %t", got)
			}
			least := newRetry(RetryConfig{Rand: func(time.Duration) time.Duration { return 0 }})
			least.Failed(test.class, start)
			if got := least.delay(start); got != test.soonest {
				t.Errorf("at the least %s, want %s", got, test.soonest)
			}
		})
	}
}

// Every delay from zero to the bound is as likely as any other.
func TestFullJitter(t *testing.T) {
	fresh := NewRetries(RetryConfig{})
	var sum, least, longest time.Duration = 0, time.Hour, 0
	const n = 4000
	for range n {
		r := fresh()
		for range 5 {
			r.Failed(ClassNetwork, start)
		}
		d := r.delay(start)
		sum, least, longest = sum+d, min(least, d), max(longest, d)
	}
	if mean := sum / n; longest > 16*time.Second || longest < 15*time.Second || least > time.Second ||
		(mean-8*time.Second).Abs() > 500*time.Millisecond {
		t.Errorf("from %s to %s, mean %s; want 0 to 16 s", least, longest, mean)
	}
}

func TestClassesCountByThemselves(t *testing.T) {
	r := newRetry(RetryConfig{})
	for range 10 {
		r.Failed(ClassNetwork, start) // an outage
	}
	r.Failed(ClassThrottled, start) // the cloud is back, and busy
	if got := r.delay(start); got != 30*time.Second {
		t.Errorf("throttled for the first time: %s", got)
	}
	r.Failed(ClassNetwork, start)
	if got := r.delay(start); got != 5*time.Minute {
		t.Errorf("and the network again: %s", got)
	}
}

func TestResetAfterAStableTime(t *testing.T) {
	tests := []struct {
		name   string
		lasted time.Duration
		want   time.Duration
	}{
		{"CONNACK alone", 0, 16 * time.Second},
		{"short", 20*time.Second - 1, 16 * time.Second},
		{"stable", 20 * time.Second, time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRetry(RetryConfig{})
			for range 4 {
				r.Failed(ClassNetwork, start)
			}
			r.Established(start)
			end := start.Add(test.lasted)
			if class := r.Ended(End{Class: ClassNetwork}, end); class != ClassNetwork {
				t.Errorf("class %s", class)
			}
			if got := r.delay(end); got != test.want {
				t.Errorf("wait %s, want %s", got, test.want)
			}
			if got := r.delay(end.Add(test.want - time.Millisecond)); got != time.Millisecond {
				t.Errorf("a moment before, wait %s", got)
			}
			if got := r.delay(end.Add(time.Hour)); got != 0 {
				t.Errorf("long after, wait %s", got)
			}
		})
	}
}

func TestEndedByWish(t *testing.T) {
	r := newRetry(RetryConfig{})
	for range 4 {
		r.Failed(ClassNetwork, start)
	}
	r.Established(start)
	if class := r.Ended(End{}, start.Add(time.Second)); class != "" {
		t.Errorf("class %s", class)
	}
	if d, why := r.Next(start); d != 0 || why != "" {
		t.Errorf("wait %s: %s", d, why)
	}
	if r.Nudge(start.Add(time.Hour)) || r.Recovered(start.Add(time.Hour)) {
		t.Error("there is nothing to bring forward")
	}
	r.Failed(ClassNetwork, start)
	if d := r.delay(start); d != 16*time.Second {
		t.Errorf("wait %s: a second proves nothing", d)
	}
	if class := r.Ended(End{Class: ClassTLS}, start); class != ClassTLS || r.delay(start) != 35*time.Second {
		t.Errorf("without a session: %s, %s", class, r.delay(start))
	}
}

func TestNudge(t *testing.T) {
	hour := Policies{
		ClassNetwork: {First: time.Hour, Max: time.Hour, Nudge: true}, ClassRejected: {First: time.Hour, Max: time.Hour},
	}
	at := func(m float64) time.Time { return start.Add(time.Duration(m * float64(time.Minute))) }
	r := newRetry(RetryConfig{Policies: hour})
	r.Failed(ClassNetwork, start)
	if !r.Nudge(at(0.5)) || r.delay(at(0.5)) != 90*time.Second {
		t.Errorf("half a minute after the failure: wait %s, want until two minutes after it", r.delay(at(0.5)))
	}
	if r.Nudge(at(0.6)) {
		t.Error("a second nudge had an effect")
	}
	r.Failed(ClassNetwork, at(2))
	if !r.Nudge(at(30)) || r.delay(at(30)) != 0 {
		t.Errorf("long after the failure: wait %s", r.delay(at(30)))
	}
	r.Failed(ClassRejected, start)
	if r.Nudge(at(30)) || r.Recovered(at(30)) || r.delay(start) != time.Hour {
		t.Errorf("a refused login was tried again after %s", r.delay(start))
	}
}

func TestRecoveredEndpoint(t *testing.T) {
	r := newRetry(RetryConfig{})
	for range 12 {
		r.Failed(ClassNetwork, start)
	}
	if !r.Recovered(start) || r.delay(start) != 5*time.Second {
		t.Errorf("wait %s", r.delay(start))
	}
	shorter := newRetry(RetryConfig{})
	shorter.Failed(ClassNetwork, start)
	if shorter.Recovered(start) || shorter.delay(start) != time.Second {
		t.Errorf("wait %s: longer than without", shorter.delay(start))
	}
	r = newRetry(RetryConfig{Rand: rand.N[time.Duration]})
	for range 12 {
		r.Failed(ClassNetwork, start)
	}
	r.retryAt = start.Add(time.Hour)
	r.Recovered(start)
	d := r.delay(start)
	for range 100 {
		if r.Recovered(start) || r.delay(start) != d {
			t.Fatal("it was drawn again")
		}
	}
}

// Only what can be due to a wrong time comes sooner when the time is known.
func TestClockChanged(t *testing.T) {
	for _, class := range classes {
		r := newRetry(RetryConfig{})
		for range 12 {
			r.Failed(class, start)
		}
		want := class == ClassClock || class == ClassTLS || class == ClassRejected || class == ClassProxyRefused
		if got := r.ClockChanged(start); got != want || want && r.delay(start) != 5*time.Second {
			t.Errorf("%s: %t, wait %s", class, got, r.delay(start))
		}
		if r.ClockChanged(start.Add(time.Second)) {
			t.Errorf("%s: later than before", class)
		}
	}
	if newRetry(RetryConfig{}).ClockChanged(start) {
		t.Error("there was no failure")
	}
}

func TestLater(t *testing.T) {
	r := newRetry(RetryConfig{})
	r.Failed(ClassThrottled, start)
	r.Later(10*time.Second, start)
	if d := r.delay(start); d != 30*time.Second {
		t.Errorf("wait %s: sooner than without", d)
	}
	r.Later(2*time.Minute, start)
	if d := r.delay(start); d != 2*time.Minute+15*time.Second {
		t.Errorf("wait %s", d)
	}
	r.Later(100*time.Hour, start)
	if d := r.delay(start); d != time.Hour+15*time.Second {
		t.Errorf("wait %s", d)
	}
	r.Failed(ClassNetwork, start)
	r.Later(10*time.Minute, start)
	if r.Nudge(start.Add(5*time.Minute)) || r.Recovered(start.Add(5*time.Minute)) {
		t.Error("sooner than the other side asked for")
	}
}

func TestReasons(t *testing.T) {
	seen := map[string]Class{}
	for _, c := range classes {
		r := newRetry(RetryConfig{})
		r.Failed(c, start)
		_, why := r.Next(start)
		if before, twice := seen[why]; twice || why == "" {
			t.Errorf("%s and %s: %q", c, before, why)
		}
		seen[why] = c
	}
	r := newRetry(RetryConfig{})
	r.Failed(ClassNetwork, start)
	r.Failed(ClassNetwork, start)
	if _, why := r.Next(start); !strings.HasSuffix(why, ", 2 times in a row") {
		t.Errorf("%q", why)
	}
}
