package mqtt

import (
	"maps"
	"math"
	"slices"
)

// Outbox is the sender's half of a session's state: which packet identifier carries which queued message, named by its
// sequence number. It belongs to the session, not to a connection, so that a resend after a reconnect carries the
// identifier of the first attempt (MQTT 3.1.1, 4.4). The zero value is ready to use.
type Outbox struct {
	ids      map[uint64]outEntry // by sequence number, published and not acknowledged
	entries  map[uint16]uint64   // the reverse, and what is reserved or released
	received map[uint64]uint16   // by sequence number, what is released
	released []uint16            // QoS 2: PUBREC came, PUBREL was sent, PUBCOMP is awaited; in that order
	again    []uint64            // sequence numbers that are to come again, in order; see Disconnected
	orphans  []uint16            // QoS 2: passed over on this connection; see Disconnected
	doubts   map[uint16]struct{} // identifiers that the receiver may hold for a message of an earlier process
	ranges   [2]idRange
	inherits bool
}

// idRange hands out identifiers. QoS 2 has its own: one that an earlier process may have left between PUBREC and PUBREL
// is never used for anything else then.
type idRange struct {
	used    int
	last    uint16 // 0 if none was handed out
	wrapped bool
}

const (
	rangeSize   = 32767
	firstOfQoS1 = 1
	firstOfQoS2 = firstOfQoS1 + rangeSize
)

func rangeOf(id uint16) int {
	if id < firstOfQoS2 {
		return 0
	}
	return 1
}

type outEntry struct {
	id  uint16
	qos byte
}

// Assign returns the packet identifier for a message of QoS 1 or 2, and whether it is new. ok is false when all 32,767
// for its QoS are in use.
func (o *Outbox) Assign(seq uint64, qos byte) (id uint16, fresh, ok bool) {
	o.passOver(seq)
	if e, found := o.ids[seq]; found {
		return e.id, false, true
	}
	id, ok = o.take(seq, qos)
	if ok {
		o.ids[seq] = outEntry{id, qos}
	}
	return id, true, ok
}

// Inherit records that the session was begun by an earlier process, which may have left identifiers between PUBREC and
// PUBREL. The receiver would take a new message under one of them for a repetition, and it would be lost.
func (o *Outbox) Inherit() { o.inherits = true }

// Doubtful says whether that can be so of a message's identifier: then PUBREL is to be sent ahead of each PUBLISH,
// until one of the two is answered.
func (o *Outbox) Doubtful(id uint16) bool {
	_, doubtful := o.doubts[id]
	return doubtful
}

// Disconnected records that the connection is gone while the session goes on. On the next one the messages come
// again, in the same order. One that is passed over then does not come any more (it has expired, for instance), and
// its identifier is free again.
//
// Not so with QoS 2: the receiver may have the message and wait for PUBREL, and would take the next message under that
// identifier for a repetition. So the identifier is Released on the connection after, and free with PUBCOMP. That hands
// out a message that was dropped here, if the receiver has it; MQTT has no way to take it back.
func (o *Outbox) Disconnected() {
	o.again = slices.Sorted(maps.Keys(o.ids))
	o.doubtBefore()
	o.released = append(o.released, o.orphans...)
	o.orphans = nil
}

// doubtBefore has PUBREL be sent ahead of all QoS 2 messages that come again before a doubtful one. The receiver may
// hold them by now, and the doubtful one, too: its PUBREL alone would release it before them.
func (o *Outbox) doubtBefore() {
	if len(o.doubts) == 0 {
		return
	}
	doubtful := false
	for _, seq := range slices.Backward(o.again) {
		e := o.ids[seq]
		if _, is := o.doubts[e.id]; is {
			doubtful = true
		} else if doubtful && e.qos == 2 {
			o.doubts[e.id] = struct{}{}
		}
	}
}

func (o *Outbox) passOver(seq uint64) {
	for len(o.again) > 0 && o.again[0] <= seq {
		old := o.again[0]
		o.again = o.again[1:]
		e, ok := o.ids[old]
		switch {
		case old == seq || !ok:
			continue
		case e.qos == 2:
			o.entries[e.id] = released
			o.orphans = append(o.orphans, e.id)
		default:
			o.free(e.id)
		}
		delete(o.ids, old)
	}
}

// Reserve takes an identifier for a SUBSCRIBE or UNSUBSCRIBE, until Free.
func (o *Outbox) Reserve() (id uint16, ok bool) { return o.take(reserved, 1) }

// Free gives back an identifier that was reserved.
func (o *Outbox) Free(id uint16) {
	if seq, ok := o.entries[id]; ok && seq == reserved {
		o.free(id)
	}
}

