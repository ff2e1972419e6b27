package mqtt

import (
	"hash/crc32"
	"unsafe"
)

// Inbox is the receiver's half of a session's state: the packet identifiers of QoS 1 and 2 messages that came in and
// are not done with. It belongs to the session, not to a connection, so that a message repeated after a reconnect is
// recognised. The zero value is ready to use.
//
// Acknowledgements leave in the order in which the messages came on the connection (MQTT 3.1.1, 4.6), which is not
// always the order in which they are settled: one that is repeated after a reconnect may have been settled long
// before.
type Inbox struct {
	entries   map[uint16]inEntry
	order     []Token // that came on this connection; those from head on are not acknowledged on it
	head      int
	releasing map[uint16]Token // PUBREL came on this connection, and PUBCOMP was not sent
	serial    uint64
}

// Token names one incoming message of an Inbox. It holds the packet identifier and a serial number, so that the late
// settling of an abandoned message never acknowledges a new one that reuses its identifier.
type Token uint64

// ID is the packet identifier.
func (t Token) ID() uint16 { return uint16(t) }

type inEntry struct {
	token   Token
	sum     uint64 // of topic and payload
	qos     byte
	settled bool // it was taken care of; with QoS 2 PUBREL is awaited once it is acknowledged
	queued  bool // it is in order
	away    bool // the connection it came on is gone, and it was not repeated since
	marked  bool // there is a Mark of it
	bare    bool // made of a Mark: the topic's half of sum is not known
}

// repeats says whether a PUBLISH, from which next was made, is this message again.
func (e *inEntry) repeats(next *inEntry, dup bool) bool {
	switch {
	case e.qos != next.qos:
		return false
	case e.bare:
		return dup && uint32(e.sum) == uint32(next.sum)
	}
	return e.sum == next.sum && (dup || e.qos == 2)
}

// Arrival says what a PUBLISH is to its session.
type Arrival byte

const (
	// Fresh is a message not seen before: offer it.
	Fresh Arrival = iota
	// Repeated is one that was offered and is not settled yet: its acknowledgement will follow, do not offer it again.
	Repeated
	// Received is one that was offered and settled: do not offer it. An acknowledgement (PUBACK, PUBREC) is due again.
	Received
)

// Mark is an Inbox entry that outlives the process: the packet identifier of a QoS 2 message that was taken care of and
// not released yet, and the checksum of its payload. Topics are translated on the way to where marks are kept, so that
// of the topic there is none.
type Mark struct {
	ID  uint16
	Sum uint32
}

