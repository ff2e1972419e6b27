package bridge

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"

	"bridged/internal/credentials"
)

// proofs remembers which logins clouds have accepted, as salted hashes: a device that brings its own login is let in
// with that one while its cloud is away. They are kept as notes, one for each device. A note is written when a login is
// accepted that differs from the last one, and never while the same device comes again with the same.
//
// Making and comparing such a hash is slow by design. It is done for one login at a time, and not while a device waits
// that its cloud has accepted.
type proofs struct {
	notes notes
	log   *zap.Logger
	key   [sha256.Size]byte // of this process, for sum
	slot  chan struct{}     // holds one: a hash is computed one at a time
	wake  chan struct{}     // holds one

	mu      sync.Mutex                   // protects the following fields
	hashes  map[string][]byte            // bcrypt, by device
	known   map[string][sha256.Size]byte // sums of logins whose hashes these are
	pending map[string]credentials.Login // to be hashed
}

// proofPrefix begins the names of the notes. The device's name follows.
const proofPrefix = "login/"

func newProofs(n notes, kept map[string][]byte, log *zap.Logger) *proofs {
	p := &proofs{
		notes: n, log: log, slot: make(chan struct{}, 1), wake: make(chan struct{}, 1), hashes: make(map[string][]byte),
		known: make(map[string][sha256.Size]byte), pending: make(map[string]credentials.Login),
	}
	_, _ = rand.Read(p.key[:]) // it never fails
	for name, value := range kept {
		if device, ok := strings.CutPrefix(name, proofPrefix); ok {
			p.hashes[device] = value
		}
	}
	return p
}

// Run computes hashes until ctx ends.
func (p *proofs) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		for ctx.Err() == nil {
			device, login, ok := p.next()
			if !ok {
				break
			}
			p.put(ctx, device, login)
		}
	}
}

func (p *proofs) next() (device string, login credentials.Login, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for device, login = range p.pending {
		delete(p.pending, device)
		return device, login, true
	}
	return "", login, false
}

// keep remembers a login that a cloud has accepted.
func (p *proofs) keep(device string, l credentials.Login) {
	sum := p.sum(l)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[device] == sum {
		return
	}
	p.pending[device] = l
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *proofs) put(ctx context.Context, device string, l credentials.Login) {
	if p.compare(ctx, device, l) {
		return
	}
	hash, err := bcrypt.GenerateFromPassword(digest(l), bcrypt.DefaultCost)
	if err != nil {
		p.log.Error("a login cannot be remembered", zap.String("device", device), zap.NamedError("err", err))
		return
	}
	p.mu.Lock()
	p.hashes[device], p.known[device] = hash, p.sum(l)
	p.mu.Unlock()
	if err := p.notes.Note(proofPrefix+device, hash, nil); err != nil {
		p.log.Error("a login cannot be remembered over a restart", zap.String("device", device), zap.NamedError("err", err))
	}
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
	p.known[device] = p.sum(l)
	return true
}

// drop forgets a login that the cloud refuses, if it is the one that is remembered.
func (p *proofs) drop(ctx context.Context, device string, l credentials.Login) {
	if !p.match(ctx, device, l) {
		return
	}
	p.mu.Lock()
	delete(p.hashes, device)
	delete(p.known, device)
	delete(p.pending, device)
	p.mu.Unlock()
	if err := p.notes.Note(proofPrefix+device, nil, nil); err != nil {
		p.log.Error("a login that is refused cannot be forgotten", zap.String("device", device), zap.NamedError("err", err))
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
