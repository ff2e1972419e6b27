package broker

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
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
	byID map[string][]*device // by client identifier
	any  []*device            // those that may present any
	key  [sha256.Size]byte    // of this process, for sum

	// decoy is a hash for logins that fail before they come to one of their own, so that they take as long. It is nil if
	// there are no hashes at all.
	decoy []byte
	// slot holds one: hashes are computed one at a time, so that a flood of logins leaves the gateway's other cores alone.
	slot chan struct{}

	mu sync.Mutex // protects the following field
	// known are the sums of passwords that a device's bcrypt hash has confirmed, so that a storm of reconnects does not
	// cost a hash each.
	known map[*device][sha256.Size]byte
}

func newLogins(cfgs []Device, devices map[string]*device) (*logins, error) {
	g := &logins{
		byID:  make(map[string][]*device),
		slot:  make(chan struct{}, 1),
		known: make(map[*device][sha256.Size]byte),
	}
	if _, err := rand.Read(g.key[:]); err != nil {
		return nil, fmt.Errorf("random key: %w", err)
	}
	for i := range cfgs { // in the order of the configuration
		d := devices[cfgs[i].Name]
		if d.Guest {
			continue
		}
		if id := d.Login.ClientID; id != "" {
			g.byID[id] = append(g.byID[id], d)
		} else {
			g.any = append(g.any, d)
		}
		if len(d.Login.PasswordHash) > 0 && g.decoy == nil {
			g.decoy = d.Login.PasswordHash
		}
	}
	for _, d := range g.any {
		d.assigned = g.unused(d.Name)
	}
	return g, nil
}

// unused makes a client identifier to assign out of a name: one that is not another device's.
func (g *logins) unused(name string) string {
	id := name
	for i := 1; len(g.byID[id]) > 0; i++ {
		id = name + "-" + strconv.Itoa(i)
	}
	return id
}

// check finds the device that logs in. Those that name the client identifier come before those that take any. Of a
// refused login it returns the device that it came closest to, if any.
func (g *logins) check(l *link, clientID string, username, password []byte) (*device, refusal) {
	candidates := g.byID[clientID]
	if len(candidates) == 0 {
		candidates = g.any
	}
	attempt := attempt{logins: g, link: l, username: username, password: password}
	why, closest := unknownClient, (*device)(nil)
	for _, d := range candidates {
		if !d.allowed(l.remote.Addr()) {
			if why == unknownClient {
				why, closest = wrongAddress, d
			}
			continue
		}
		if attempt.matches(d) {
			return d, accepted
		}
		why, closest = badCredentials, d
	}
	attempt.pretend()
	if attempt.late {
		return closest, busy
	}
	return closest, why
}

func (d *device) allowed(from netip.Addr) bool {
	if len(d.Login.AllowFrom) == 0 {
		return true
	}
	from = from.WithZone("")
	for _, p := range d.Login.AllowFrom {
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
	username, password []byte
	compared           bool // user name or password were looked at
	hashed             bool // a hash was computed
	late               bool // there was no time for it
}

// matches checks user name and password, and takes the same time whichever of them is wrong.
func (a *attempt) matches(d *device) bool {
	if d.Login.Anonymous {
		return true
	}
	a.compared = true
	ok := 1
	if d.Login.Username != "" {
		ok &= a.equal(a.username, []byte(d.Login.Username))
	}
	switch {
	case d.Login.Password != "":
		ok &= a.equal(a.password, []byte(d.Login.Password))
	case len(d.Login.PasswordHash) > 0 && !a.confirmed(d):
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
func (a *attempt) confirmed(d *device) bool {
	sum := a.sum(a.password)
	a.mu.Lock()
	known, ok := a.known[d]
	a.mu.Unlock()
	if ok && subtle.ConstantTimeCompare(known[:], sum[:]) == 1 {
		return true
	}
	if !a.compare(d.Login.PasswordHash) {
		return false
	}
	a.mu.Lock()
	a.known[d] = sum
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
