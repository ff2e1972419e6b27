package bridge

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"

	"bridged/internal/credentials"
)

// noted counts how often each note was written.
type noted struct {
	mu     sync.Mutex
	writes map[string]int
	values map[string][]byte
}

func (n *noted) Note(name string, value []byte, _ func()) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.writes[name]++
	n.values[name] = value
	return nil
}

func newNoted() *noted { return &noted{writes: make(map[string]int), values: make(map[string][]byte)} }

func someone(string) bool { return false }

// put hashes what is due at a time.
func (p *proofs) due(t *testing.T, now time.Time) (n int) {
	t.Helper()
	for {
		device, l, wait := p.next(now)
		if wait > 0 {
			return n
		}
		p.put(t.Context(), device, l)
		n++
	}
}

// A device that signs anew each time does not wear out the disk, and the latest login counts all the same.
func TestProofsAreWrittenSeldom(t *testing.T) {
	n := newNoted()
	p := newProofs(n, nil, someone, zap.NewNop())
	login := func(i int) credentials.Login { return credentials.Login{ClientID: "x", Password: fmt.Sprint(i)} }
	for i := range 5 {
		p.keep("x", login(i))
		p.due(t, time.Now())
		if !p.match(t.Context(), "x", login(i)) || i > 0 && p.match(t.Context(), "x", login(i-1)) {
			t.Errorf("login %d is not the one that is known", i)
		}
	}
	if w := n.writes[proofPrefix+"x"]; w != 1 {
		t.Errorf("%d writes", w)
	}
	if p.due(t, time.Now().Add(rewriteAfter)) != 1 || n.writes[proofPrefix+"x"] != 2 {
		t.Errorf("%d writes after a long time", n.writes[proofPrefix+"x"])
	}
	p.keep("x", login(5))
	p.keep("x", login(4)) // is what the note says
	if p.due(t, time.Now().Add(2*rewriteAfter)) != 0 || !p.match(t.Context(), "x", login(4)) {
		t.Error("what is written already was written again")
	}
	p.keep("x", login(6))
	p.revoke("x", login(6))
	if p.match(t.Context(), "x", login(6)) || p.match(t.Context(), "x", login(4)) || n.values[proofPrefix+"x"] != nil {
		t.Error("it is still known")
	}
	p.keep("x", login(7))
	p.due(t, time.Now())
	p.revoke("x", login(6)) // is another one
	if !p.match(t.Context(), "x", login(7)) {
		t.Error("it was forgotten")
	}
}

// A login that is refused while its hash is being made is not remembered.
func TestProofRevokedMeanwhile(t *testing.T) {
	n := newNoted()
	p := newProofs(n, nil, someone, zap.NewNop())
	l := credentials.Login{ClientID: "x"}
	p.keep("x", l)
	device, l, _ := p.next(time.Now())
	p.revoke("x", l)
	p.put(t.Context(), device, l)
	if p.match(t.Context(), "x", l) || n.values[proofPrefix+"x"] != nil {
		t.Error("it is known")
	}
}

// A cloud that takes any login does not have the gateway remember without end.
func TestProofsAreBounded(t *testing.T) {
	n := newNoted()
	kept := make(map[string][]byte)
	hash, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxProofs {
		kept[fmt.Sprint(proofPrefix, "old", i)] = hash
	}
	p := newProofs(n, kept, func(device string) bool { return !strings.HasSuffix(device, "7") }, zap.NewNop())
	for i := range 3 {
		p.keep(fmt.Sprint("new", i), credentials.Login{ClientID: "x"})
	}
	p.due(t, time.Now())
	if len(p.hashes) != maxProofs {
		t.Errorf("%d are remembered", len(p.hashes))
	}
	for name, value := range n.values {
		if value == nil != strings.HasSuffix(name, "7") {
			t.Errorf("%s: %q", name, value)
		}
	}
}
