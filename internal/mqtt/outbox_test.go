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
	orphans  []uint16          // passed over, and to be released
	ever     map[uint16]bool   // identifiers that were handed out
	seq      uint64            // the last one assigned
	resend   []uint64          // since the reconnect, in order
	exactly  map[uint64]bool   // sequence numbers of QoS 2
}

func (m *outboxModel) used(id uint16) bool {
	for _, other := range m.inFlight {
		if other == id {
			return true
		}
	}
	return slices.Contains(m.reserved, id) || slices.Contains(m.released, id) || slices.Contains(m.orphans, id)
}

func (m *outboxModel) check(o *Outbox) error {
	if got, want := o.Len(), len(m.inFlight)+len(m.reserved)+len(m.released)+len(m.orphans); got != want {
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
	flying := o.Len() - len(m.orphans) // but not what is yet to come again
	for _, seq := range m.resend {
		if _, ok := m.inFlight[seq]; ok {
			flying--
		}
	}
	if got := o.InFlight(); got != flying {
		return fmt.Errorf("%d identifiers are in flight, want %d", got, flying)
	}
	if o.ranges[0].wrapped && o.ranges[1].wrapped && len(m.ever) < 2*rangeSize {
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
		o.ranges[0].last, o.ranges[1].last = rangeSize-100, firstOfQoS2+rangeSize-101 // wrap soon
	}
	m := &outboxModel{
		inFlight: make(map[uint64]uint16), received: make(map[uint16]uint64), ever: make(map[uint16]bool),
		exactly: make(map[uint64]bool),
	}
	for i := range int(o.ranges[0].last) {
		m.ever[uint16(i+1)], m.ever[uint16(firstOfQoS2+i)] = true, true
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
	case n < 93 && len(m.released)+len(m.orphans) > 0:
		return m.complete(o, rng)
	case n < 96: // what does not belong there changes nothing
		id := m.any(rng)
		if !slices.Contains(m.reserved, id) {
			o.Free(id)
		}
		if !slices.Contains(m.released, id) && !slices.Contains(m.orphans, id) {
			if seq, ok := o.Complete(id); ok {
				return fmt.Errorf("Complete(%d) = %d, but it is not released", id, seq)
			}
		}
	case n < 98:
		o.Disconnected()
		m.resend = m.inOrder()
		m.released, m.orphans = append(m.released, m.orphans...), nil
	}
	return nil
}

// complete completes a message that was released, or passed over: then nobody waits for it any more.
func (m *outboxModel) complete(o *Outbox, rng *rand.Rand) error {
	ids := slices.Concat(m.released, m.orphans)
	id := ids[rng.IntN(min(3, len(ids)))]
	want, known := m.received[id]
	if seq, ok := o.Complete(id); ok != known || seq != want {
		return fmt.Errorf("Complete(%d) = %d, %v, want %d, %v", id, seq, ok, want, known)
	}
	gone := func(other uint16) bool { return other == id }
	m.released, m.orphans = slices.DeleteFunc(m.released, gone), slices.DeleteFunc(m.orphans, gone)
	delete(m.received, id)
	return nil
}

// any returns an identifier that is in use, mostly.
func (m *outboxModel) any(rng *rand.Rand) uint16 {
	ids := slices.Concat(m.reserved, m.released, m.orphans)
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
		id, known := m.inFlight[seq] // not acknowledged meanwhile
		if resent = known && rng.IntN(4) > 0; !resent {
			delete(m.inFlight, seq)
		}
		if known && !resent && m.exactly[seq] {
			m.orphans = append(m.orphans, id)
		}
	}
	if !resent {
		m.seq += 1 + uint64(rng.IntN(3)) // QoS 0 messages lie between
		seq = m.seq
	}
	used := make(map[uint16]bool)
	for _, id := range slices.Concat(m.reserved, m.released, m.orphans) {
		used[id] = true
	}
	for _, id := range m.inFlight {
		used[id] = true
	}
	if !resent {
		m.exactly[seq] = rng.IntN(2) == 0
	}
	qos := byte(1)
	if m.exactly[seq] {
		qos = 2
	}
	id, fresh, ok := o.Assign(seq, qos)
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
	if again, _, _ := o.Assign(seq, qos); again != id {
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
	first, _, _ := o.Assign(1, 1)
	reserved, _ := o.Reserve()
	o.Assign(2, 1)
	received, _, _ := o.Assign(3, 1)
	o.Receive(received)
	for seq := uint64(10); seq < 10+2*rangeSize; seq++ {
		id, _, ok := o.Assign(seq, 1)
		if !ok || id == 0 || id == first || id == reserved || id == received {
			t.Fatalf("message %d has identifier %d, %v", seq, id, ok)
		}
		if used := seq - 10 + 4 + 1; o.ranges[0].wrapped != (used > rangeSize) {
			t.Fatalf("wrapped = %v after %d identifiers", o.ranges[0].wrapped, used)
		}
		if id >= firstOfQoS2 {
			t.Fatalf("message %d has identifier %d, which is for QoS 2", seq, id)
		}
		o.Ack(id)
	}
	o.Reset()
	if !o.ranges[0].wrapped {
		t.Error("it was forgotten that all were used")
	}
	if id, _, _ := o.Assign(1, 1); id == first {
		t.Error("identifiers begin anew after Reset")
	}
}

// TestOutboxFull uses every identifier up. It must find that out without searching: it is asked for each message.
func TestOutboxFull(t *testing.T) {
	var o Outbox
	seen := make(map[uint16]bool)
	for seq := uint64(1); seq <= 2*rangeSize; seq++ {
		id, fresh, ok := o.Assign(seq, byte(1+seq%2))
		if !fresh || !ok || id == 0 || seen[id] {
			t.Fatalf("Assign(%d) = %d, %v, %v", seq, id, fresh, ok)
		}
		seen[id] = true
		if seq%2 == 1 {
			o.Receive(id)
		}
	}
	for i := range 10000 {
		if id, _, ok := o.Assign(70000, byte(1+i%2)); ok {
			t.Fatalf("identifier %d was free", id)
		}
		if id, ok := o.Reserve(); ok {
			t.Fatalf("identifier %d was free", id)
		}
	}
	if o.Len() != 2*rangeSize {
		t.Fatalf("%d identifiers are in use", o.Len())
	}
	o.Complete(44242)
	if id, fresh, ok := o.Assign(70000, 2); id != 44242 || !fresh || !ok {
		t.Fatalf("Assign() = %d, %v, %v; 44242 is free", id, fresh, ok)
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
	if o.Len() != 0 || len(o.Released()) != 0 || o.ranges != [2]idRange{} {
		t.Errorf("not empty: %d in use, released %v", o.Len(), o.Released())
	}
}

// TestOutboxPassedOver frees the identifiers of messages that were dropped while the connection was away.
func TestOutboxPassedOver(t *testing.T) {
	var o Outbox
	ids := make(map[uint64]uint16)
	for seq := uint64(1); seq <= 4; seq++ {
		ids[seq], _, _ = o.Assign(seq, 1)
	}
	o.Disconnected()
	if id, fresh, _ := o.Assign(2, 1); id != ids[2] || fresh {
		t.Fatalf("message 2 has identifier %d, fresh %v, want %d again", id, fresh, ids[2])
	}
	if o.Len() != 3 { // 1 was passed over, 3 and 4 may still come
		t.Fatalf("%d identifiers are in use, want 3", o.Len())
	}
	if _, fresh, _ := o.Assign(9, 1); !fresh {
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

// The receiver may hold a QoS 2 message that was passed over, and wait for PUBREL. Its identifier carries no other
// message until it has been released, on a later connection.
func TestOutboxPassedOverQoS2(t *testing.T) {
	var o Outbox
	held, _, _ := o.Assign(1, 2)
	o.Disconnected()
	o.Assign(2, 2)
	if n := o.InFlight(); n != 1 {
		t.Errorf("%d identifiers in flight, want 1: nothing was sent under the other", n)
	}
	if got := o.Released(); len(got) != 0 {
		t.Errorf("released %v on the connection on which it was passed over", got)
	}
	for seq := uint64(3); seq < 3+2*rangeSize; seq++ {
		id, _, _ := o.Assign(seq, 2)
		if id == held {
			t.Fatalf("message %d has identifier %d, which was not released", seq, id)
		}
		o.Ack(id)
	}
	o.Disconnected()
	if got := o.Released(); !slices.Equal(got, []uint16{held}) {
		t.Fatalf("released %v, want %d", got, held)
	}
	if seq, ok := o.Complete(held); ok {
		t.Errorf("message %d is done with, though it had been dropped", seq)
	}
	if got := o.Released(); len(got) != 0 || o.Len() != 1 {
		t.Errorf("released %v, %d identifiers in use, want message 2's", got, o.Len())
	}
}

// A receiver may release such a message by itself, by repeating PUBREC.
func TestOutboxPassedOverAndCompleted(t *testing.T) {
	var o Outbox
	held, _, _ := o.Assign(1, 2)
	o.Disconnected()
	next, _, _ := o.Assign(2, 2)
	if seq, ok := o.Receive(held); ok {
		t.Errorf("message %d was received, though it had been dropped", seq)
	}
	o.Complete(held)
	o.Ack(next)
	o.Disconnected()
	if o.Len() != 0 || len(o.Released()) != 0 {
		t.Errorf("%d identifiers in use, released %v", o.Len(), o.Released())
	}
}

// TestOutboxDoubtful has a session of an earlier process, whose receiver may hold identifiers that wait for PUBREL.
func TestOutboxDoubtful(t *testing.T) {
	var o Outbox
	own, _, _ := o.Assign(1, 2)
	if o.Doubtful(own) {
		t.Error("an identifier of an own session is in doubt")
	}
	o.Ack(own)
	o.Inherit()
	reserved, _ := o.Reserve()
	if o.Doubtful(reserved) {
		t.Error("an identifier without a message is in doubt")
	}
	answers := map[string]func(id uint16){
		"PUBACK":           func(id uint16) { o.Ack(id) },
		"PUBREC":           func(id uint16) { o.Receive(id) },
		"PUBCOMP, of ours": func(id uint16) { o.Complete(id) },
	}
	seq := uint64(1)
	for name, answer := range answers {
		seq++
		id, _, _ := o.Assign(seq, 2)
		if !o.Doubtful(id) {
			t.Fatalf("%s: a new identifier is not in doubt", name)
		}
		o.Disconnected() // PUBREL may be lost with the connection
		if again, _, _ := o.Assign(seq, 2); again != id || !o.Doubtful(id) {
			t.Fatalf("%s: identifier %d came again as %d, in doubt %v", name, id, again, o.Doubtful(again))
		}
		answer(id)
		if o.Doubtful(id) {
			t.Errorf("%s does not end the doubt", name)
		}
	}
	o.Reset()
	if id, _, _ := o.Assign(9, 2); o.Doubtful(id) {
		t.Error("a new session inherits")
	}
}

func TestOldest(t *testing.T) {
	var o Outbox
	is := func(step string, want uint64) {
		t.Helper()
		if got := o.Oldest(); got != want {
			t.Errorf("%s: %d, want %d", step, got, want)
		}
	}
	is("nothing", 0)
	ids := make(map[uint64]uint16)
	for seq, qos := range map[uint64]byte{5: 1, 6: 2, 7: 1} {
		ids[seq], _, _ = o.Assign(seq, qos)
	}
	is("three", 5)
	if _, ok := o.Reserve(); !ok {
		t.Fatal("no identifier for SUBSCRIBE")
	}
	o.Ack(ids[5])
	is("the first is acknowledged", 6)
	o.Ack(ids[7])
	o.Receive(ids[6])
	is("received, not completed", 6)
	o.Complete(ids[6])
	is("all are done", 0)
	a, _, _ := o.Assign(8, 1)
	b, _, _ := o.Assign(9, 1)
	o.Disconnected()
	is("nothing is on its way yet", 0)
	o.Assign(8, 1)
	is("the first again", 8)
	o.Assign(9, 1)
	o.Ack(a)
	is("the second again", 9)
	o.Ack(b)
	is("all are done again", 0)
}

// A PUBREL ahead of a message that comes again does not release it before those that the receiver may hold as well.
func TestDoubtKeepsOrder(t *testing.T) {
	var o Outbox
	o.Inherit()
	first, _, _ := o.Assign(1, 2)
	second, _, _ := o.Assign(2, 2)
	third, _, _ := o.Assign(3, 1)
	o.Complete(first) // PUBREL was answered, PUBLISH not yet
	if o.Doubtful(first) || !o.Doubtful(second) || o.Doubtful(third) {
		t.Fatal("the first is in doubt, or the second is not")
	}
	o.Disconnected()
	if !o.Doubtful(first) || !o.Doubtful(second) || o.Doubtful(third) {
		t.Error("the receiver would release the second message first")
	}
	o.Complete(second)
	o.Complete(first)
	o.Disconnected()
	if o.Doubtful(first) || o.Doubtful(second) {
		t.Error("in doubt without a reason")
	}
}
