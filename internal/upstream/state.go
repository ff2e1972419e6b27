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
	Halted      State = "halted"   // only a person can mend what is wrong
)

// Change is an entry of a device's time line.
type Change struct {
	At     time.Time
	State  State
	Reason string
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
