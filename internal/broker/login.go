package broker

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// refusal is why a login is refused.
type refusal byte

const (
	accepted refusal = iota
	unknownClient
	wrongAddress
	badCredentials
	busy
)

var refusalNames = [...]string{"accepted", "unknown client id", "address not allowed", "wrong user name or password",
	"too many logins at once"}

func (r refusal) String() string { return refusalNames[r] }

// logins knows who may log in.
type logins struct {
	key   [sha256.Size]byte // of this process, for sum
	index atomic.Pointer[index]
	// slot holds one: hashes are computed one at a time, so that a flood of logins leaves the gateway's other cores alone.
	slot chan struct{}

	mu sync.Mutex // protects the following field
	// known are the sums of passwords that a device's bcrypt hash has confirmed, so that a storm of reconnects does not
	// cost a hash each.
	known map[*device]confirmation
}

type confirmation struct {
	hash string
	sum  [sha256.Size]byte // of the password
}

// index is who may log in at a time. It is not changed.
type index struct {
	byID map[string][]candidate // by client identifier
	any  []candidate            // those that may present any
	// decoy is a hash for logins that fail before they come to one of their own, so that they take as long. It is nil if
	// there are no hashes at all.
	decoy []byte
}

// candidate is a device with its login of that time.
type candidate struct {
	*device
	login *Login
}

func newLogins() (*logins, error) {
	g := &logins{slot: make(chan struct{}, 1), known: make(map[*device]confirmation)}
	if _, err := rand.Read(g.key[:]); err != nil {
		return nil, fmt.Errorf("random key: %w", err)
	}
	g.index.Store(new(index))
	return g, nil
}

// set replaces who may log in. Of several that a login fits, the first is taken.
func (g *logins) set(devices []*device) {
	x := &index{byID: make(map[string][]candidate)}
	for _, d := range devices {
		if d.setup().Guest {
			continue
		}
		c := candidate{d, &d.setup().Login}
		if id := c.login.ClientID; id != "" {
			x.byID[id] = append(x.byID[id], c)
		} else {
			x.any = append(x.any, c)
		}
		if len(c.login.PasswordHash) > 0 && x.decoy == nil {
			x.decoy = c.login.PasswordHash
		}
	}
	g.index.Store(x)
}

// forget is for a device that was removed.
func (g *logins) forget(d *device) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.known, d)
}

// unused makes a client identifier to assign out of a name: one that is not another device's.
func (g *logins) unused(name string) string {
	x := g.index.Load()
	id := name
	for i := 1; len(x.byID[id]) > 0; i++ {
		id = name + "-" + strconv.Itoa(i)
	}
	return id
}

// claims says whether a client identifier is a device's own.
func (g *logins) claims(clientID string) bool { return len(g.index.Load().byID[clientID]) > 0 }

// candidates are those that a client identifier may stand for. Those that name it come before those that take any.
func (x *index) candidates(clientID string) []candidate {
	if named := x.byID[clientID]; len(named) > 0 {
		return named
	}
	return x.any
}

// check finds the device that logs in, and the login that it may do so with. Of a refused login it returns the device
// that it came closest to, if any.
func (g *logins) check(l *link, clientID string, username, password []byte) (*device, *Login, refusal) {
	x := g.index.Load()
	attempt := attempt{logins: g, link: l, decoy: x.decoy, username: username, password: password}
	why, closest := unknownClient, (*device)(nil)
	for _, c := range x.candidates(clientID) {
		if !c.login.allows(l.remote.Addr()) {
			if why == unknownClient {
				why, closest = wrongAddress, c.device
			}
			continue
		}
		if attempt.matches(c) {
			return c.device, c.login, accepted
		}
		why, closest = badCredentials, c.device
	}
	attempt.pretend()
	if attempt.late {
		return closest, nil, busy
	}
	return closest, nil, why
}

// proof is what a device has presented, so that it can be held against another configuration.
type proof struct{ username, password [sha256.Size]byte }

