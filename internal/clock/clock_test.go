package clock

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestStates(t *testing.T) {
	tests := []struct {
		name string
		wall time.Time
		sync Sync
		kind Kind
		says string
	}{
		{"synchronised", today, Synchronised, Fine, "the system clock is synchronised"},
		{"nobody knows", today, Unknown, Fine, "the system clock is plausible; whether it is synchronised is not known"},
		{"not synchronised", today, Unsynchronised, Unset, "the system clock is not synchronised, by the kernel's word"},
		{"1970", epoch, Unsynchronised, Wrong,
			"the system clock shows 1970-01-01 00:01 UTC, which is before bridged was built (2026-11-20)"},
		{"1970, synchronised", epoch, Synchronised, Wrong,
			"the system clock shows 1970-01-01 00:01 UTC, which is before bridged was built (2026-11-20)"},
		{"hours before the build", build.Add(-24 * time.Hour), Synchronised, Fine, "the system clock is synchronised"},
		{"a day before the build", build.Add(-24*time.Hour - 1), Synchronised, Wrong,
			"the system clock shows 2026-11-19 11:59 UTC, which is before bridged was built (2026-11-20)"},
		{"nineteen years later", build.AddDate(20, 0, -1), Unknown, Fine,
			"the system clock is plausible; whether it is synchronised is not known"},
		{"twenty years later", build.AddDate(20, 0, 0), Synchronised, Wrong,
			"the system clock shows 2046-11-20 12:00 UTC, which is too far in the future"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, _, _ := newClock(test.wall, test.sync)
			s := c.State()
			if s.Kind != test.kind || s.Reason != test.says || s.Sync != test.sync {
				t.Errorf("%s (%d): %q, want %s: %q", s.Kind, s.Sync, s.Reason, test.kind, test.says)
			}
			if (s.Remedy == "") != (s.Kind == Fine) {
				t.Errorf("%s with the remedy %q", s.Kind, s.Remedy)
			}
			if !c.Now().Equal(test.wall) || !c.VerifyNow().Equal(test.wall) || !s.Now.Equal(test.wall) {
				t.Errorf("now %s, %s, %s, want %s", c.Now(), c.VerifyNow(), s.Now, test.wall)
			}
		})
	}
}

// heard is what one source says, twice and ten seconds apart.
type heard struct {
	source string
	trust  Trust
	offset time.Duration
}

func TestWhomToBelieve(t *testing.T) {
	const (
		s, min = time.Second, time.Minute
		hour   = time.Hour
	)
	years := today.Sub(epoch)
	a, b, x := heard{"a", Authentic, 5 * min}, heard{"b", Authentic, 5*min + 20*s}, heard{"x", Authentic, -10 * min}
	p, q := heard{"p", Plain, 5 * min}, heard{"q", Plain, 5*min + 10*s}
	tests := []struct {
		name string
		wall time.Time
		sync Sync
		says []heard
		want time.Duration // 0: no correction
		from string
	}{
		{"nobody says anything", today, Unsynchronised, nil, 0, ""},
		{"within a minute", today, Unsynchronised, []heard{{"a", Authentic, min}}, 0, ""},
		{"more than a minute", today, Unsynchronised, []heard{{"a", Authentic, min + s}}, min + s, "a"},
		{"ahead", today, Unsynchronised, []heard{x}, -10 * min, "x"},
		{"kernel unknown", today, Unknown, []heard{a}, 5 * min, "a"},
		{"synchronised, one", today, Synchronised, []heard{a}, 0, "a"},
		{"synchronised, two that agree", today, Synchronised, []heard{a, b}, 5 * min, "a"},
		{"synchronised, two that do not", today, Synchronised, []heard{a, x}, 0, "x"},
		{"synchronised, plain ones", today, Synchronised, []heard{p, q}, 0, "q"},
		{"plain", today, Unsynchronised, []heard{p}, 5 * min, "p"},
		{"plain, two", today, Unsynchronised, []heard{q, p}, 5 * min, "p"},
		{"authentic wins", today, Unsynchronised, []heard{{"p", Plain, hour}, {"q", Plain, hour}, a}, 5 * min, "a"},
		{"authentic says fine", today, Unsynchronised, []heard{p, {"a", Authentic, 0}}, 0, "p"},
		{"the median of three", today, Unsynchronised, []heard{{"z", Authentic, hour}, x, a}, 5 * min, "a"},
		{"of two the closer one", today, Unsynchronised, []heard{x, a}, 5 * min, "a"},
		{"of two the closer one, again", today, Unsynchronised, []heard{{"z", Authentic, hour}, a}, 5 * min, "a"},
		{"1970, authentic", epoch, Unsynchronised, []heard{{"a", Authentic, years}}, years, "a"},
		{"1970, plain", epoch, Unsynchronised, []heard{{"p", Plain, years}}, years, "p"},
		{"1970, the kernel is sure", epoch, Synchronised, []heard{{"p", Plain, years}}, years, "p"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, sys, told := newClock(test.wall, test.sync)
			for range 2 {
				for _, h := range test.says {
					hear(t, c, sys, h.source, h.trust, h.offset)
				}
				sys.pass(10 * time.Second)
			}
			st := c.State()
			wall, _ := sys.read()
			if got := c.Now().Sub(wall); got != test.want {
				t.Errorf("corrected by %s, want %s", got, test.want)
			}
			if corrected := st.Kind == Corrected; corrected != (test.want != 0) || st.Source != test.from {
				t.Errorf("%s by %q, want by %q: %s", st.Kind, st.Source, test.from, st.Reason)
			}
			if test.from != "" && !strings.Contains(st.Reason, "the time of "+test.from) {
				t.Errorf("the reason does not name %s: %s", test.from, st.Reason)
			}
			if st.Trust == Plain && test.from != "" != strings.Contains(st.Reason, "not authenticated") {
				t.Errorf("trust %d: %s", st.Trust, st.Reason)
			}
			if test.want != 0 && len(*told) == 0 {
				t.Error("nobody was told")
			}
		})
	}
}

