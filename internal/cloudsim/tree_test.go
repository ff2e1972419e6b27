package cloudsim

import (
	"math/rand/v2"
	"strings"
	"testing"

	"bridged/internal/mqtt"
)

// The tree finds what matching one filter after another finds, and is empty in the end.
func TestTree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	name := func(levels []string) string {
		parts := make([]string, 1+r.IntN(3))
		for i := range parts {
			parts[i] = levels[r.IntN(len(levels))]
		}
		return strings.Join(parts, "/")
	}
	filter := func() string {
		for {
			if f := name([]string{"a", "b", "", "$s", "+", "#"}); mqtt.ValidFilter(f) {
				return f
			}
		}
	}
	var tr tree
	sessions := make([]*session, 5)
	for i := range sessions {
		sessions[i] = &session{subs: map[string]byte{}}
	}
	matched := 0
	for range 5000 {
		s := sessions[r.IntN(len(sessions))]
		if f := filter(); r.IntN(3) == 0 {
			delete(s.subs, f)
			tr.remove(f, s)
		} else if len(s.subs) < 10 {
			s.subs[f] = byte(r.IntN(3))
			tr.add(f, s, s.subs[f])
		}
		topic := name([]string{"a", "b", "", "$s", "c"})
		if topic == "" {
			continue
		}
		got := tr.match(topic)
		for i, s := range sessions {
			want, ok := s.granted(topic)
			if q, found := got[s]; q != want || found != ok {
				t.Fatalf("%q for session %d with %v: QoS %d, %t, want %d, %t", topic, i, s.subs, q, found, want, ok)
			}
			if ok {
				matched++
			}
		}
	}
	if matched < 1000 {
		t.Errorf("only %d matches", matched)
	}
	for _, s := range sessions {
		for f := range s.subs {
			tr.remove(f, s)
		}
	}
	if len(tr.children) > 0 {
		t.Errorf("left: %v", tr.children)
	}
	tr.remove("a/b", sessions[0]) // what is not there
}
