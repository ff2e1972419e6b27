package mqtt

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestInboxSession has a sender publish over a connection that breaks at any moment, with few identifiers so that
// they are used again all the time. The sender may reboot, which loses all that it knew of the session. The Inbox's
// process may restart, which loses all but what was stored, with its marks. The promises:
//
//   - a message that the sender takes for acknowledged was settled;
//   - a QoS 2 message is offered once between two restarts, and not again after it was stored or the process was
//     stopped in order; and once at all if the sender does not reboot;
//   - in the end everything is acknowledged, and no identifier and no mark is left if the sender never rebooted.
func TestInboxSession(t *testing.T) {
	for _, sim := range []sessionSim{{}, {reboots: true}, {restarts: true}, {reboots: true, restarts: true}} {
		t.Run(fmt.Sprintf("reboots=%v,restarts=%v", sim.reboots, sim.restarts), func(t *testing.T) {
			total := 0
			for range 150 {
				seed := rand.Uint64()
				s := sim
				s.rng, s.disk = rand.New(rand.NewPCG(seed, 0)), make(map[uint16]uint32)
				if err := s.run(); err != nil {
					t.Fatalf("seed %#x: %v", seed, err)
				}
				total += s.recognised
			}
			if sim.restarts && total == 0 {
				t.Error("no message was recognised after a restart")
			}
		})
	}
}

const simIDs = 3

// simPacket is one packet on the way, either PUBLISH or PUBREL towards the Inbox or an acknowledgement back.
type simPacket struct {
	kind string // publish, pubrel, puback, pubrec, pubcomp
	id   uint16
	dup  bool
	m    *simMessage
}

type simMessage struct {
	Message
	n       int
	id      uint16
	settled bool
	ever    bool // offered
	safe    bool // settled, and a restart does not forget it

	// Since the last restart.
	offered int
	done    bool
}

type offer struct {
	m *simMessage
	t Token
}

// unmark is a PUBREL whose mark is being removed from disk.
type unmark struct {
	t     Token
	stale bool // there is a newer mark
}

type sessionSim struct {
	rng               *rand.Rand
	reboots, restarts bool

	// The sender.
	inFlight []*simMessage // in the order of their first PUBLISH
	released []uint16
	made     []*simMessage
	rebooted bool
	lastID   uint16

	up, down []simPacket // the connection
	arrivals []uint16    // PUBLISHes on it
	acks     []uint16    // PUBACKs and PUBRECs on it
	in       Inbox
	offers   []offer // not settled
	acked    int

	disk       map[uint16]uint32 // marks
	unmarking  []unmark          // what commit does
	recognised int               // messages that came again after a restart, and were not taken for new
}

func (s *sessionSim) run() error {
	for range 400 {
		if err := s.step(); err != nil {
			return err
		}
	}
	// Now everything goes well.
	for range 3 {
		for len(s.up)+len(s.down)+len(s.offers)+len(s.unmarking) > 0 {
			for _, f := range []func() error{s.receive, s.settle, s.acknowledged, s.commit} {
				if err := f(); err != nil {
					return err
				}
			}
		}
		if len(s.inFlight)+len(s.released) > 0 {
			s.reconnect()
		}
	}
	switch {
	case len(s.inFlight)+len(s.released) > 0:
		return fmt.Errorf("%d messages are not acknowledged in the end", len(s.inFlight))
	case s.acked == 0:
		return fmt.Errorf("nothing was acknowledged at all")
	case s.in.Len()+len(s.disk) > 0 && !s.rebooted:
		return fmt.Errorf("%d identifiers and %d marks are left in use", s.in.Len(), len(s.disk))
	}
	for _, m := range s.made {
		if !m.ever && !s.rebooted {
			return fmt.Errorf("message %d was not offered", m.n)
		}
	}
	return nil
}

func (s *sessionSim) step() error {
	switch n := s.rng.IntN(100); {
	case n < 30:
		s.publish()
		return nil
	case n < 50:
		return s.receive()
	case n < 65:
		return s.settle()
	case n < 70:
		s.store()
	case n < 75:
		return s.commit()
	case n < 94:
		return s.acknowledged()
	case n < 97:
		s.reconnect()
	case n < 98 && s.reboots:
		s.inFlight, s.released, s.lastID, s.rebooted = nil, nil, 0, true
		s.reconnect()
	case n >= 98 && s.restarts:
		s.restart(s.rng.IntN(2) == 0)
	}
	return nil
}

// store puts what is not settled on disk, with marks, as a queue does whose far side is away.
func (s *sessionSim) store() {
	for _, o := range s.offers {
		o.m.settled, o.m.safe = true, true
		if o.m.QoS == 2 {
			s.disk[o.m.id] = Sum(o.m.Payload)
			for i, u := range s.unmarking {
				s.unmarking[i].stale = u.stale || u.t.ID() == o.m.id
			}
		}
		s.in.Settle(o.t, true)
	}
	s.acknowledge()
	s.offers = nil
}

// commit removes marks from disk and sends the PUBCOMPs that waited for it.
func (s *sessionSim) commit() error {
	for _, u := range s.unmarking {
		if !u.stale {
			delete(s.disk, u.t.ID())
		}
		if s.in.Released(u.t) {
			s.down = append(s.down, simPacket{kind: "pubcomp", id: u.t.ID()})
		}
	}
	s.unmarking = nil
	return nil
}