func TestPlainNeedsTwo(t *testing.T) {
	tests := []struct {
		name          string
		apart         time.Duration
		first, second time.Duration
		want          bool
	}{
		{"the same again", 5 * time.Second, time.Hour, time.Hour, true},
		{"nearly the same", 5 * time.Second, time.Hour, time.Hour + 3*time.Second, true},
		{"too soon", 4 * time.Second, time.Hour, time.Hour, false},
		{"something else", 10 * time.Second, time.Hour, 2 * time.Hour, false},
		{"what was kept on the way", 10 * time.Second, time.Hour, time.Hour - 10*time.Second, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, sys, _ := newClock(today, Unsynchronised)
			sys.pass(time.Hour)
			hear(t, c, sys, "p", Plain, test.first)
			if c.State().Kind == Corrected {
				t.Fatal("one was enough")
			}
			sys.pass(test.apart)
			hear(t, c, sys, "p", Plain, test.second)
			if got := c.State().Kind == Corrected; got != test.want {
				t.Errorf("corrected: %t", got)
			}
		})
	}
}

func TestPlainIsConfirmedByManyInARow(t *testing.T) {
	c, sys, _ := newClock(today, Unsynchronised)
	for i := range 4 {
		hear(t, c, sys, "p", Plain, time.Hour)
		if got := c.State().Kind == Corrected; got != (i >= 2) {
			t.Errorf("after %d: corrected: %t", i+1, got)
		}
		sys.pass(3 * time.Second)
	}
	hear(t, c, sys, "a", Authentic, time.Hour)
	if s := c.State(); s.Trust != Authentic || s.Source != "a" {
		t.Errorf("still by %s: %s", s.Source, s.Reason)
	}
}

func TestHysteresis(t *testing.T) {
	c, sys, told := newClock(today, Unsynchronised)
	steps := []struct {
		offset time.Duration
		want   time.Duration
	}{
		{50 * time.Second, 0},
		{70 * time.Second, 70 * time.Second},
		{71 * time.Second, 70 * time.Second}, // noise
		{68 * time.Second, 68 * time.Second},
		{40 * time.Second, 40 * time.Second}, // still corrected
		{31 * time.Second, 31 * time.Second},
		{30 * time.Second, 0},
		{50 * time.Second, 0},
	}
	for i, step := range steps {
		hear(t, c, sys, "a", Authentic, step.offset)
		wall, _ := sys.read()
		if got := c.Now().Sub(wall); got != step.want {
			t.Errorf("step %d: corrected by %s, want %s", i, got, step.want)
		}
		sys.pass(time.Minute)
	}
	var kinds []Kind
	for _, s := range *told {
		kinds = append(kinds, s.Kind)
	}
	if want := []Kind{Corrected, Corrected, Corrected, Corrected, Unset}; !slices.Equal(kinds, want) {
		t.Errorf("told %v, want %v", kinds, want)
	}
}

func TestCorrectionLasts(t *testing.T) {
	c, sys, _ := newClock(today, Unsynchronised)
	hear(t, c, sys, "a", Authentic, time.Hour)
	sys.pass(100 * time.Hour) // nothing is heard meanwhile
	c.Check()
	if s := c.State(); s.Kind != Corrected || s.Offset != time.Hour {
		t.Errorf("%s by %s", s.Kind, s.Offset)
	}
	hear(t, c, sys, "b", Authentic, 2*time.Hour) // a is not heard any more
	if s := c.State(); s.Source != "b" || s.Offset != 2*time.Hour {
		t.Errorf("%s by %s of %s", s.Kind, s.Offset, s.Source)
	}
	sys.pass(100 * time.Hour)
	sys.set(today.Add(200*time.Hour), Synchronised) // slewed into synchronism, without a step
	c.Check()
	if s := c.State(); s.Kind != Fine {
		t.Errorf("%s: %s", s.Kind, s.Reason)
	}
}

