package mqtt

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// outboxModel says what an Outbox must hold.
type outboxModel struct {
	inFlight map[uint64]uint16 // by sequence number
	reserved []uint16
	released []uint16
	received map[uint16]uint64 // the sequence numbers of the released
	ever     map[uint16]bool   // identifiers that were handed out
	seq      uint64            // the last one assigned
	resend   []uint64          // since the reconnect, in order
}

func (m *outboxModel) used(id uint16) bool {
	for _, other := range m.inFlight {
		if other == id {
			return true
		}
	}
	return slices.Contains(m.reserved, id) || slices.Contains(m.released, id)
}

func (m *outboxModel) check(o *Outbox) error {
	if got, want := o.Len(), len(m.inFlight)+len(m.reserved)+len(m.released); got != want {
		return fmt.Errorf("%d identifiers are in use, want %d", got, want)
	}
	if got := o.Released(); !slices.Equal(got, m.released) {
		return fmt.Errorf("released %v, want %v", got, m.released)
	}
	for _, seq := range m.received {
		if !o.Received(seq) {
			return fmt.Errorf("message %d was received, and is not known to be", seq)
		}
	}
	for seq := range m.inFlight {
		if o.Received(seq) {
			return fmt.Errorf("message %d is taken for received", seq)
		}
	}
	flying := o.Len() // but not what is yet to come again
	for _, seq := range m.resend {
		if _, ok := m.inFlight[seq]; ok {
			flying--
		}
	}
	if got := o.InFlight(); got != flying {
		return fmt.Errorf("%d identifiers are in flight, want %d", got, flying)
	}
	if o.Wrapped() && len(m.ever) < 65535 {
		return fmt.Errorf("wrapped after %d identifiers", len(m.ever))
	}
	return nil
}

func TestOutboxModel(t *testing.T) {
	for range 40 {
		seed := rand.Uint64()
		if err := runOutboxModel(seed); err != nil {
			t.Fatalf("seed %#x: %v", seed, err)
		}
	}
}

