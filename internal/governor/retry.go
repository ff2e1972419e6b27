package governor

import (
	"fmt"
	"time"
)

// End is how a session ended.
type End struct {
	// Class is the failure's, empty if this side ended the session because it was not wanted any more.
	Class Class
	Close Close
	// Stuck says that something was waiting for an acknowledgement when the session ended, and nothing had been
	// acknowledged during the whole of it.
	Stuck bool
	// Crowded says that there was no session because the cloud refused the connect as it does when there were too many
	// of this identity. This side keeps to the limit: perhaps another client uses it up.
	Crowded bool
}

// Retry says when a device may try again. It is told what happens and when, in order, and never looks at a clock. It
// is not safe for concurrent use.
//
// The delay grows with each failure of a class and starts again once a session has lasted for RetryConfig.Stable,
// since a CONNACK alone proves little. It is drawn when the failure happens.
type Retry struct {
	cfg       *RetryConfig
	counts    [len(classes)]uint8 // failures since the last reset
	failures  int                 // in a row, of all classes
	class     Class               // the last failure's, empty: there is nothing to wait for
	retryAt   time.Time
	nudgeAt   time.Time // when a nudge has an effect
	recovered bool      // Recovered has had its effect since the last failure
	upSince   time.Time // zero: there is no session
	war       war
}

// NewRetries returns a function that makes Retries which share a configuration.
func NewRetries(cfg RetryConfig) func() *Retry {
	shared := cfg.withDefaults()
	return func() *Retry { return &Retry{cfg: shared} }
}

// Failed notes an attempt that led to no session.
func (r *Retry) Failed(class Class, now time.Time) {
	r.upSince = time.Time{}
	r.war.failed()
	r.fail(class, now)
}

// Later notes that the other side asked not to come before a time, as in Retry-After. It comes after Failed or Ended.
// More than an hour is not granted.
func (r *Retry) Later(after time.Duration, now time.Time) {
	after = min(after, time.Hour) + r.cfg.Rand(r.cfg.policy(r.class).First) // not all devices at once
	r.retryAt = later(r.retryAt, now.Add(after))
	r.nudgeAt = later(r.nudgeAt, r.retryAt)
	r.recovered = true
}

// Established notes that the cloud has accepted CONNECT.
func (r *Retry) Established(now time.Time) { r.upSince = now }

// Ended notes the end of a session, and returns the class that it amounts to: the one it was given, or ClassTakenOver.
func (r *Retry) Ended(e End, now time.Time) Class {
	if r.upSince.IsZero() {
		switch {
		case e.Class == "":
		case e.Crowded: // says nothing against a war
			r.fail(e.Class, now)
		default:
			r.Failed(e.Class, now)
		}
		return e.Class
	}
	began := r.upSince
	r.upSince = time.Time{}
	round := r.war.ended(&r.cfg.War, e.Close, e.Class == "", e.Stuck, began, now)
	if now.Sub(began) >= r.cfg.Stable {
		r.reset()
	}
	switch {
	case e.Class == "":
		r.class, r.retryAt = "", time.Time{}
		return ""
	case round:
		e.Class = ClassTakenOver
	}
	r.fail(e.Class, now)
	return e.Class
}

// Afresh notes that what has failed is not what is tried next, as when there is another login.
func (r *Retry) Afresh() {
	r.reset()
	r.class, r.retryAt = "", time.Time{}
}

// reset forgets failures. A kick war's rounds are not forgotten before it is over.
func (r *Retry) reset() {
	rounds := r.counts[ClassTakenOver.index()]
	r.counts, r.failures = [len(classes)]uint8{}, 0
	if r.war.on {
		r.counts[ClassTakenOver.index()] = rounds
	}
}

func (r *Retry) fail(class Class, now time.Time) {
	i := class.index()
	r.counts[i] = min(r.counts[i]+1, 64)
	r.failures++
	r.class, r.recovered = class, false
	p := r.cfg.policy(class)
	r.retryAt = now.Add(p.Floor + r.cfg.Rand(p.bound(int(r.counts[i]))))
	r.nudgeAt = now.Add(r.cfg.NudgeAfter + r.cfg.Rand(r.cfg.NudgeAfter))
}

// Next returns how long to wait before the next attempt, and why: a sentence for a person, empty if there is nothing to
// wait for.
func (r *Retry) Next(now time.Time) (time.Duration, string) {
	if r.class == "" {
		return 0, ""
	}
	return max(0, r.retryAt.Sub(now)), r.reason()
}

var why = map[Class]string{
	ClassNetwork:      "the cloud could not be reached",
	ClassProxy:        "the proxy could not be used",
	ClassTLS:          "there is no secure connection to the cloud",
	ClassRejected:     "the cloud refused the login",
	ClassThrottled:    "the cloud asked to come back later",
	ClassClock:        "the gateway's clock is wrong",
	ClassProtocol:     "the cloud did not speak MQTT over WebSocket as expected",
	ClassConfig:       "no login can be made for this device",
	ClassMessage:      "the cloud does not take a certain message",
	ClassProxyRefused: "the proxy refused",
}

func (r *Retry) reason() string {
	if r.class == ClassTakenOver {
		return r.war.reason()
	}
	text, ok := why[r.class]
	if !ok {
		text = why[fallback]
	}
	if n := r.counts[r.class.index()]; n > 1 {
		text += fmt.Sprintf(", %d times in a row", r.failures)
	}
	return text
}

// Nudge notes that there is something to send. It reports whether the next attempt comes sooner for it. That is so at
// most once for each failure, not before RetryConfig.NudgeAfter, and never after a failure that does not heal by
// itself.
func (r *Retry) Nudge(now time.Time) bool { return r.sooner(later(now, r.nudgeAt)) }

// Recovered notes that another device got through to the same endpoint. It reports whether the next attempt comes
// sooner for it.
func (r *Retry) Recovered(now time.Time) bool {
	if r.recovered || r.class == "" {
		return false
	}
	r.recovered = true
	return r.sooner(now.Add(r.cfg.Rand(r.cfg.Spread)))
}

// ClockChanged notes that the gateway has learnt the time. It reports whether the next attempt comes sooner for it: a
// login or a certificate may have been refused for the wrong one.
func (r *Retry) ClockChanged(now time.Time) bool {
	switch r.class {
	case ClassClock, ClassTLS, ClassRejected, ClassProxyRefused:
		return r.advance(now.Add(r.cfg.Rand(r.cfg.Spread)))
	}
	return false
}

func (r *Retry) sooner(at time.Time) bool {
	return r.class != "" && r.cfg.policy(r.class).Nudge && r.advance(at)
}

func (r *Retry) advance(at time.Time) bool {
	if !at.Before(r.retryAt) {
		return false
	}
	r.retryAt = at
	return true
}

// Failures is how many attempts and sessions have failed in a row.
func (r *Retry) Failures() int { return r.failures }

// War says whether a kick war goes on, with a sentence for a person; WarRemedy is what can be done.
func (r *Retry) War() (string, bool) {
	if !r.war.on {
		return "", false
	}
	return r.war.reason(), true
}