// The kernel may be sure of a time that cannot be.
func TestCorrectionLastsInAWrongTime(t *testing.T) {
	c, sys, _ := newClock(epoch, Synchronised)
	hear(t, c, sys, "a", Authentic, today.Sub(epoch))
	sys.pass(100 * time.Hour)
	c.Check()
	if s := c.State(); s.Kind != Corrected {
		t.Errorf("%s: %s", s.Kind, s.Reason)
	}
}

func TestTheClockIsSet(t *testing.T) {
	tests := []struct {
		name string
		by   time.Duration
		to   Sync
		want Kind
		sets uint64
	}{
		{"by NTP", 57 * 365 * 24 * time.Hour, Synchronised, Fine, 1},
		{"by hand", 57 * 365 * 24 * time.Hour, Unsynchronised, Unset, 1},
		{"by hand, wrong again", time.Hour, Unsynchronised, Wrong, 1},
		{"back", -time.Second, Unsynchronised, Wrong, 1},
		{"hardly", 999 * time.Millisecond, Unsynchronised, Corrected, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, sys, told := newClock(epoch, Unsynchronised)
			hear(t, c, sys, "a", Authentic, today.Sub(epoch))
			if c.State().Kind != Corrected {
				t.Fatal("not corrected")
			}
			*told = nil
			sys.pass(time.Hour)
			wall, _ := sys.read()
			sys.set(wall.Add(test.by), test.to)
			_ = c.Now() // whoever notices: Check tells
			c.Check()
			s := c.State()
			if s.Kind != test.want || s.Sets != test.sets || uint64(len(*told)) != test.sets {
				t.Errorf("%s, set %d times, told %d times; want %s, %d", s.Kind, s.Sets, len(*told), test.want, test.sets)
			}
			if wall, _ := sys.read(); test.want != Corrected && !c.Now().Equal(wall) {
				t.Errorf("now %s, the system's %s", c.Now(), wall)
			}
		})
	}
}

// A real system clock, as far as a test has one.
func TestRunsWithTheSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in 2000, which is before the build
		c := New(Config{Sync: func() Sync { return Unsynchronised }})
		if s := c.State(); s.Kind != Wrong {
			t.Fatalf("%s: %s", s.Kind, s.Reason)
		}
		if err := c.Observe(Sample{Source: "a", Trust: Authentic, Date: today}); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		c.Check()
		if got, want := c.Now(), today.Add(time.Hour+time.Second/2); !got.Equal(want) {
			t.Errorf("an hour later it is %s, want %s", got, want)
		}
	})
	c := New(Config{})
	if s := c.State(); s.Sync != kernelSync() || time.Since(s.System).Abs() > time.Minute {
		t.Errorf("%+v", s)
	}
}

func TestOff(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		57 * 365 * day:          "57 years behind",
		-3 * day:                "3 days ahead",
		90 * time.Second:        "1m30s behind",
		-36 * time.Hour:         "36h0m0s ahead",
		time.Hour + 1:           "1h0m0s behind",
		-1 * 2 * 365 * day:      "2 years ahead",
		time.Duration(-1 << 63): "292 years ahead",
	} {
		if got := off(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

func TestBuiltAt(t *testing.T) {
	vcs := func(v string) *debug.BuildInfo {
		return &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.time", Value: v}}}
	}
	tests := []struct {
		name, linked string
		info         *debug.BuildInfo
		want         time.Time
	}{
		{"nothing", "", nil, floor},
		{"the linker", "2027-03-01T08:30:00Z", vcs("2026-11-20T12:00:00Z"), today},
		{"the commit", "", vcs("2026-11-20T12:00:00Z"), build},
		{"the linker has nonsense", "yesterday", vcs("2026-11-20T12:00:00Z"), build},
		{"the linker is too early", "2001-01-01T00:00:00Z", vcs("2026-11-20T12:00:00Z"), build},
		{"the commit has nonsense", "", vcs("?"), floor},
		{"the commit is too early", "", vcs("2020-01-01T00:00:00Z"), floor},
		{"no version control", "", &debug.BuildInfo{}, floor},
	}
	for _, test := range tests {
		if got := builtAt(test.linked, test.info); !got.Equal(test.want) {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	if b := Built(); b.Before(floor) || b.After(time.Now()) {
		t.Errorf("built %s", b)
	}
}

// Everything at the same time, for the race detector.
func TestStorm(t *testing.T) {
	var told sync.Map
	sys := &system{wall: today, sync: Unsynchronised}
	c := New(Config{Read: sys.read, Sync: sys.said, Built: build, Changed: func(s State) { told.Store(s.Kind, true) }})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 300 {
				wall, _ := sys.read()
				s := Sample{Source: fmt.Sprint("host", rand.N(100)), Trust: Trust(rand.N(2)), Date: wall.Add(rand.N(time.Hour))}
				_ = c.Observe(s)
				sys.pass(rand.N(time.Second))
				_, _, _ = c.Now(), c.VerifyNow(), c.State()
				if i == 0 && rand.N(10) == 0 {
					sys.set(today.Add(rand.N(time.Hour)), Sync(rand.N(3)))
				}
				c.Check()
			}
		})
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.samples); n > maxSources {
		t.Errorf("%d sources are remembered", n)
	}
}