// restart kills the Inbox's process, or stops it in order, and starts it again.
func (s *sessionSim) restart(inOrder bool) {
	if inOrder {
		_ = s.commit() // never fails
		for _, m := range s.in.Unmarked() {
			s.disk[m.ID] = m.Sum
		}
		for _, m := range s.made {
			m.safe = m.safe || m.done
		}
	}
	s.in, s.offers, s.unmarking = Inbox{}, nil, nil
	marks := make([]Mark, 0, len(s.disk))
	for id, sum := range s.disk {
		marks = append(marks, Mark{ID: id, Sum: sum})
	}
	s.in.Restore(marks)
	for _, m := range s.made {
		m.offered, m.done = 0, false
	}
	s.reconnect()
}

func (s *sessionSim) publish() {
	if len(s.inFlight)+len(s.released) == simIDs {
		return
	}
	used := func(id uint16) bool {
		return slices.Contains(s.released, id) ||
			slices.ContainsFunc(s.inFlight, func(m *simMessage) bool { return m.id == id })
	}
	for s.lastID = s.lastID%simIDs + 1; used(s.lastID); s.lastID = s.lastID%simIDs + 1 {
	}
	m := &simMessage{n: len(s.made), id: s.lastID}
	m.Message = Message{Topic: "t", Payload: fmt.Append(nil, m.n), QoS: byte(1 + s.rng.IntN(2))}
	s.made = append(s.made, m)
	s.inFlight = append(s.inFlight, m)
	s.up = append(s.up, simPacket{kind: "publish", id: m.id, m: m})
}

// reconnect loses what is on the way and sends again what is unacknowledged (4.4).
func (s *sessionSim) reconnect() {
	s.up, s.down, s.arrivals, s.acks = nil, nil, nil, nil
	s.in.Disconnected()
	for _, id := range s.released {
		s.up = append(s.up, simPacket{kind: "pubrel", id: id})
	}
	for _, m := range s.inFlight {
		s.up = append(s.up, simPacket{kind: "publish", id: m.id, dup: true, m: m})
	}
}

var ackKind = map[byte]string{1: "puback", 2: "pubrec"}

// receive is the bridge handling a packet of the sender.
func (s *sessionSim) receive() error {
	if len(s.up) == 0 {
		return nil
	}
	p := s.up[0]
	s.up = s.up[1:]
	if p.kind == "pubrel" {
		s.unmarking = append(s.unmarking, unmark{t: s.in.Release(p.id)})
		return nil
	}
	switch arrival, token := s.in.Publish(p.id, p.dup, &p.m.Message); arrival {
	case Fresh:
		p.m.offered++
		p.m.ever = true
		if p.m.QoS == 2 && (p.m.offered > 1 || p.m.safe) {
			return fmt.Errorf("QoS 2 message %d was offered again, stored %v", p.m.n, p.m.safe)
		}
		s.offers = append(s.offers, offer{p.m, token})
	case Repeated:
		if !slices.Contains(s.offers, offer{p.m, token}) {
			return fmt.Errorf("message %d is a repetition of one that is not being settled", p.m.n)
		}
	case Received:
		if p.m.offered == 0 {
			s.recognised++
		}
	}
	s.arrivals = append(s.arrivals, p.id)
	s.acknowledge()
	if !s.inOrder() {
		return fmt.Errorf("of %v the acknowledgements came as %v", s.arrivals, s.acks)
	}
	return nil
}

// settle settles any message, as a queue does whose head was abandoned. The acknowledgement goes to the connection of
// now.
func (s *sessionSim) settle() error {
	if len(s.offers) == 0 {
		return nil
	}
	i := s.rng.IntN(len(s.offers))
	o := s.offers[i]
	s.offers = slices.Delete(s.offers, i, i+1)
	o.m.settled, o.m.done = true, true
	s.in.Settle(o.t, false)
	s.acknowledge()
	return nil
}

// acknowledge sends what is due.
func (s *sessionSim) acknowledge() {
	for id, qos, ok := s.in.Due(); ok; id, qos, ok = s.in.Due() {
		s.down = append(s.down, simPacket{kind: ackKind[qos], id: id})
		s.acks = append(s.acks, id)
	}
}

// inOrder says whether the acknowledgements of a connection came in the order of the messages.
func (s *sessionSim) inOrder() bool {
	arrivals := s.arrivals
	for _, id := range s.acks {
		i := slices.Index(arrivals, id)
		if i < 0 {
			return false
		}
		arrivals = arrivals[i+1:]
	}
	return true
}

// acknowledged is the sender handling an acknowledgement.
func (s *sessionSim) acknowledged() error {
	if len(s.down) == 0 {
		return nil
	}
	p := s.down[0]
	s.down = s.down[1:]
	if p.kind == "pubcomp" {
		s.released = slices.DeleteFunc(s.released, func(id uint16) bool { return id == p.id })
		return nil
	}
	i := slices.IndexFunc(s.inFlight, func(m *simMessage) bool { return m.id == p.id })
	if i < 0 {
		return nil // acknowledged twice: after a repetition
	}
	m := s.inFlight[i]
	if p.kind != ackKind[m.QoS] {
		return fmt.Errorf("message %d, QoS %d, got %s", m.n, m.QoS, p.kind)
	}
	if !m.settled {
		return fmt.Errorf("message %d was acknowledged, but not settled", m.n)
	}
	s.inFlight = slices.Delete(s.inFlight, i, i+1)
	if p.kind == "pubrec" {
		s.released = append(s.released, p.id)
		s.up = append(s.up, simPacket{kind: "pubrel", id: p.id})
	}
	s.acked++
	return nil
}
