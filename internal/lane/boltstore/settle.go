package boltstore

import (
	"encoding/binary"
	"fmt"
	"time"

	"bridged/internal/lane"
)

// holes says whether messages may be missing since the way to them is.
func (v *salvage) holes() bool { return v.damagedAt[messageBucket] || v.damagedAt[recentBucket] }

// missing says whether a search may find more.
func (v *salvage) missing() bool {
	for _, r := range v.rows {
		if r.sure && r.have < r.state.Queued {
			return true
		}
	}
	return v.holes()
}

// tally counts what was put, and removes parts without the rest.
func (v *salvage) tally() error {
	for _, r := range v.rows {
		r.have, r.bytes, r.lowest, r.high, r.oldest = 0, 0, 0, 0, time.Time{}
	}
	s, err := v.out.read()
	if err != nil {
		return err
	}
	t := tallying{v: v}
	err = s.ascend(messageBucket, nil, func(k, value []byte) (bool, error) {
		p, ok := parsePlace(k)
		if !ok {
			return false, fmt.Errorf("a new file has a key %x", k)
		}
		if p.lane != t.at.lane || p.seq != t.at.seq {
			t.flush()
			t.at = place{lane: p.lane, seq: p.seq}
		}
		t.keys = append(t.keys, k)
		if p.part != t.parts.parts || t.parts.add(value) != nil {
			t.broken = true
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	t.flush()
	for _, k := range t.remove {
		if err := v.out.remove(messageBucket, k); err != nil {
			return err
		}
	}
	return nil
}

// tallying looks at one message after the other.
type tallying struct {
	v      *salvage
	at     place
	keys   [][]byte
	parts  assembly
	broken bool
	remove [][]byte
}

func (t *tallying) flush() {
	keys, parts, broken := t.keys, t.parts, t.broken
	t.keys, t.parts, t.broken = nil, assembly{}, false
	switch {
	case len(keys) == 0:
		return
	case broken || !parts.complete():
		t.remove = append(t.remove, keys...)
		return
	}
	r := t.v.rows[t.at.lane]
	if r.have == 0 {
		r.lowest, r.oldest = t.at.seq, parts.at
	}
	r.have++
	r.bytes += parts.size()
	r.high = t.at.seq
}

// settle writes names and states that are true of what the new file has.
func (v *salvage) settle() error {
	var change uint64
	for _, r := range v.rows {
		change = max(change, r.change)
	}
	for _, c := range v.notes {
		change = max(change, c)
	}
	for id, r := range v.rows {
		key := v.names[id] // rowOf and takeRow made sure that there is one
		if !r.known && r.have == 0 {
			continue
		}
		if err := v.out.put(metaBucket, nameKey(id), nameRow(id, key)); err != nil {
			return err
		}
		v.salvaged += r.have
		v.lost += r.settle()
		r.change = change + 1
		k := laneKey(key)
		if err := v.out.put(laneBucket, k, r.encode(k)); err != nil {
			return err
		}
	}
	return v.dropMarks()
}

// settle makes a state true, and returns how many messages are missing.
func (r *foundRow) settle() (lost uint64) {
	st := &r.state
	switch n := st.Queued - r.have; {
	case n > 0:
		lost = uint64(n)
		st.Dropped[lane.Damaged] += lost
	default: // the state is older than its messages, or there is none
		st.Accepted += uint64(-n)
	}
	st.Queued, st.Bytes, st.Oldest = r.have, r.bytes, r.oldest
	if r.have > 0 {
		st.Next = max(st.Next, r.high+1)
		st.Head = r.lowest
	} else {
		st.Head = st.Next
	}
	if !r.sure { // any of them may have been delivered before
		st.Sent = max(st.Sent, r.high)
	}
	return lost
}

// dropMarks removes marks of lanes that nobody knows.
func (v *salvage) dropMarks() error {
	s, err := v.out.read()
	if err != nil {
		return err
	}
	var keys [][]byte
	err = s.ascend(markBucket, nil, func(k, _ []byte) (bool, error) {
		if r := v.rows[binary.BigEndian.Uint32(k)]; r == nil || !r.known && r.have == 0 {
			keys = append(keys, k)
		}
		return true, nil
	})
	for _, k := range keys {
		if err := v.out.remove(markBucket, k); err != nil {
			return err
		}
	}
	return err
}
