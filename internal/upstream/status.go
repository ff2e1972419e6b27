package upstream

import (
	"maps"
	"slices"
	"strings"
	"time"

	"bridged/internal/failure"
	"bridged/internal/mqtt"
)

// Summary is a worker's state at a moment, as far as it costs next to nothing to tell.
type Summary struct {
	State  State
	Since  time.Time
	Reason string
	// Device says whether the device is connected.
	Device bool
	// Failures is how many attempts and sessions have failed in a row, Last why the last one did, nil if none. Its kind
	// has the class, and what to do.
	Failures int
	Last     *failure.Failure
	// Latest is the last failure whatever has come after it, nil if there was none, and LatestAt when it happened.
	Latest   *failure.Failure
	LatestAt time.Time
	// Offline is since when a session has been wanted and not been there because of failures, zero if that is not so.
	Offline time.Time
	// Retry is when the next attempt is due, zero unless the worker waits after a failure.
	Retry time.Time
	// Connects counts sessions that were established.
	Connects uint64
	// Lowered and Stripped count messages whose QoS or retain flag the cloud does not take.
	Lowered, Stripped uint64
	// LateRefusals counts subscriptions that the device believes to be granted, and the cloud refused.
	LateRefusals uint64
}

// Status is a worker's state at a moment.
type Status struct {
	Summary
	// Refused are the cloud's filters that it refuses at present.
	Refused       []string
	Subscriptions []Subscription // by filter
	Timeline      []Change       // the latest changes, oldest first
}

// Subscription is one of the cloud's filters, and what is known of it.
type Subscription struct {
	Filter string // as the cloud knows it
	// Locals are the device's own filters that stand for it.
	Locals []string
	// Configured says that the configuration wants it.
	Configured bool
	// QoS is what is asked for.
	QoS     byte
	Verdict Verdict
	// Granted is the QoS of a filter with VerdictGranted.
	Granted byte
}

// Verdict is what the cloud says to a subscription.
type Verdict string

// The verdicts.
const (
	VerdictGranted Verdict = "granted"
	VerdictRefused Verdict = "refused"
	VerdictPending Verdict = "pending" // it was not asked yet, or has not answered
	VerdictLeaving Verdict = "leaving" // it is not wanted any more, and the cloud has not confirmed that
)

// Summary returns the state as it is now.
func (w *Worker) Summary() Summary {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.summaryLocked()
}

func (w *Worker) summaryLocked() Summary {
	s := Summary{
		State: w.state, Since: w.since, Reason: w.reason, Device: w.present, Failures: w.retry.Failures(), Last: w.last,
		Latest: w.latest, LatestAt: w.latestAt, Connects: w.count.connects.Load(), Lowered: w.count.lowered.Load(),
		Stripped: w.count.stripped.Load(), LateRefusals: w.count.refused.Load(), Offline: w.outage.since,
	}
	if now := time.Now(); w.state == Waiting && w.cancelTry == nil {
		if delay, _ := w.retry.Next(now); delay > 0 {
			s.Retry = now.Add(delay)
		}
	}
	return s
}

// Failing returns what keeps the device from having a session, nil if it has one, or wants none.
func (s *Summary) Failing() *failure.Failure {
	if s.State.Connected() || s.State == Idle {
		return nil
	}
	return s.Last
}

// Connected says whether the worker is in that state with a session at the cloud.
func (s State) Connected() bool { return s == Subscribing || s == Online || s == Draining }

// State is what Status has as the state.
func (w *Worker) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Status returns the state as it is now.
func (w *Worker) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := Status{Summary: w.summaryLocked(), Subscriptions: w.subs.list(), Timeline: slices.Clone(w.line)}
	for _, s := range st.Subscriptions {
		if s.Verdict == VerdictRefused {
			st.Refused = append(st.Refused, s.Filter)
		}
	}
	return st
}

// list tells of all filters that are wanted, or that the cloud may know.
func (t *subscriptions) list() []Subscription {
	all := make(map[string]*Subscription)
	entry := func(filter string) *Subscription {
		if all[filter] == nil {
			all[filter] = &Subscription{Filter: filter, Verdict: VerdictPending}
		}
		return all[filter]
	}
	for f, q := range t.wanted() {
		entry(f).QoS = q
	}
	for f := range t.static {
		entry(f).Configured = true
	}
	for local := range t.device {
		for _, f := range t.cfg.Topics.Filters(local) {
			s := entry(f)
			s.Locals = append(s.Locals, local)
		}
	}
	for f, g := range t.granted {
		s := entry(f)
		s.QoS = max(s.QoS, g.asked)
		switch {
		case g.leaving:
			s.Verdict = VerdictLeaving
		case g.code == mqtt.Failure:
			s.Verdict = VerdictRefused
		case g.code != unanswered:
			s.Verdict, s.Granted = VerdictGranted, g.code
		}
	}
	list := make([]Subscription, 0, len(all))
	for _, s := range slices.SortedFunc(maps.Values(all), func(x, y *Subscription) int {
		return strings.Compare(x.Filter, y.Filter)
	}) {
		slices.Sort(s.Locals)
		list = append(list, *s)
	}
	return list
}
