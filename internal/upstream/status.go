package upstream

import (
	"slices"
	"time"

	"bridged/internal/failure"
	"bridged/internal/mqtt"
)

// Status is a worker's state at a moment.
type Status struct {
	State  State
	Since  time.Time
	Reason string
	// Device says whether the device is connected.
	Device bool
	// Failures is how many attempts and sessions have failed in a row, Last why the last one did, nil if none. Its kind
	// has the class, and what to do.
	Failures int
	Last     *failure.Failure
	// Connects counts sessions that were established.
	Connects uint64
	// Lowered and Stripped count messages whose QoS or retain flag the cloud does not take.
	Lowered, Stripped uint64
	// LateRefusals counts subscriptions that the device believes to be granted, and the cloud refused.
	LateRefusals uint64
	// Refused are the cloud's filters that it refuses at present.
	Refused  []string
	Timeline []Change // the latest changes, oldest first
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
	st := Status{
		State: w.state, Since: w.since, Reason: w.reason, Device: w.present, Failures: w.retry.Failures(), Last: w.last,
		Connects: w.count.connects.Load(), Lowered: w.count.lowered.Load(), Stripped: w.count.stripped.Load(),
		LateRefusals: w.count.refused.Load(), Timeline: slices.Clone(w.line),
	}
	for f, g := range w.subs.granted {
		if g.code == mqtt.Failure {
			st.Refused = append(st.Refused, f)
		}
	}
	slices.Sort(st.Refused)
	return st
}
