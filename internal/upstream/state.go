package upstream

import "time"

// State is what a worker is doing. The names are the same in logs, metrics and the status.
type State string

// The states, in the order in which a session goes through them.
const (
	Idle        State = "idle"        // no reason to be connected
	Waiting     State = "waiting"     // for the backoff or the cloud's connect rate
	Signing     State = "signing"     // computing credentials
	Dialing     State = "dialing"     // TCP, TLS, WebSocket
	Connecting  State = "connecting"  // CONNECT was sent
	Subscribing State = "subscribing" // bringing subscriptions in line; messages flow already
	Online      State = "online"
	Draining    State = "draining" // the device has left; delivering what it left behind
)

// Change is an entry of a device's time line. A wait after a failure stands for all attempts since that have failed for
// the same reason.
type Change struct {
	At     time.Time
	State  State
	Reason string
	// Times is how many attempts in a row have failed for this reason, 0 for other entries.
	Times int

	// held says that it is a wait for others, before an attempt.
	held bool
}

// maxChanges is how long a time line is.
const maxChanges = 32

// timeline is the latest changes, oldest first.
type timeline []Change

func (t *timeline) add(c Change) {
	if len(*t) == maxChanges {
		copy(*t, (*t)[1:])
		*t = (*t)[:maxChanges-1]
	}
	*t = append(*t, c)
}

// hold says that the latest change is a wait before an attempt.
func (t timeline) hold() { t[len(t)-1].held = true }

// fold says that the latest change is a wait after a failed attempt. If the attempt before failed for the same reason
// one entry stands for both, so that a long outage does not push out what was before it.
func (t *timeline) fold() {
	line := *t
	last := len(line) - 1
	if last < 0 || line[last].Times > 0 { // it has waited before, and no attempt has come in between
		return
	}
	for i := last - 1; i >= 0; i-- {
		switch c := &line[i]; {
		case c.State == Signing, c.State == Dialing, c.State == Connecting, c.held:
			continue
		case c.State == Waiting && c.Times > 0 && c.Reason == line[last].Reason:
			c.Times++
			*t = line[:i+1]
			return
		}
		break
	}
	line[last].Times = 1
}
