package governor

import (
	"fmt"
	"slices"
	"time"
)

// Close is how a connection ended.
type Close int

// The ways.
const (
	// Lost: the connection went silent, timed out, or this side cut it.
	Lost Close = iota
	// Reset: the other side, or something on the way, reset it (RST). A cloud that closes a connection on which data is
	// arriving does that, and so does a router that has forgotten it.
	Reset
	// Closed: the other side ended it in an orderly manner, by the end of the stream or a WebSocket close frame,
	// without a reason.
	Closed
	// Kicked: the other side said that another client took the identity over.
	Kicked
)

// Evidence is when sessions that end are taken for a kick war: two clients with the same identity, each of which has
// the cloud end the other's session whenever it connects. Alibaba and Tencent say nothing then, they close the
// connection. So a round of the war, seen from here, is a session that
//
//   - was established, by the first attempt since the one before ended: in a war every connect works, while a bad
//     network fails at dialling, too. Attempts that are End.Crowded are not counted: the two holders use up what the
//     cloud allows the identity between them;
//   - was ended by the other side in an orderly manner (Closed), not by silence or an error of the network;
//   - lasted no longer than Short, which is how long the other holder took to come back. Clouds and proxies that end
//     idle connections take longer, a minute mostly;
//   - was of use: something that was sent in it was acknowledged, or nothing was waiting to be. Otherwise the cloud
//     may not like the message that is sent first each time;
//   - began no later than Within after the one before ended.
//
// It is a war after Alike such rounds in a row which lasted about as long as each other, the longest at most twice as
// long as the shortest and two seconds: most clients come back after a fixed time. After Any rounds it is one even if
// they differ: the other holder may jitter. Sessions that were Reset are left out before that, and count after.
// Kicked settles it at once.
//
// A session that lasts for Peace ends the war. Peace is longer than any pause between attempts, so that two holders
// who both slow down still know what is going on.
type Evidence struct {
	Short  time.Duration
	Within time.Duration
	Alike  int
	Any    int
	Peace  time.Duration
}

func (e Evidence) withDefaults() Evidence {
	if e.Short == 0 {
		e.Short = 45 * time.Second
	}
	if e.Within == 0 {
		e.Within = 10 * time.Minute
	}
	if e.Alike == 0 {
		e.Alike = 4
	}
	if e.Any == 0 {
		e.Any = 6
	}
	if e.Peace == 0 {
		e.Peace = 30 * time.Minute
	}
	return e
}

// war is the evidence so far.
type war struct {
	on     bool
	rounds []time.Duration // how long the sessions lasted, the latest last; at most Any
	count  int             // rounds in all
	last   time.Time       // when the last round ended
}

func (k *war) forget() { k.rounds, k.count, k.on = k.rounds[:0], 0, false }

// failed notes an attempt that led to no session.
func (k *war) failed() {
	if !k.on {
		k.forget()
	}
}

// ended notes the end of a session that lasted so long, and says whether it was a round of a war. wanted says that it
// was this side's wish, stuck that the session was of no use.
func (k *war) ended(e *Evidence, how Close, wanted, stuck bool, began, now time.Time) bool {
	lasted := now.Sub(began)
	if lasted >= e.Peace || !k.on && (lasted > e.Short || began.Sub(k.last) > e.Within) {
		k.forget()
	}
	switch {
	case wanted:
		return false
	case how == Kicked:
		k.on = true
	case how == Reset && !stuck && !(k.on && lasted <= e.Short):
		return false
	case how == Lost || stuck:
		k.failed()
		return false
	case lasted >= e.Peace || !k.on && lasted > e.Short:
		return false
	}
	k.count++
	k.last = now
	if len(k.rounds) == e.Any {
		k.rounds = slices.Delete(k.rounds, 0, 1)
	}
	k.rounds = append(k.rounds, lasted)
	k.on = k.on || len(k.rounds) >= e.Any || alike(k.rounds, e.Alike)
	return k.on
}

// alike says whether the last n are there and about the same.
func alike(all []time.Duration, n int) bool {
	if len(all) < n {
		return false
	}
	some := all[len(all)-n:]
	return slices.Max(some) <= 2*slices.Min(some)+2*time.Second
}

// typical is how long a session lasted: the median.
func (k *war) typical() time.Duration {
	if len(k.rounds) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(k.rounds))
	return sorted[len(sorted)/2]
}

// reason is a sentence for a person.
func (k *war) reason() string {
	sessions := fmt.Sprintf("%d sessions in a row were", k.count)
	if k.count == 1 {
		sessions = "the session was"
	}
	return fmt.Sprintf("another client seems to use this device's identity: %s ended by the cloud, typically after %s",
		sessions, k.typical().Round(100*time.Millisecond))
}

// WarRemedy is what a person can do about a kick war.
const WarRemedy = "find the other client and stop it: a cloned gateway, a device that still connects to the " +
	"cloud itself, a test tool; the cloud's console shows from which address the device was last online"
