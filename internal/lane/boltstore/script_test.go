package boltstore

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// script makes the same batches from the same seed, with everything that a store has to cope with.
type script struct {
	rng   *rand.Rand
	m     *model // what the store should hold after the last batch
	n     int    // batches so far
	lanes int
	large int // no message is larger
}

func newScript(seed uint64, lanes int) *script {
	return &script{rng: rand.New(rand.NewPCG(seed, 1)), m: newModel(), lanes: lanes, large: 9000}
}

// next returns the next batch, and has it in the model.
func (s *script) next() *lane.Batch {
	var b lane.Batch
	if s.n++; s.n%45 == 44 { // all is delivered
		for k, l := range s.m.lanes {
			b.Changes = append(b.Changes, s.m.deliver(k, len(l.records)).Changes...)
		}
		slices.SortFunc(b.Changes, func(a, b lane.Change) int {
			return cmp.Or(cmp.Compare(a.Key.Device, b.Key.Device), cmp.Compare(a.Key.Direction, b.Key.Direction))
		})
		return &b
	}
	used := make(map[lane.Key]bool)
	for range 1 + s.rng.IntN(s.lanes) {
		k := lane.Key{Device: fmt.Sprintf("device-%d", s.rng.IntN(s.lanes)), Direction: lane.Direction(s.rng.IntN(2))}
		if !used[k] {
			used[k] = true
			b.Changes = append(b.Changes, s.change(k))
		}
	}
	if s.rng.IntN(4) == 0 {
		n := lane.Note{Name: fmt.Sprintf("note %d", s.rng.IntN(5))}
		if s.rng.IntN(3) > 0 {
			n.Value = fmt.Appendf([]byte{}, "%0*d", s.rng.IntN(600), s.rng.Uint64())
		}
		b.Notes = append(b.Notes, n)
	}
	s.m.apply(&b)
	return &b
}

func (s *script) change(k lane.Key) lane.Change {
	old := s.m.lane(k)
	l := &modelLane{state: old.state, records: append([]lane.Record(nil), old.records...)}
	c := lane.Change{Key: k}
	// Deliver some of the head, or all; take a few out of the middle.
	switch n := len(l.records); s.rng.IntN(6) {
	case 0, 1:
		done := min(n, s.rng.IntN(12))
		l.records, l.state.Delivered = l.records[done:], l.state.Delivered+uint64(done)
		l.state.Sent = max(l.state.Sent, l.state.Head)
	case 2:
		l.records, l.state.Delivered = nil, l.state.Delivered+uint64(n)
	case 3:
		for i := n - 1; i > 0; i-- {
			if s.rng.IntN(5) == 0 {
				c.Gone = append(c.Gone, l.records[i].Seq)
				l.records = append(l.records[:i:i], l.records[i+1:]...)
				l.state.Dropped[lane.Expired]++
			}
		}
	}
	for range s.puts() {
		r := record(k, l.state.Next, s.size())
		l.state.Next += 1 + uint64(s.rng.IntN(20)/19) // not all were stored
		l.records, c.Put = append(l.records, r), append(c.Put, r)
	}
	l.settle()
	c.State = l.state
	if c.Fresh = s.rng.IntN(20) == 0; !c.Fresh && s.rng.IntN(4) == 0 {
		c.Unmark = []uint16{uint16(s.rng.IntN(8))}
	}
	if s.rng.IntN(4) == 0 {
		c.Mark = []mqtt.Mark{{ID: uint16(8 + s.rng.IntN(8)), Sum: s.rng.Uint32()}}
	}
	return c
}

func (s *script) puts() int {
	if s.rng.IntN(15) == 0 {
		return 20 + s.rng.IntN(20)
	}
	return s.rng.IntN(4)
}

func (s *script) size() int {
	switch s.rng.IntN(40) {
	case 0:
		return s.rng.IntN(s.large)
	case 1:
		return 0
	}
	return s.rng.IntN(400)
}