func (g *logins) proof(username, password []byte) proof {
	return proof{g.sum(username), g.sum(password)}
}

// still finds the device that l, which has logged in, would log in as now, nil if none. Whether what it presented fits
// another hash is not known: then it has to log in again. A guest stays one until somebody else claims its login, or
// its address is not allowed any more.
func (g *logins) still(l *link) *device {
	for _, c := range g.index.Load().candidates(l.req.clientID) {
		if c.login == l.login || c.login.allows(l.remote.Addr()) && g.fits(c.login, l) {
			return c.device
		}
	}
	if now := l.device.setup(); l.guest() && now.Guest && now.Login.allows(l.remote.Addr()) {
		return l.device
	}
	return nil
}

func (g *logins) fits(now *Login, l *link) bool {
	switch {
	case now.Anonymous:
		return true
	case now.Username != "" && g.sum([]byte(now.Username)) != l.proof.username:
		return false
	case now.Password != "":
		return g.sum([]byte(now.Password)) == l.proof.password
	case len(now.PasswordHash) > 0:
		return !l.guest() && !l.login.Anonymous && bytes.Equal(now.PasswordHash, l.login.PasswordHash)
	}
	return true
}

func (in *Login) allows(from netip.Addr) bool {
	if len(in.AllowFrom) == 0 {
		return true
	}
	from = from.WithZone("")
	for _, p := range in.AllowFrom {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// attempt is one login.
type attempt struct {
	*logins
	link               *link
	decoy              []byte
	username, password []byte
	compared           bool // user name or password were looked at
	hashed             bool // a hash was computed
	late               bool // there was no time for it
}

// matches checks user name and password, and takes the same time whichever of them is wrong.
func (a *attempt) matches(c candidate) bool {
	if c.login.Anonymous {
		return true
	}
	a.compared = true
	ok := 1
	if c.login.Username != "" {
		ok &= a.equal(a.username, []byte(c.login.Username))
	}
	switch {
	case c.login.Password != "":
		ok &= a.equal(a.password, []byte(c.login.Password))
	case len(c.login.PasswordHash) > 0 && !a.confirmed(c):
		ok = 0
	}
	return ok == 1
}

// pretend does what a login with a wrong password takes, unless that was done already: the time of an answer is not to
// tell which client identifiers exist.
func (a *attempt) pretend() {
	if !a.compared {
		a.equal(a.username, nil)
		a.equal(a.password, nil)
	}
	if !a.hashed && a.decoy != nil {
		a.compare(a.decoy)
	}
}

func (a *attempt) equal(x, y []byte) int {
	sx, sy := a.sum(x), a.sum(y)
	return subtle.ConstantTimeCompare(sx[:], sy[:])
}

func (g *logins) sum(p []byte) (s [sha256.Size]byte) {
	h := hmac.New(sha256.New, g.key[:])
	_, _ = h.Write(p) // a hash takes everything
	h.Sum(s[:0])
	return s
}

// confirmed checks the password against the device's hash, or against what has been confirmed before.
func (a *attempt) confirmed(c candidate) bool {
	sum := a.sum(a.password)
	a.mu.Lock()
	known := a.known[c.device]
	a.mu.Unlock()
	hash := string(c.login.PasswordHash)
	if known.hash == hash && subtle.ConstantTimeCompare(known.sum[:], sum[:]) == 1 {
		return true
	}
	if !a.compare(c.login.PasswordHash) {
		return false
	}
	a.mu.Lock()
	a.known[c.device] = confirmation{hash, sum}
	a.mu.Unlock()
	return true
}

// compare computes a hash, if its turn comes before the connect timeout.
func (a *attempt) compare(hash []byte) bool {
	a.hashed = true
	timer := time.NewTimer(time.Until(a.link.giveUp))
	defer timer.Stop()
	select {
	case a.slot <- struct{}{}:
	case <-timer.C:
		a.late = true
		return false
	case <-a.link.closed:
		return false
	}
	defer func() { <-a.slot }()
	return bcrypt.CompareHashAndPassword(hash, a.password) == nil
}
