package boltstore

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The first byte of a value says what it is, so that it is recognised when the way to it is lost.
const (
	kindVersion = 'V'
	kindName    = 'N'
	kindState   = 'L'
	kindFirst   = 'M' // a message, or the first part of one
	kindPart    = 'm' // a further part
	kindMark    = 'K'
	kindNote    = 'O'
)

// seal appends the checksum of a value and of the key that it belongs to.
func seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, sum(key, value))
}

// unseal returns a value without its checksum, or false if it is not what was sealed under this key.
func unseal(kind byte, key, value []byte) ([]byte, bool) {
	n := len(value) - 4
	if n < 1 || value[0] != kind || binary.BigEndian.Uint32(value[n:]) != sum(key, value[:n]) {
		return nil, false
	}
	return value[1:n], true
}

func sum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// place is where a part of a message belongs.
type place struct {
	lane uint32
	seq  uint64
	part uint32
}

// key is the place's key in messages. The parts of a message follow it.
func (p place) key() []byte {
	k := make([]byte, 0, 16)
	k = binary.BigEndian.AppendUint32(k, p.lane)
	k = binary.BigEndian.AppendUint64(k, p.seq)
	if p.part > 0 {
		k = binary.BigEndian.AppendUint32(k, p.part)
	}
	return k
}

func parsePlace(key []byte) (p place, ok bool) {
	switch len(key) {
	case 16:
		p.part = binary.BigEndian.Uint32(key[12:])
		ok = p.part > 0
	case 12:
		ok = true
	default:
		return place{}, false
	}
	p.lane, p.seq = binary.BigEndian.Uint32(key), binary.BigEndian.Uint64(key[4:])
	return p, ok
}

// appendTo puts the place before a part in recent, where the key does not tell it.
func (p place) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(p.lane))
	b = binary.AppendUvarint(b, p.seq)
	return binary.AppendUvarint(b, uint64(p.part))
}

// cutPlace takes a value of recent apart.
func cutPlace(b []byte) (p place, value []byte, ok bool) {
	r := reader{b: b, ok: true}
	p = place{lane: uint32(r.uvarint(1<<32 - 1)), seq: r.uvarint(1<<64 - 1), part: uint32(r.uvarint(1<<32 - 1))}
	return p, r.b, r.ok
}

func recentKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// validPart says whether a value is the part that was put at a place.
func validPart(p place, value []byte) bool {
	kind := byte(kindFirst)
	if p.part > 0 {
		kind = kindPart
	}
	_, ok := unseal(kind, p.key(), value)
	return ok
}

// partSize is the most that a part takes: four of them, with all that bbolt and recent add, fit into a page.
const partSize = 960

// The flags of a message. The other bits are zero.
const (
	flagQoS     = 0x03
	flagRetain  = 0x04
	flagAt      = 0x08 // At is not zero
	flagExpires = 0x10
	flagsKnown  = 0x1F
)

// encode returns a message's parts. They are to be put at the places (id, r.Seq, 0), (id, r.Seq, 1) and so on.
func encode(id uint32, r *lane.Record) [][]byte {
	m := &r.Message
	flags := m.QoS & flagQoS
	if m.Retain {
		flags |= flagRetain
	}
	if !r.At.IsZero() {
		flags |= flagAt
	}
	if !m.Expires.IsZero() {
		flags |= flagExpires
	}
	const room = partSize - 4 // before the checksum
	topic, payload := m.Topic, m.Payload
	b := make([]byte, 0, min(partSize, 64+len(topic)+len(payload)))
	b = append(b, kindFirst, flags)
	b = appendTime(b, r.At)
	b = appendTime(b, m.Expires)
	b = binary.AppendUvarint(b, uint64(len(topic)))
	b = binary.AppendUvarint(b, uint64(len(payload)))
	var parts [][]byte
	for {
		n := min(room-len(b), len(topic))
		b, topic = append(b, topic[:n]...), topic[n:]
		n = min(room-len(b), len(payload))
		b, payload = append(b, payload[:n]...), payload[n:]
		parts = append(parts, seal(place{id, r.Seq, uint32(len(parts))}.key(), b))
		if len(topic)+len(payload) == 0 {
			return parts
		}
		b = append(make([]byte, 0, min(partSize, 8+len(topic)+len(payload))), kindPart)
	}
}

// appendTime appends seconds and nanoseconds, nothing if t is zero: a flag says that.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	b = binary.AppendVarint(b, t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

var errRecord = errors.New("not a message of ours")

// maxBody is more than any message has: a topic and a payload of a packet's greatest length.
const maxBody = 1<<28 + 1<<16

// assembly puts a message together from its parts, which are added in order.
type assembly struct {
	at, expires time.Time
	flags       byte
	parts       uint32
	topic       int    // its length
	body        []byte // topic and payload
	total       int    // the length that body will have
}

// add takes the next part, whose checksum is right.
func (a *assembly) add(value []byte) error {
	body := value[1 : len(value)-4]
	if a.parts++; a.parts == 1 {
		r := reader{b: body, ok: true}
		a.flags = r.byte()
		if a.flags&flagAt != 0 {
			a.at = r.time()
		}
		if a.flags&flagExpires != 0 {
			a.expires = r.time()
		}
		a.topic = int(r.uvarint(1<<16 - 1))
		a.total = a.topic + int(r.uvarint(maxBody-1<<16))
		if !r.ok || a.flags&^flagsKnown != 0 || a.flags&flagQoS == flagQoS {
			return errRecord
		}
		body = r.b
	}
	if len(a.body)+len(body) > a.total {
		return errRecord
	}
	if a.body == nil {
		// A wrong length must not make us allocate it: what is read grows towards it.
		a.body = make([]byte, 0, min(a.total, max(len(body), 1<<20)))
	}
	a.body = append(a.body, body...)
	return nil
}

// complete says whether all parts are there.
func (a *assembly) complete() bool { return a.parts > 0 && len(a.body) == a.total }

// record returns the complete message. It shares no memory with the values.
func (a *assembly) record() lane.Record {
	m := mqtt.Message{
		Topic: string(a.body[:a.topic]), QoS: a.flags & flagQoS, Retain: a.flags&flagRetain != 0, Expires: a.expires,
	}
	if len(a.body) > a.topic {
		m.Payload = a.body[a.topic:]
	}
	return lane.Record{At: a.at, Message: m}
}

// size is what the message counts for, known from its first part on.
func (a *assembly) size() int64 {
	var m mqtt.Message
	return m.Size() + int64(a.total)
}

// reader takes fields off a byte slice. After one that is not there, ok is false and the rest are zero.
type reader struct {
	b  []byte
	ok bool
}

func (r *reader) fail() {
	r.b, r.ok = nil, false
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > limit {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) time() time.Time {
	sec, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return time.Time{}
	}
	r.b = r.b[n:]
	nsec := r.uvarint(1e9 - 1)
	if !r.ok {
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec))
}

func (r *reader) uint32() uint32 {
	if len(r.b) < 4 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}