// Sum is a payload's checksum in a Mark.
func Sum(payload []byte) uint32 { return crc32.Checksum(payload, castagnoli) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Publish records an incoming QoS 1 or 2 message.
//
// A QoS 1 message is a repetition if DUP says so and its identifier is still unacknowledged. For QoS 2 the identifier
// alone decides until PUBREL (MQTT 3.1.1, 4.3.3). For both the content must be the same: otherwise the sender lost its
// state, as a device does that reboots, and taking the new message for the old one would lose it. Of a message that is
// known from a Mark less is known, so it must be repeated with DUP, as it is after a lost connection.
//
// If a QoS 2 message is Fresh, a Mark that its identifier may have is of no use any more.
func (in *Inbox) Publish(id uint16, dup bool, m *Message) (Arrival, Token) {
	in.serial++
	e := inEntry{qos: m.QoS, token: Token(in.serial<<16 | uint64(id)), sum: contentSum(m)}
	if old, ok := in.entries[id]; ok && old.repeats(&e, dup) {
		old.away, old.bare, old.sum = false, false, e.sum
		in.enqueue(id, old)
		if !old.settled {
			return Repeated, old.token
		}
		return Received, old.token
	}
	if in.entries == nil {
		in.entries = make(map[uint16]inEntry)
	}
	in.enqueue(id, e)
	delete(in.releasing, id) // the sender does not wait for PUBCOMP any more
	return Fresh, e.token
}

// enqueue records an entry, and that it is to be acknowledged after those that came before.
func (in *Inbox) enqueue(id uint16, e inEntry) {
	if !e.queued {
		e.queued = true
		in.order = append(in.order, e.token)
	}
	in.entries[id] = e
}

// Due returns the next acknowledgement that is to be sent, if there is one: PUBACK for QoS 1, after which the
// identifier is free again, and PUBREC for QoS 2. It is called after Publish and Settle until there is none.
func (in *Inbox) Due() (id uint16, qos byte, ok bool) {
	for in.head < len(in.order) {
		t := in.order[in.head]
		e := in.entries[t.ID()]
		known := e.token == t // otherwise it was forgotten, or replaced by another message
		if known && !e.settled {
			return 0, 0, false
		}
		in.advance()
		if !known {
			continue
		}
		e.queued = false
		if e.qos == 1 {
			delete(in.entries, t.ID())
		} else {
			in.entries[t.ID()] = e
		}
		return t.ID(), e.qos, true
	}
	return 0, 0, false
}

// advance takes the first token out of order.
func (in *Inbox) advance() {
	in.head++
	switch n := len(in.order); {
	case in.head == n && n > keepOrder:
		in.order, in.head = nil, 0
	case in.head == n:
		in.order, in.head = in.order[:0], 0
	case in.head > keepOrder && in.head > n/2:
		in.order, in.head = append(in.order[:0], in.order[in.head:]...), 0
	}
}

// keepOrder is for how many tokens memory stays allocated.
const keepOrder = 64

// contentSum has the topic's checksum above the payload's.
func contentSum(m *Message) uint64 {
	topic := unsafe.Slice(unsafe.StringData(m.Topic), len(m.Topic)) // only read: saves a copy for each message
	return uint64(Sum(topic))<<32 | uint64(Sum(m.Payload))
}

// Forget removes a message that was not taken after all.
func (in *Inbox) Forget(t Token) {
	if in.entries[t.ID()].token == t {
		delete(in.entries, t.ID())
	}
}

// Settle records that a message was taken care of: acknowledgements may be Due. stored says that it is on disk, and
// with it a Mark if its QoS is 2.
func (in *Inbox) Settle(t Token, stored bool) {
	e, ok := in.entries[t.ID()]
	if !ok || e.token != t {
		return // the session does not know it any more
	}
	e.settled, e.marked = true, stored
	in.entries[t.ID()] = e
}

// Disconnected records that the connection is gone while the session goes on: what is settled from now on is
// acknowledged when the sender repeats it on its next connection, and not before. The same holds for PUBREL.
func (in *Inbox) Disconnected() {
	for id, e := range in.entries {
		e.away, e.queued = true, false
		in.entries[id] = e
	}
	in.order, in.head, in.releasing = nil, 0, nil
}

// Release handles PUBREL. PUBCOMP is due, whether or not the identifier was known, but not before its Mark is gone from
// the disk: after a restart a new message could be taken for the old one. Released then says whether it still is. A
// QoS 1 message is left alone: its PUBACK is still due.
func (in *Inbox) Release(id uint16) Token {
	if in.entries[id].qos == 2 {
		delete(in.entries, id)
	}
	if in.releasing == nil {
		in.releasing = make(map[uint16]Token)
	}
	in.serial++
	t := Token(in.serial<<16 | uint64(id))
	in.releasing[id] = t
	return t
}

// Released says whether to send PUBCOMP for a PUBREL now that no Mark is left. It is not if the connection on which
// PUBREL came is gone, if the identifier is in use again, or if PUBREL was repeated since.
func (in *Inbox) Released(t Token) bool {
	if in.releasing[t.ID()] != t {
		return false
	}
	delete(in.releasing, t.ID())
	return true
}

// Restore adds what was marked before the process started.
func (in *Inbox) Restore(marks []Mark) {
	if in.entries == nil && len(marks) > 0 {
		in.entries = make(map[uint16]inEntry)
	}
	for _, m := range marks {
		in.serial++
		in.entries[m.ID] = inEntry{
			token: Token(in.serial<<16 | uint64(m.ID)), sum: uint64(m.Sum), qos: 2,
			settled: true, away: true, marked: true, bare: true,
		}
	}
}

// Mark returns the Mark of a QoS 2 message that was settled and has none yet. From then on it has one.
func (in *Inbox) Mark(t Token) (m Mark, ok bool) {
	e := in.entries[t.ID()]
	if e.token != t || e.qos != 2 || !e.settled || e.marked {
		return Mark{}, false
	}
	e.marked = true
	in.entries[t.ID()] = e
	return Mark{ID: t.ID(), Sum: uint32(e.sum)}, true
}

// Unmarked is Mark for all messages.
func (in *Inbox) Unmarked() (marks []Mark) {
	for _, e := range in.entries {
		if m, ok := in.Mark(e.token); ok {
			marks = append(marks, m)
		}
	}
	return marks
}

// Len is how many identifiers are in use.
func (in *Inbox) Len() int { return len(in.entries) }

// Reset forgets everything, as the end of a session does.
func (in *Inbox) Reset() { *in = Inbox{serial: in.serial} }
