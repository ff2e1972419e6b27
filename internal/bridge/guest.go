package bridge

import (
	"context"
	"errors"
	"sync"
	"time"

	"bridged/internal/config"
	"bridged/internal/credentials"
	"bridged/internal/failure"
)

// guest is a device that brings its own login. It is its device's Identity: each attempt presents what the device did.
// It outlives its device's configuration, and the cloud's URL.
type guest struct {
	name string // the device's
	who  string // what the cloud calls it

	mu sync.Mutex // protects the following fields; no other lock is taken while it is held
	// login is what the next attempt presents. It is zero until the device has come, since no login is kept on disk.
	login credentials.Login
	// signed is what the present attempt presents.
	signed credentials.Login
	// good is what the cloud accepted last, to go back to when another login is refused.
	good   credentials.Login
	goodAt time.Time // when a device was let in last
	try    *try      // the login that waits for the cloud's word, nil if none does
	ended  bool      // the device was removed
}

// try is a login that waits for the cloud's word.
type try struct {
	login   credentials.Login
	verdict chan verdict // holds one
}

// verdict is what comes of a login.
type verdict struct {
	code   byte // of CONNACK, 0 if the cloud accepts it
	reason string
	// away says that the cloud has not decided.
	away bool
}

// The return codes of MQTT 3.1.1 for a refused CONNECT (3.2.2.3).
const (
	refusedIdentifier  = 2
	refusedUnavailable = 3
	refusedCredentials = 4
	refusedNotAllowed  = 5
)

// Sign implements credentials.Identity. It presents the login as the device did.
func (g *guest) Sign(time.Time, string) (credentials.Login, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.signed = g.login
	if g.login.ClientID == "" {
		return credentials.Login{}, errNoLogin
	}
	return g.login, nil
}

// guestAt is how a guest signs for its cloud as it is configured at a time.
type guestAt struct {
	*guest
	cloud *config.Cloud
}

// Sign implements upstream.Signer.
func (g guestAt) Sign(now time.Time, nonce string) (credentials.Login, error) {
	l, err := g.guest.Sign(now, nonce)
	if err != nil {
		return l, err
	}
	return config.PassedThrough(g.cloud, l).Sign(now, nonce)
}

// Validate implements credentials.Identity.
func (g *guest) Validate() error { return nil }

var errNoLogin = &credentials.FieldError{
	Field: "the login",
	Reason: "is not known: it is the device's own, is not kept on disk, and the device has not come since bridged " +
		"started, or the cloud does not accept it any more",
	Remedy: "have the device connect",
}

// begin takes a login that is to be judged, in place of any other that waits. It returns nil if the cloud has accepted
// the same one for the session that stands.
func (g *guest) begin(l credentials.Login, online bool) *try {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.try != nil {
		g.try.decide(verdict{code: refusedUnavailable, away: true, reason: "the device has come again meanwhile"})
		g.try = nil
	}
	if online && g.good == l && g.login == l {
		g.goodAt = time.Now()
		return nil
	}
	g.try = &try{login: l, verdict: make(chan verdict, 1)}
	g.login = l
	if g.ended {
		g.try.decide(wasRemoved)
	}
	return g.try
}

// end is for a device that is removed: nobody will tell what the cloud says.
func (g *guest) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	if g.try != nil {
		g.try.decide(wasRemoved)
	}
}

var wasRemoved = verdict{code: refusedUnavailable, away: true, reason: "the device has just been removed"}

// decide tells what comes of the login, unless something was told that nobody has taken yet.
func (t *try) decide(v verdict) {
	select {
	case t.verdict <- v:
	default:
	}
}

// accept has the device's sessions go by the login that was tried, unless the cloud has refused it after all: then it
// returns its word.
func (g *guest) accept(t *try) (v verdict, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case v = <-t.verdict:
		if v.code != 0 && !v.away {
			return v, false
		}
	default:
	}
	g.good, g.goodAt = t.login, time.Now()
	if g.try == t {
		g.try = nil
		g.login = t.login
	}
	return v, true
}

// reject goes back to the login before. It reports whether nobody else has come meanwhile.
func (g *guest) reject(t *try) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.try != t {
		return false
	}
	g.try = nil
	g.login = g.good
	return true
}

// judge takes the cloud's word on the present attempt. It returns a login that is refused and had been good, if it is
// one: then the device has to come again.
func (g *guest) judge(f *failure.Failure) (l credentials.Login, expired bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := verdictOf(f)
	if t := g.try; t != nil && t.login == g.signed {
		t.decide(v)
		return credentials.Login{}, false
	}
	if v.code == 0 || v.away || g.signed != g.good || g.signed.ClientID == "" {
		return credentials.Login{}, false
	}
	l, g.good = g.good, credentials.Login{}
	if g.login == l {
		g.login = credentials.Login{}
	}
	return l, true
}

// verdictOf is what an attempt's end says of its login. Only the cloud itself can refuse one, by CONNACK.
func verdictOf(f *failure.Failure) verdict {
	if f == nil {
		return verdict{}
	}
	v := verdict{reason: f.Error()}
	switch f.Kind {
	case failure.ConnackIdentifier:
		v.code = refusedIdentifier
	case failure.ConnackPassword:
		v.code = refusedCredentials
	case failure.ConnackNotAuthorized:
		v.code = refusedNotAllowed
	default:
		v.code, v.away = refusedUnavailable, true
	}
	return v
}

// wait returns the cloud's word, or that there is none; told is false if ctx has ended before.
func (t *try) wait(ctx context.Context) (v verdict, told bool) {
	select {
	case v := <-t.verdict:
		return v, true
	case <-ctx.Done():
	}
	select {
	case v := <-t.verdict:
		return v, true
	default:
	}
	v = verdict{code: refusedUnavailable, away: true, reason: "the cloud has not answered in time"}
	if errors.Is(ctx.Err(), context.Canceled) {
		v.reason = "the connection has ended while the cloud was asked"
	}
	return v, false
}

// waits says that a login waits for the cloud's word.
func (g *guest) waits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.try != nil
}

// unused says that no login of the device has been accepted, and none is tried.
func (g *guest) unused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.try == nil && g.good == credentials.Login{}
}

// blank says that there is nothing to present to the cloud, and nothing is tried.
func (g *guest) blank() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.try == nil && g.login == credentials.Login{}
}

// enters says that a login of the device was accepted so short a time ago that the device may not be there yet.
func (g *guest) enters(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Sub(g.goodAt) < enterWithin
}

// enterWithin is how long it may take until a device is connected whose login was accepted. Mostly it is nothing.
const enterWithin = 10 * time.Second
