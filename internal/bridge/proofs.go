package bridge

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"

	"bridged/internal/credentials"
)

// proofs remembers which logins clouds have accepted, as salted hashes: a device that brings its own login is let in
// with that one while its cloud is away. They are kept as notes, one for each device. A note is written when a login is
// accepted that differs from the last one, and never while the same device comes again with the same. Firmware that
// signs anew for each connection would have one written each time: the second one in a process waits for rewriteAfter.
//
// Making and comparing such a hash is slow by design. It is done for one login at a time, and not while a device waits
// that its cloud has accepted.
type proofs struct {
	notes   notes
	current func(device string) bool // says whether there is such a device now
	log     *zap.Logger
	key     [sha256.Size]byte // of this process, for sum
	slot    chan struct{}     // holds one: a hash is computed one at a time
	wake    chan struct{}     // holds one

	mu      sync.Mutex                   // protects the following fields
	hashes  map[string][]byte            // bcrypt, by device
	known   map[string][sha256.Size]byte // sums of logins whose hashes these are
	pending map[string]credentials.Login // to be hashed
	written map[string]time.Time         // when this process has written a device's note
}

const (
	// rewriteAfter is how long a note stands at least.
	rewriteAfter = time.Hour
	// maxProofs bounds how many devices are remembered. Beyond it those go that bridged does not know otherwise.
	maxProofs = 10000
)

// proofPrefix begins the names of the notes. The device's name follows.
const proofPrefix = "login/"

func newProofs(n notes, kept map[string][]byte, current func(string) bool, log *zap.Logger) *proofs {
	p := &proofs{
		notes: n, current: current, log: log, slot: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		hashes: make(map[string][]byte), known: make(map[string][sha256.Size]byte),
		pending: make(map[string]credentials.Login), written: make(map[string]time.Time),
	}
	_, _ = rand.Read(p.key[:]) // it never fails
	for name, value := range kept {
		if device, ok := strings.CutPrefix(name, proofPrefix); ok {
			p.hashes[device] = value
		}
	}
	return p
}

// run computes hashes until ctx ends.
func (p *proofs) run(ctx context.Context) {
	t := time.NewTimer(rewriteAfter)
	defer t.Stop()
	for ctx.Err() == nil {
		device, login, wait := p.next(time.Now())
		if wait == 0 {
			p.put(ctx, device, login)
			continue
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-t.C:
		}
	}
}

// next returns a login that is to be hashed now, or how long there is none.
func (p *proofs) next(now time.Time) (device string, login credentials.Login, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait = rewriteAfter
	for device, login := range p.pending {
		at, before := p.written[device]
		left := at.Add(rewriteAfter).Sub(now)
		if !before || left <= 0 {
			return device, login, 0
		}
		wait = min(wait, left)
	}
	return "", credentials.Login{}, wait
}

// keep remembers a login that a cloud has accepted.
func (p *proofs) keep(device string, l credentials.Login) {
	sum := p.sum(l)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[device] == sum {
		delete(p.pending, device)
		return
	}
	p.pending[device] = l
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *proofs) put(ctx context.Context, device string, l credentials.Login) {
	var hash []byte
	if !p.compare(ctx, device, l) {
		var err error
		if hash, err = bcrypt.GenerateFromPassword(digest(l), bcrypt.DefaultCost); err != nil {
			p.log.Error("a login cannot be remembered", zap.String("device", device), zap.NamedError("err", err))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending[device] != l { // there is a later one, or it was refused meanwhile
		return
	}
	delete(p.pending, device)
	if hash == nil {
		return
	}
	p.hashes[device], p.known[device], p.written[device] = hash, p.sum(l), time.Now()
	if err := p.notes.Note(proofPrefix+device, hash, nil); err != nil {
		p.log.Error("a login cannot be remembered over a restart", zap.String("device", device), zap.NamedError("err", err))
	}
	if len(p.hashes) <= maxProofs {
		return
	}
	for other := range p.hashes {
		if !p.current(other) {
			p.forgetLocked(other)
			return
		}
	}
}

// forgetLocked forgets all of a device.
func (p *proofs) forgetLocked(device string) {
	delete(p.hashes, device)
	delete(p.known, device)
	delete(p.pending, device)
	delete(p.written, device)
	if err := p.notes.Note(proofPrefix+device, nil, nil); err != nil {
		p.log.Error("a login cannot be forgotten", zap.String("device", device), zap.NamedError("err", err))
	}
}

// remembers says whether there is a login of the device that its cloud has accepted.
func (p *proofs) remembers(device string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, pending := p.pending[device]
	return p.hashes[device] != nil || pending
}

// match says whether a login is the one that the device's cloud accepted last. It may take until ctx ends.
func (p *proofs) match(ctx context.Context, device string, l credentials.Login) bool {
	p.mu.Lock()
	known, ok := p.known[device]
	waiting, queued := p.pending[device]
	p.mu.Unlock()
	switch sum := p.sum(l); {
	case queued:
		return p.sum(waiting) == sum
	case ok:
		return subtle.ConstantTimeCompare(known[:], sum[:]) == 1
	}
	return p.compare(ctx, device, l)
}

// compare holds a login against the hash.
func (p *proofs) compare(ctx context.Context, device string, l credentials.Login) bool {
	p.mu.Lock()
	hash := p.hashes[device]
	p.mu.Unlock()
	if hash == nil {
		return false
	}
	select {
	case p.slot <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-p.slot }()
	if bcrypt.CompareHashAndPassword(hash, digest(l)) != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !bytes.Equal(p.hashes[device], hash) { // it was forgotten meanwhile
		return false
	}
	p.known[device] = p.sum(l)
	return true
}

// drop forgets a login that the cloud refuses, if it is the one that is remembered.
func (p *proofs) drop(ctx context.Context, device string, l credentials.Login) {
	if p.match(ctx, device, l) {
		p.revoke(device, l)
	}
}

// revoke is drop for a login that was accepted, or let in, by this process. It does not wait.
func (p *proofs) revoke(device string, l credentials.Login) {
	sum := p.sum(l)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[device] == sum || p.pending[device] == l {
		p.forgetLocked(device)
	}
}

// digest is what is hashed: bcrypt takes no more than 72 bytes.
func digest(l credentials.Login) []byte {
	sum := sha256.New()
	for _, s := range []string{l.ClientID, l.Username, l.Password} {
		_, _ = sum.Write([]byte{byte(len(s) >> 8), byte(len(s))}) // a hash takes everything
		_, _ = sum.Write([]byte(s))
	}
	return []byte(base64.StdEncoding.EncodeToString(sum.Sum(nil)))
}

func (p *proofs) sum(l credentials.Login) (s [sha256.Size]byte) {
	h := hmac.New(sha256.New, p.key[:])
	_, _ = h.Write(digest(l))
	h.Sum(s[:0])
	return s
}
