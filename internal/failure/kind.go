package failure

import "slices"

// Kind is what went wrong. There is a bounded number of kinds; their names serve as metric labels and do not change.
type Kind string

// Class sorts the kinds by who has to do something.
type Class string

// The classes.
const (
	ClassNetwork   Class = "network"    // DNS, TCP, a connection that ended or went silent
	ClassProxy     Class = "proxy"      // the proxy
	ClassTLS       Class = "tls"        // a certificate or the TLS handshake
	ClassRejected  Class = "rejected"   // the cloud does not accept the login, or something this device asks for
	ClassTakenOver Class = "taken_over" // somebody else uses the device's identity
	ClassThrottled Class = "throttled"  // the cloud asks to come back later
	ClassClock     Class = "clock"      // the gateway's time is wrong
	ClassProtocol  Class = "protocol"   // the other side does not speak what it should
	ClassConfig    Class = "config"     // the configuration, or a file that it names
	ClassMessage   Class = "message"    // a certain message, with which the cloud ends the session
)

// Classes lists all classes.
func Classes() []Class {
	return []Class{
		ClassNetwork, ClassProxy, ClassTLS, ClassRejected, ClassTakenOver, ClassThrottled, ClassClock, ClassProtocol,
		ClassConfig, ClassMessage,
	}
}

// Delay is how soon to try again.
type Delay string

// The delay policies.
const (
	// DelayBackoff: soon, then after random times with a bound that doubles. It will probably pass by itself; a fresh
	// reason to be connected, such as a message, may cut the wait short.
	DelayBackoff Delay = "backoff"
	// DelayLater: after a longer while, or what Failure.RetryAfter says. Trying earlier makes it worse.
	DelayLater Delay = "later"
	// DelaySlow: now and then. Probably a person has to mend it first.
	DelaySlow Delay = "slow"
	// DelayNone: the session goes on, or the end was wanted. There is nothing to wait for.
	DelayNone Delay = "none"
)

// Info is what there is to say about a kind.
type Info struct {
	Class Class
	Delay Delay
	// Alarm says that a person should be told at once: it does not pass by itself, and the device is offline until then.
	Alarm bool
	// Says is a sentence for a person, to be followed by a colon and details.
	Says string
	// Causes are what usually is behind it, the likeliest first.
	Causes []string
	// Remedy is what to do, in words of the configuration where it can help.
	Remedy string
}

// Info returns what there is to say about the kind; about one that does not exist, what there is about Other.
func (k Kind) Info() Info {
	if info, ok := table[k]; ok {
		return info
	}
	return table[Other]
}

// Kinds lists all kinds by name.
func Kinds() []Kind {
	all := make([]Kind, 0, len(table))
	for k := range table {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// Connack is the kind for a CONNACK return code other than 0 (MQTT 3.1.1, 3.2.2.3).
func Connack(code byte) Kind {
	known := []Kind{ConnackVersion, ConnackIdentifier, ConnackUnavailable, ConnackPassword, ConnackNotAuthorized}
	if code == 0 || int(code) > len(known) {
		return ConnackUnknown
	}
	return known[code-1]
}

// HTTPStatus is the kind for an answer to the WebSocket handshake other than 101.
func HTTPStatus(status int) Kind {
	switch {
	case status == 401:
		return HTTP401
	case status == 403:
		return HTTP403
	case status == 404:
		return HTTP404
	case status == 429:
		return HTTP429
	case status == 503:
		return HTTP503
	case status >= 500 && status <= 599:
		return HTTP5xx
	case status >= 300 && status <= 399:
		return HTTPRedirect
	case status >= 200 && status <= 299:
		return NotWebSocket
	}
	return HTTPOther
}