func runOutboxModel(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	o := new(Outbox)
	if seed%2 == 0 {
		o.last = 65535 - 100 // wraps soon
	}
	m := &outboxModel{
		inFlight: make(map[uint64]uint16), received: make(map[uint16]uint64), ever: make(map[uint16]bool),
	}
	for i := range int(o.last) {
		m.ever[uint16(i+1)] = true
	}
	for i := range 1500 {
		if err := m.step(o, rng); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if err := m.check(o); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	o.Reset()
	if o.Len() != 0 || len(o.Released()) != 0 {
		return fmt.Errorf("something is left after Reset")
	}
	return nil
}

func (m *outboxModel) step(o *Outbox, rng *rand.Rand) error {
	switch n := rng.IntN(100); {
	case n < 30 && len(m.inFlight) < 50:
		return m.assign(o, rng)
	case n < 36:
		id, ok := o.Reserve()
		if !ok || id == 0 || m.used(id) {
			return fmt.Errorf("Reserve() = %d, %v; in use: %v", id, ok, m.used(id))
		}
		m.reserved, m.ever[id] = append(m.reserved, id), true
	case n < 42 && len(m.reserved) > 0:
		i := rng.IntN(len(m.reserved))
		o.Free(m.reserved[i])
		m.reserved = slices.Delete(m.reserved, i, i+1)
	case n < 60:
		return m.acknowledge(o, m.any(rng), o.Ack, false)
	case n < 78:
		return m.acknowledge(o, m.any(rng), o.Receive, true)
	case n < 93 && len(m.released) > 0:
		i := rng.IntN(min(3, len(m.released)))
		id := m.released[i]
		if seq, ok := o.Complete(id); !ok || seq != m.received[id] {
			return fmt.Errorf("Complete(%d) = %d, %v, want %d", id, seq, ok, m.received[id])
		}
		m.released = slices.Delete(m.released, i, i+1)
		delete(m.received, id)
	case n < 96: // what does not belong there changes nothing
		id := m.any(rng)
		if !slices.Contains(m.reserved, id) {
			o.Free(id)
		}
		if !slices.Contains(m.released, id) {
			if seq, ok := o.Complete(id); ok {
				return fmt.Errorf("Complete(%d) = %d, but it is not released", id, seq)
			}
		}
	case n < 98:
		o.Disconnected()
		m.resend = m.inOrder()
	}
	return nil
}

// any returns an identifier that is in use, mostly.
func (m *outboxModel) any(rng *rand.Rand) uint16 {
	ids := slices.Concat(m.reserved, m.released)
	for _, seq := range m.inOrder() {
		ids = append(ids, m.inFlight[seq], m.inFlight[seq])
	}
	if len(ids) == 0 || rng.IntN(20) == 0 {
		return uint16(rng.IntN(65536))
	}
	return ids[rng.IntN(len(ids))]
}

func (m *outboxModel) inOrder() []uint64 {
	var seqs []uint64
	for seq := range m.inFlight {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	return seqs
}

// assign takes an identifier for the next message: one that is resent, some of which do not come any more, or a new
// one.
func (m *outboxModel) assign(o *Outbox, rng *rand.Rand) error {
	seq, resent := uint64(0), false
	for len(m.resend) > 0 && !resent {
		seq = m.resend[0]
		m.resend = m.resend[1:]
		_, known := m.inFlight[seq] // not acknowledged meanwhile
		if resent = known && rng.IntN(4) > 0; !resent {
			delete(m.inFlight, seq)
		}
	}
	if !resent {
		m.seq += 1 + uint64(rng.IntN(3)) // QoS 0 messages lie between
		seq = m.seq
	}
	used := make(map[uint16]bool)
	for _, id := range slices.Concat(m.reserved, m.released) {
		used[id] = true
	}
	for _, id := range m.inFlight {
		used[id] = true
	}
	id, fresh, ok := o.Assign(seq)
	switch {
	case !ok || id == 0:
		return fmt.Errorf("Assign(%d) = %d, %v", seq, id, ok)
	case fresh == resent:
		return fmt.Errorf("Assign(%d): fresh %v, but it is resent: %v", seq, fresh, resent)
	case resent && id != m.inFlight[seq]:
		return fmt.Errorf("message %d had identifier %d and now has %d", seq, m.inFlight[seq], id)
	case !resent && used[id]:
		return fmt.Errorf("identifier %d is in use already", id)
	}
	if again, _, _ := o.Assign(seq); again != id {
		return fmt.Errorf("message %d has identifiers %d and %d", seq, id, again)
	}
	m.inFlight[seq], m.ever[id] = id, true
	return nil
}

func (m *outboxModel) acknowledge(o *Outbox, id uint16, ack func(uint16) (uint64, bool), release bool) error {
	var want uint64
	for seq, other := range m.inFlight {
		if other == id {
			want = seq
		}
	}
	for range 2 { // the second time it is unknown
		got, ok := ack(id)
		if got != want || ok != (want != 0) {
			return fmt.Errorf("acknowledging %d returned %d, %v; want %d", id, got, ok, want)
		}
		if want != 0 && release {
			m.released = append(m.released, id)
			m.received[id] = want
		}
		delete(m.inFlight, want)
		want = 0
	}
	return nil
}

func TestOutboxWrapsAround(t *testing.T) {
	var o Outbox
	first, _, _ := o.Assign(1)
	reserved, _ := o.Reserve()
	o.Assign(2)
	received, _, _ := o.Assign(3)
	o.Receive(received)
	for seq := uint64(10); seq < 10+2*65535; seq++ {
		id, _, ok := o.Assign(seq)
		if !ok || id == 0 || id == first || id == reserved || id == received {
			t.Fatalf("message %d has identifier %d, %v", seq, id, ok)
		}
		if used := seq - 10 + 4 + 1; o.Wrapped() != (used > 65535) {
			t.Fatalf("Wrapped() = %v after %d identifiers", o.Wrapped(), used)
		}
		o.Ack(id)
	}
	o.Reset()
	if !o.Wrapped() {
		t.Error("Wrapped was forgotten: the far side may still know identifiers of another session")
	}
	if id, _, _ := o.Assign(1); id == first {
		t.Error("identifiers begin anew after Reset")
	}
}

// TestOutboxFull uses every identifier up. It must find that out without searching: it is asked for each message.
func TestOutboxFull(t *testing.T) {
	var o Outbox
	seen := make(map[uint16]bool)
	for seq := uint64(1); seq <= 65535; seq++ {
		id, fresh, ok := o.Assign(seq)
		if !fresh || !ok || id == 0 || seen[id] {
			t.Fatalf("Assign(%d) = %d, %v, %v", seq, id, fresh, ok)
		}
		seen[id] = true
		if seq%2 == 0 {
			o.Receive(id)
		}
	}
	for range 10000 {
		if id, _, ok := o.Assign(70000); ok {
			t.Fatalf("identifier %d was free", id)
		}
		if id, ok := o.Reserve(); ok {
			t.Fatalf("identifier %d was free", id)
		}
	}
	if o.Len() != 65535 {
		t.Fatalf("%d identifiers are in use", o.Len())
	}
	o.Complete(4242)
	if id, fresh, ok := o.Assign(70000); id != 4242 || !fresh || !ok {
		t.Fatalf("Assign() = %d, %v, %v; 4242 is free", id, fresh, ok)
	}
	o.Ack(4711)
	if id, ok := o.Reserve(); id != 4711 || !ok {
		t.Fatalf("Reserve() = %d, %v; 4711 is free", id, ok)
	}
}

// TestOutboxZeroValue makes sure that nothing needs a first Assign.
func TestOutboxZeroValue(t *testing.T) {
	var o Outbox
	o.Free(1)
	o.Complete(1)
	o.Disconnected()
	if _, ok := o.Ack(1); ok {
		t.Error("Ack knows identifier 1")
	}
	if _, ok := o.Receive(0); ok {
		t.Error("Receive knows identifier 0")
	}
	if o.Len() != 0 || len(o.Released()) != 0 || o.Wrapped() {
		t.Errorf("not empty: %d in use, released %v", o.Len(), o.Released())
	}
}

// TestOutboxPassedOver frees the identifiers of messages that were dropped while the connection was away.
func TestOutboxPassedOver(t *testing.T) {
	var o Outbox
	ids := make(map[uint64]uint16)
	for seq := uint64(1); seq <= 4; seq++ {
		ids[seq], _, _ = o.Assign(seq)
	}
	o.Disconnected()
	if id, fresh, _ := o.Assign(2); id != ids[2] || fresh {
		t.Fatalf("message 2 has identifier %d, fresh %v, want %d again", id, fresh, ids[2])
	}
	if o.Len() != 3 { // 1 was passed over, 3 and 4 may still come
		t.Fatalf("%d identifiers are in use, want 3", o.Len())
	}
	if _, fresh, _ := o.Assign(9); !fresh {
		t.Fatal("message 9 was known")
	}
	if o.Len() != 2 {
		t.Fatalf("%d identifiers are in use, want 2", o.Len())
	}
	if _, ok := o.Ack(ids[3]); ok {
		t.Error("message 3, which does not come any more, was acknowledged")
	}
	if seq, ok := o.Ack(ids[2]); seq != 2 || !ok {
		t.Errorf("Ack(%d) = %d, %v, want message 2", ids[2], seq, ok)
	}
}
