package governor

import (
	"math/rand/v2"
	"time"
)

// Class is the kind of a failure; it decides how soon the next attempt comes.
type Class string

// The classes.
const (
	ClassNetwork   Class = "network"    // DNS, TCP, a connection that ended or went silent
	ClassProxy     Class = "proxy"      // the proxy cannot be reached, or does not reach the cloud
	ClassTLS       Class = "tls"        // a certificate or the handshake
	ClassRejected  Class = "rejected"   // the cloud refused the login
	ClassTakenOver Class = "taken_over" // somebody else uses this identity
	ClassThrottled Class = "throttled"  // the cloud asked to come back later
	ClassClock     Class = "clock"      // the gateway's clock is plainly wrong
	ClassProtocol  Class = "protocol"   // the peer does not speak what it should
	ClassConfig    Class = "config"     // no login can be made
	ClassMessage   Class = "message"    // the cloud ends the session whenever it is sent a certain message
	// ClassProxyRefused is a proxy that does not take the login, or does not let bridged through.
	ClassProxyRefused Class = "proxy_refused"
)

// classes are all of them; the place is the index of a Retry's count.
var classes = [...]Class{
	ClassNetwork, ClassProxy, ClassTLS, ClassRejected, ClassTakenOver, ClassThrottled, ClassClock, ClassProtocol,
	ClassConfig, ClassMessage, ClassProxyRefused,
}

func (c Class) index() int {
	for i, k := range classes {
		if k == c {
			return i
		}
	}
	return fallback.index()
}

// fallback stands for a class that is not known.
const fallback = ClassProtocol

// Policy is how long to wait after failures of a class: Floor, and a random time (full jitter) up to a bound that is
// First at first and doubles with each failure of the class, up to Max.
type Policy struct {
	Floor, First, Max time.Duration
	// Nudge says that a try may come sooner when there is a reason to hope: what failed may work again by itself.
	Nudge bool
}

// bound is the bound after so many failures.
func (p Policy) bound(failures int) time.Duration {
	b := p.First
	for i := 1; i < failures && b < p.Max; i++ {
		b *= 2
	}
	return min(b, p.Max)
}

// Policies has one for each class. A class that is missing is treated as ClassProtocol.
type Policies map[Class]Policy

// DefaultPolicies are for real use. Failures of the way heal by themselves, and a try costs little: they begin with a
// second. A login that was refused, a certificate and a wrong address wait for a person, and some clouds block who
// fails too often, as the directories behind many proxies lock accounts: half a minute at least. A kick war harms the
// other holder, too: minutes. A throttling cloud needs its load to be spread. A clock is set sooner or later, and
// asking costs nothing. Whether it is a message that the cloud does not take is found out by trying, behind the
// failures of the way that came before.
func DefaultPolicies() Policies {
	return Policies{
		ClassNetwork:      {First: time.Second, Max: 5 * time.Minute, Nudge: true},
		ClassProxy:        {First: 2 * time.Second, Max: 5 * time.Minute, Nudge: true},
		ClassClock:        {Floor: 5 * time.Second, First: 5 * time.Second, Max: time.Minute, Nudge: true},
		ClassProxyRefused: {Floor: 30 * time.Second, First: 5 * time.Second, Max: 10 * time.Minute},
		ClassTLS:          {Floor: 30 * time.Second, First: 5 * time.Second, Max: 10 * time.Minute},
		ClassRejected:     {Floor: 30 * time.Second, First: 5 * time.Second, Max: 15 * time.Minute},
		ClassThrottled:    {Floor: 15 * time.Second, First: 15 * time.Second, Max: 5 * time.Minute},
		ClassProtocol:     {Floor: 15 * time.Second, First: 5 * time.Second, Max: 10 * time.Minute},
		ClassConfig:       {Floor: time.Minute, First: 5 * time.Second, Max: 15 * time.Minute},
		ClassMessage:      {First: 5 * time.Second, Max: 5 * time.Minute},
		ClassTakenOver:    {Floor: time.Minute, First: 2 * time.Minute, Max: 20 * time.Minute},
	}
}

// RetryConfig is what all Retries have in common. It is not changed. Fields that are zero stand for the defaults.
type RetryConfig struct {
	Policies Policies
	// Stable is how long a session must last for its end to count as the first failure again.
	Stable time.Duration
	// NudgeAfter is how long after a failure a nudge has an effect at the earliest; at the latest after twice as long.
	NudgeAfter time.Duration
	// Spread is within which time devices try again when their endpoint has recovered.
	Spread time.Duration
	War    Evidence
	// Rand returns a random time from 0 up to d.
	Rand func(d time.Duration) time.Duration
}

// The defaults. With a Stable of 20 s a link that holds for longer is taken up again at once each time, and a cloud
// that ends sessions soon after CONNACK is not stormed. With a NudgeAfter of a minute 2,000 devices that all publish
// while their cloud is away cause 22 dials in a second, within what the governor allows.
const (
	defaultStable     = 20 * time.Second
	defaultNudgeAfter = time.Minute
	defaultSpread     = 5 * time.Second
)

func (c RetryConfig) withDefaults() *RetryConfig {
	if c.Policies == nil {
		c.Policies = DefaultPolicies()
	}
	if c.Stable == 0 {
		c.Stable = defaultStable
	}
	if c.NudgeAfter == 0 {
		c.NudgeAfter = defaultNudgeAfter
	}
	if c.Spread == 0 {
		c.Spread = defaultSpread
	}
	c.War = c.War.withDefaults()
	if c.Rand == nil {
		c.Rand = func(d time.Duration) time.Duration { return rand.N(d + 1) }
	}
	return &c
}

func (c *RetryConfig) policy(class Class) Policy {
	if p, ok := c.Policies[class]; ok {
		return p
	}
	return c.Policies[fallback]
}
