package boltstore

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// decodeAll puts parts together as Read does.
func decodeAll(id uint32, seq uint64, parts [][]byte) (lane.Record, bool) {
	var a assembly
	for n, part := range parts {
		if !validPart(place{id, seq, uint32(n)}, part) || a.add(part) != nil {
			return lane.Record{}, false
		}
	}
	if !a.complete() {
		return lane.Record{}, false
	}
	r := a.record()
	r.Seq = seq
	return r, true
}

// Every message comes back as it was, from its own place only.
func FuzzRecord(f *testing.F) {
	f.Add("t", []byte("payload"), byte(1), true, int64(1e18), int64(5), uint32(7), uint64(9))
	f.Add("", []byte{}, byte(0), false, int64(0), int64(-1), uint32(0), uint64(1<<64-1))
	f.Add("long", bytes.Repeat([]byte("0123456789"), 500), byte(2), false, int64(-62135596800), int64(0), uint32(1),
		uint64(1))
	f.Fuzz(func(
		t *testing.T, topic string, payload []byte, qos byte, retain bool, at, expires int64, id uint32, seq uint64,
	) {
		r := lane.Record{Seq: seq, At: time.Unix(at/4, at&0xFFFFFF)}
		r.Message = mqtt.Message{Topic: topic, Payload: payload, QoS: qos % 3, Retain: retain}
		if len(topic) > 65535 {
			return
		}
		if expires != 0 {
			r.Message.Expires = time.Unix(0, expires)
		}
		parts := encode(id, &r)
		got, ok := decodeAll(id, seq, parts)
		if !ok || !same(&got, &r) {
			t.Fatalf("%+v became %+v", r, got)
		}
		for n, part := range parts {
			if len(part) > partSize {
				t.Errorf("a part has %d bytes", len(part))
			}
			p := place{id, seq, uint32(n)}
			if back, ok := parsePlace(p.key()); !ok || back != p {
				t.Errorf("%+v became %+v", p, back)
			}
			if back, rest, ok := cutPlace(append(p.appendTo(nil), part...)); !ok || back != p || !bytes.Equal(rest, part) {
				t.Errorf("%+v became %+v", p, back)
			}
			for _, other := range []place{{id + 1, seq, uint32(n)}, {id, seq + 1, uint32(n)}, {id, seq, uint32(n) + 1}} {
				if validPart(other, part) {
					t.Errorf("%+v passes for %+v", p, other)
				}
			}
		}
		if got.Message.Size() != r.Message.Size() {
			t.Error("the size changed")
		}
	})
}

// Nothing that is read makes a parser fail otherwise than by saying so.
func FuzzGarbage(f *testing.F) {
	k := key("d")
	rec := record(k, 3, 100)
	f.Add(place{1, 3, 0}.key(), encode(1, &rec)[0])
	st := row{id: 3, change: 4, state: lane.State{Next: 5, Head: 4, Oldest: epoch, Queued: 1, Dropped: [10]uint64{3: 7}}}
	f.Add(laneKey(k), st.encode(laneKey(k)))
	f.Add(noteKey("n"), noteRow(noteKey("n"), 3, []byte("note")))
	f.Add(markKey(1, 2), markRow(markKey(1, 2), 3))
	f.Add(nameKey(1), nameRow(1, k))
	f.Add(versionKey, versionRow())
	f.Fuzz(func(t *testing.T, key, value []byte) {
		for range 2 {
			_, _ = parseVersion(value)
			_, _ = parseRow(key, value)
			_, _, _ = parseName(key, value)
			_, _, _ = parseMark(key, value)
			_, _, _ = parseNote(key, value)
			_, _, _ = part(key, value)
			if p, ok := parsePlace(key); ok {
				if r, ok := decodeAll(p.lane, p.seq, [][]byte{value}); ok && len(r.Message.Payload) > len(value) {
					t.Error("a message out of nothing")
				}
			}
			// Once more as if the checksum were right.
			if len(value) < 5 {
				return
			}
			value = seal(key, append([]byte{}, value[:len(value)-4]...))
		}
	})
}

// Whatever became of a page, it is read within its bounds.
func FuzzPage(f *testing.F) {
	file := newSpoiled(f, 5, 4, 30)
	for at := 0; at < len(file.data); at += pageSize {
		f.Add(file.data[at:][:pageSize])
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		data = append(data[:min(len(data), pageSize)], make([]byte, pageSize-min(len(data), pageSize))...)
		_, _ = parseMeta(data)
		if p, err := parsePage(data); err == nil {
			for i := range p.count {
				_ = p.key(i)
				if p.leaf {
					_, _ = p.value(i)
				} else {
					_ = p.child(i)
				}
			}
		}
		_ = takeLeaf(data, func(_, _ []byte) error { return nil })
	})
}

// A file that was damaged in any way is opened, what it has is true, and it works.
func FuzzOpen(f *testing.F) {
	files := []*spoiled{newSpoiled(f, 1, 1, 40), newSpoiled(f, 2, 6, 60)}
	for i := range uint64(8) {
		f.Add(i, []byte{})
	}
	f.Add(uint64(1), []byte{0, 0, 16, 0xFF, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, seed uint64, patch []byte) {
		file := files[seed%2]
		data := mutate(rand.New(rand.NewPCG(seed, 3)), file.data)
		// Each four bytes of the patch are a place and what to change there.
		for ; len(patch) >= 4 && len(data) > 0; patch = patch[4:] {
			data[(int(patch[0])<<16|int(patch[1])<<8|int(patch[2]))%len(data)] ^= patch[3]
		}
		for _, w := range file.judgeTwice(t, file.open(t, data)).wrong {
			t.Error(w)
		}
	})
}
