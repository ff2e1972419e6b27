package upstream

import (
	"slices"
	"testing"
	"time"

	"bridged/internal/failure"
	"bridged/internal/mqtt"
)

// However long an outage is, the time line keeps what was before it, and says how often it was tried.
func TestTimelineOfALongOutage(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	began := time.Now()
	r.w.Connected(mqtt.Connect{})
	r.inState(Online)
	if st := r.w.Status(); !st.Offline.IsZero() || st.Latest != nil || !st.Retry.IsZero() {
		t.Errorf("before the outage: %+v", st.Summary)
	}
	c.Down()
	var st Status // of one moment: the next attempt comes soon
	until(t, "many attempts", func() bool { st = r.w.Status(); return st.Failures > maxChanges && st.State == Waiting })
	if i := slices.IndexFunc(st.Timeline, func(ch Change) bool { return ch.State == Online }); i < 0 {
		t.Fatalf("what was before the outage is not there any more: %+v", st.Timeline)
	}
	times, order := 0, true
	for i, ch := range st.Timeline {
		times += ch.Times
		order = order && (i == 0 || !ch.At.Before(st.Timeline[i-1].At))
	}
	if times != st.Failures || !order {
		t.Errorf("%d failures, the time line has %d: %+v", st.Failures, times, st.Timeline)
	}
	if st.Offline.Before(began) || st.Offline.After(time.Now()) {
		t.Errorf("offline since %s", st.Offline)
	}
	if st.Latest == nil || st.Latest != st.Last || st.LatestAt.Before(st.Offline) {
		t.Errorf("%+v at %s", st.Latest, st.LatestAt)
	}
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	r.inState(Online)
	if st := r.w.Status(); !st.Offline.IsZero() || st.Last != nil || st.Latest == nil {
		t.Errorf("after the outage: %+v", st.Summary)
	}
}

// Waits for others do not keep failures from being told as one, and another reason does.
func TestTimelineFolds(t *testing.T) {
	var line timeline
	attempt := func(reason string) {
		line.add(Change{State: Waiting, Reason: "others are connecting"})
		line.hold()
		line.add(Change{State: Signing})
		line.add(Change{State: Dialing})
		line.add(Change{State: Waiting, Reason: reason})
		line.fold()
		line.fold() // it was interrupted
	}
	for _, reason := range []string{"a", "a", "a", "b", "a"} {
		attempt(reason)
	}
	var got []string
	var times []int
	for _, c := range line {
		if c.Times > 0 {
			got, times = append(got, c.Reason), append(times, c.Times)
		}
	}
	if !slices.Equal(got, []string{"a", "b", "a"}) || !slices.Equal(times, []int{3, 1, 1}) {
		t.Errorf("%q %v", got, times)
	}
}

// Whoever keeps count of failures is told of each.
func TestFailedIsTold(t *testing.T) {
	c := generic(t)
	c.Down()
	cfg := base(c.WSURL())
	told := make(chan failure.Kind, 100)
	cfg.Failed = func(f *failure.Failure) { told <- f.Kind }
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{})
	if kind := <-told; kind != r.failure().Kind {
		t.Errorf("%s, want %s", kind, r.failure().Kind)
	}
}

func TestSubscriptionsWithVerdicts(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Subscribe = []mqtt.Subscription{{Filter: "static", QoS: 1}}
	r := start(t, cfg)
	if got := r.w.Status().Subscriptions; len(got) != 1 || got[0].Verdict != VerdictPending || !got[0].Configured {
		t.Errorf("before the session: %+v", got)
	}
	c.RefuseFilter("dev", "no/#")
	r.w.Connected(mqtt.Connect{})
	subscribe(t, r, "yes", 2)
	r.w.Subscribe([]mqtt.Subscription{{Filter: "no/#"}}, func([]byte) {})
	until(t, "all answers", func() bool {
		return !slices.ContainsFunc(r.w.Status().Subscriptions, func(s Subscription) bool {
			return s.Verdict == VerdictPending
		})
	})
	got := make(map[string]Subscription)
	for _, s := range r.w.Status().Subscriptions {
		got[s.Filter] = s
	}
	if s := got["static"]; s.Verdict != VerdictGranted || s.Granted != 1 || !s.Configured || len(s.Locals) != 0 {
		t.Errorf("%+v", s)
	}
	if s := got["yes"]; s.Verdict != VerdictGranted || s.Granted != 2 || s.Configured ||
		!slices.Equal(s.Locals, []string{"yes"}) {
		t.Errorf("%+v", s)
	}
	if s := got["no/#"]; s.Verdict != VerdictRefused {
		t.Errorf("%+v", s)
	}
	if refused := r.w.Status().Refused; !slices.Equal(refused, []string{"no/#"}) {
		t.Errorf("%q", refused)
	}
}
