package bridge

import (
	"context"
	"sync"
	"time"

	"bridged/internal/credentials"
	"bridged/internal/failure"
)

// guest is a device that brings its own login. It is its device's Identity: each attempt presents what the device did.
type guest struct {
	name string // the device's
	who  string // what the cloud calls it

	mu sync.Mutex // protects the following fields; no other lock is taken while it is held
	// login is what the next attempt presents. It is zero until the device has come, since no login is kept on disk.
	login credentials.PassThrough
	// signed is what the present attempt presents.
	signed credentials.Login
	// good is what the cloud accepted last, to go back to when another login is refused.
	good credentials.PassThrough
	try  *try // the login that waits for the cloud's word, nil if none does
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

// Sign implements credentials.Identity.
func (g *guest) Sign(now time.Time, nonce string) (credentials.Login, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.signed = g.login.Presented
	if g.login.Presented.ClientID == "" {
		return credentials.Login{}, errNoLogin
	}
	return g.login.Sign(now, nonce)
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
func (g *guest) begin(id credentials.PassThrough, online bool) *try {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.try != nil {
		g.try.decide(verdict{away: true, reason: "the device has come again meanwhile"})
		g.try = nil
	}
	if online && g.good == id && g.login == id {
		return nil
	}
	g.try = &try{login: id.Presented, verdict: make(chan verdict, 1)}
	g.login = id
	return g.try
}

func (t *try) decide(v verdict) { t.verdict <- v }

// accept has the device's sessions go by the login that was tried.
func (g *guest) accept(t *try, id credentials.PassThrough) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.good = id
	if g.try == t {
		g.try = nil
		g.login = id
	}
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

// judge takes the cloud's word on the present attempt. It returns whether a login is refused that had been good: then
// the device has to come again.
func (g *guest) judge(f *failure.Failure) (expired bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := verdictOf(f)
	if t := g.try; t != nil && t.login == g.signed {
		select {
		case t.verdict <- v:
		default: // it was told already
		}
		return false
	}
	if v.code == 0 || v.away || g.signed != g.good.Presented || g.signed.ClientID == "" {
		return false
	}
	if g.login == g.good {
		g.login = credentials.PassThrough{}
	}
	g.good = credentials.PassThrough{}
	return true
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

// wait returns the cloud's word, or that there is none.
func (t *try) wait(ctx context.Context) verdict {
	select {
	case v := <-t.verdict:
		return v
	case <-ctx.Done():
		return verdict{code: refusedUnavailable, away: true, reason: "the cloud has not answered in time"}
	}
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
	return g.try == nil && g.good == credentials.PassThrough{}
}