// free makes an identifier available again.
func (o *Outbox) free(id uint16) {
	delete(o.entries, id)
	o.ranges[rangeOf(id)].used--
}

// These stand for the sequence number of identifiers that carry no message. Lanes count from 1.
const (
	reserved = 0
	released = math.MaxUint64
)

func (o *Outbox) take(seq uint64, qos byte) (id uint16, ok bool) {
	first, r := uint16(firstOfQoS1), &o.ranges[0]
	if qos == 2 {
		first, r = firstOfQoS2, &o.ranges[1]
	}
	if r.used == rangeSize {
		return 0, false
	}
	if o.ids == nil {
		o.ids, o.entries = make(map[uint64]outEntry), make(map[uint16]uint64)
	}
	for {
		switch {
		case r.last == 0:
			r.last = first
		case r.last == first+rangeSize-1:
			r.last, r.wrapped = first, true
		default:
			r.last++
		}
		if _, used := o.entries[r.last]; !used {
			break
		}
	}
	o.entries[r.last] = seq
	r.used++
	if qos == 2 && o.inherits && !r.wrapped {
		if o.doubts == nil {
			o.doubts = make(map[uint16]struct{})
		}
		o.doubts[r.last] = struct{}{}
	}
	return r.last, true
}

// Ack handles PUBACK, or PUBREC with an error code: the message is done with, its identifier free.
func (o *Outbox) Ack(id uint16) (seq uint64, ok bool) {
	seq, ok = o.entries[id]
	if !ok || seq == reserved || seq == released {
		return 0, false
	}
	o.free(id)
	delete(o.ids, seq)
	delete(o.doubts, id) // PUBREL came before what is answered
	return seq, true
}

// Receive handles PUBREC: the message belongs to the receiver now, its identifier waits for PUBCOMP. ok is false for a
// repeated or unknown PUBREC; PUBREL is due in any case.
func (o *Outbox) Receive(id uint16) (seq uint64, ok bool) {
	seq, ok = o.Ack(id)
	if ok {
		o.entries[id] = released
		o.ranges[rangeOf(id)].used++
		o.released = append(o.released, id)
		if o.received == nil {
			o.received = make(map[uint64]uint16)
		}
		o.received[seq] = id
	}
	return seq, ok
}

// Received says whether PUBREC came for a message: it is not to be published again.
func (o *Outbox) Received(seq uint64) bool {
	_, ok := o.received[seq]
	return ok
}

// Complete handles PUBCOMP: the message is done with. Until then the receiver may not have passed it on, and loses it
// if its session, or ours, is lost.
func (o *Outbox) Complete(id uint16) (seq uint64, ok bool) {
	delete(o.doubts, id)
	if o.entries[id] != released {
		return 0, false
	}
	for s, r := range o.received {
		if r == id {
			seq, ok = s, true
			delete(o.received, s)
			break
		}
	}
	o.free(id)
	o.released, o.orphans = without(o.released, id), without(o.orphans, id)
	return seq, ok
}

// without removes an identifier, mostly the first.
func without(ids []uint16, id uint16) []uint16 {
	if i := slices.Index(ids, id); i >= 0 {
		return slices.Delete(ids, i, i+1)
	}
	return ids
}

// Released lists the identifiers that wait for PUBCOMP, oldest first. After a reconnect their PUBREL is sent again. The
// slice is the table's own: read it before the next call.
func (o *Outbox) Released() []uint16 { return o.released }

// Len is how many identifiers are in use.
func (o *Outbox) Len() int { return len(o.entries) }

// InFlight is how many identifiers are in use on the present connection: those of messages that are yet to come again,
// or were passed over, do not count.
func (o *Outbox) InFlight() int {
	n := len(o.entries) - len(o.orphans)
	for _, seq := range o.again {
		if _, ok := o.ids[seq]; ok {
			n--
		}
	}
	return n
}

// Oldest is the first message on its way on the present connection: published there, and not acknowledged or, with QoS
// 2, not completed. It is 0 if there is none.
func (o *Outbox) Oldest() (seq uint64) {
	for s := range o.received {
		if seq == 0 || s < seq {
			seq = s
		}
	}
	for s := range o.ids {
		if (seq == 0 || s < seq) && (len(o.again) == 0 || s < o.again[0]) {
			seq = s
		}
	}
	return seq
}

// Reset forgets everything, as the end of a session does.
func (o *Outbox) Reset() {
	ranges := o.ranges
	for i := range ranges {
		ranges[i].used = 0
	}
	*o = Outbox{ranges: ranges}
}
