package boltstore

import (
	"encoding/binary"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// formatVersion is what this program reads and writes.
const formatVersion = 1

var versionKey = []byte("version")

func versionRow() []byte {
	return seal(versionKey, binary.BigEndian.AppendUint32([]byte{kindVersion}, formatVersion))
}

// parseVersion must stay as it is: older and newer programs tell by it whether a file is for them.
func parseVersion(value []byte) (uint32, bool) {
	b, ok := unseal(kindVersion, versionKey, value)
	if !ok || len(b) < 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}

// laneKey is a lane's key in lanes.
func laneKey(k lane.Key) []byte { return append([]byte{byte(k.Direction)}, k.Device...) }

func parseLaneKey(b []byte) (lane.Key, bool) {
	if len(b) == 0 || b[0] > byte(lane.Down) {
		return lane.Key{}, false
	}
	return lane.Key{Direction: lane.Direction(b[0]), Device: string(b[1:])}, true
}

// nameKey is a lane's key in meta, where its name is written once more: without it, its messages belong to nobody.
func nameKey(id uint32) []byte { return binary.BigEndian.AppendUint32([]byte{'n'}, id) }

func nameRow(id uint32, k lane.Key) []byte {
	return seal(nameKey(id), append([]byte{kindName}, laneKey(k)...))
}

func parseName(key, value []byte) (id uint32, k lane.Key, ok bool) {
	if len(key) != 5 || key[0] != 'n' {
		return 0, lane.Key{}, false
	}
	b, ok := unseal(kindName, key, value)
	if !ok {
		return 0, lane.Key{}, false
	}
	k, ok = parseLaneKey(b)
	return binary.BigEndian.Uint32(key[1:]), k, ok
}

// row is a lane's value in lanes. Change counts the commits that changed lanes: of two rows for a lane, which are found
// where old pages are searched, the higher is newer.
type row struct {
	id     uint32
	change uint64
	state  lane.State
}

func (r *row) encode(key []byte) []byte {
	st := &r.state
	b := binary.BigEndian.AppendUint32([]byte{kindState}, r.id)
	b = binary.AppendUvarint(b, r.change)
	b = binary.AppendUvarint(b, st.Next)
	b = binary.AppendUvarint(b, st.Head)
	b = binary.AppendUvarint(b, st.Sent)
	if st.Oldest.IsZero() {
		b = append(b, 0)
	} else {
		b = appendTime(append(b, 1), st.Oldest)
	}
	b = binary.AppendUvarint(b, uint64(st.Queued))
	b = binary.AppendUvarint(b, uint64(st.Bytes))
	b = binary.AppendUvarint(b, st.Accepted)
	b = binary.AppendUvarint(b, st.Delivered)
	n := len(st.Dropped)
	for n > 0 && st.Dropped[n-1] == 0 {
		n--
	}
	b = binary.AppendUvarint(b, uint64(n))
	for _, d := range st.Dropped[:n] {
		b = binary.AppendUvarint(b, d)
	}
	return seal(key, b)
}

func parseRow(key, value []byte) (row, bool) {
	b, ok := unseal(kindState, key, value)
	if !ok {
		return row{}, false
	}
	const most = 1<<63 - 1
	r := reader{b: b, ok: true}
	var v row
	st := &v.state
	v.id = r.uint32()
	v.change = r.uvarint(most)
	st.Next, st.Head, st.Sent = r.uvarint(1<<64-1), r.uvarint(1<<64-1), r.uvarint(1<<64-1)
	if r.byte() != 0 {
		st.Oldest = r.time()
	}
	st.Queued, st.Bytes = int(r.uvarint(1<<31-1)), int64(r.uvarint(most))
	st.Accepted, st.Delivered = r.uvarint(1<<64-1), r.uvarint(1<<64-1)
	for i := range int(r.uvarint(255)) {
		d := r.uvarint(1<<64 - 1)
		if i >= len(st.Dropped) {
			i = 0 // a reason that this program does not know, no longer told apart so that the ledger balances
		}
		st.Dropped[i] += d
	}
	return v, r.ok && len(r.b) == 0
}

func markKey(id uint32, packet uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(make([]byte, 0, 6), id), packet)
}

func markRow(key []byte, sum uint32) []byte {
	return seal(key, binary.BigEndian.AppendUint32([]byte{kindMark}, sum))
}

func parseMark(key, value []byte) (id uint32, m mqtt.Mark, ok bool) {
	b, ok := unseal(kindMark, key, value)
	if !ok || len(key) != 6 || len(b) != 4 {
		return 0, mqtt.Mark{}, false
	}
	m = mqtt.Mark{ID: binary.BigEndian.Uint16(key[4:]), Sum: binary.BigEndian.Uint32(b)}
	return binary.BigEndian.Uint32(key), m, true
}

// A note's name may be empty, a bbolt key may not.
func noteKey(name string) []byte { return append([]byte{'o'}, name...) }

func noteRow(key []byte, change uint64, value []byte) []byte {
	return seal(key, append(binary.AppendUvarint([]byte{kindNote}, change), value...))
}

func parseNote(key, value []byte) (n lane.Note, change uint64, ok bool) {
	b, ok := unseal(kindNote, key, value)
	if !ok || len(key) == 0 || key[0] != 'o' {
		return lane.Note{}, 0, false
	}
	r := reader{b: b, ok: true}
	change = r.uvarint(1<<64 - 1)
	return lane.Note{Name: string(key[1:]), Value: append([]byte{}, r.b...)}, change, r.ok
}
