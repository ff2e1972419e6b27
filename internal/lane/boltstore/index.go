package boltstore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"bridged/internal/lane"
)

// index is what is kept in memory of a file.
type index struct {
	lanes map[lane.Key]*laneInfo
	ids   map[uint32]*laneInfo
	// The last ones in use.
	change     uint64
	lastLane   uint32
	lastRecent uint64
	// recentSize and recentCount are what recent holds, needed or not.
	recentSize  int64
	recentCount int
	overdue     map[*laneInfo]bool // these had more to be purged than one commit may
}

// laneInfo is where a lane's messages are.
type laneInfo struct {
	key  lane.Key
	id   uint32
	head uint64
	// In the bucket messages the lane has none before low nor after high, and none that was put with more parts.
	low, high uint64
	parts     uint32
	refs      []ref // those in recent that are still needed, by sequence number
}

// ref is a message in recent: its parts have the numbers from at on.
type ref struct {
	seq, at uint64
	parts   uint32
}

func newIndex() index {
	return index{
		lanes: make(map[lane.Key]*laneInfo), ids: make(map[uint32]*laneInfo), overdue: make(map[*laneInfo]bool),
	}
}

// readIndex reads everything but the bucket messages. What it reads must be right: lanes are not to be told things that
// turn out wrong later.
func readIndex(v snapshot) (index, error) {
	ix := newIndex()
	err := v.ascend(metaBucket, nil, func(k, value []byte) (bool, error) {
		if bytes.Equal(k, versionKey) {
			return true, nil
		}
		id, _, ok := parseName(k, value)
		ix.lastLane = max(ix.lastLane, id)
		return ok, wrongUnless(ok, "a lane's name")
	})
	if err == nil {
		err = v.ascend(laneBucket, nil, ix.addLane)
	}
	if err == nil {
		err = v.ascend(markBucket, nil, func(k, value []byte) (bool, error) {
			_, _, ok := parseMark(k, value)
			return ok, wrongUnless(ok, "a mark")
		})
	}
	if err == nil {
		err = v.ascend(noteBucket, nil, func(k, value []byte) (bool, error) {
			_, change, ok := parseNote(k, value)
			ix.change = max(ix.change, change)
			return ok, wrongUnless(ok, "a note")
		})
	}
	if err == nil {
		err = v.ascend(recentBucket, nil, ix.addRecent)
	}
	for _, li := range ix.lanes {
		li.sortRefs()
	}
	return ix, err
}

func wrongUnless(ok bool, what string) error {
	if ok {
		return nil
	}
	return damaged("%s has a wrong checksum", what)
}

func (ix *index) addLane(k, value []byte) (bool, error) {
	key, ok := parseLaneKey(k)
	r, okRow := parseRow(k, value)
	if !ok || !okRow || ix.ids[r.id] != nil {
		return false, wrongUnless(false, "a lane's state")
	}
	// Until it is searched, anything before Next may be in messages.
	li := &laneInfo{key: key, id: r.id, head: r.state.Head, high: r.state.Next}
	ix.lanes[key], ix.ids[r.id] = li, li
	ix.lastLane = max(ix.lastLane, r.id)
	ix.change = max(ix.change, r.change)
	return true, nil
}

func (ix *index) addRecent(k, value []byte) (bool, error) {
	p, part, ok := cutPlace(value)
	if !ok || len(k) != 8 || !validPart(p, part) {
		return false, wrongUnless(false, "a recent message")
	}
	n := binary.BigEndian.Uint64(k)
	ix.lastRecent = n
	ix.recentCount++
	ix.recentSize += entrySize(k, value)
	li := ix.ids[p.lane]
	if li == nil || p.seq < li.head {
		return true, nil
	}
	last := len(li.refs) - 1
	switch {
	case p.part == 0:
		li.refs = append(li.refs, ref{seq: p.seq, at: n, parts: 1})
	case last >= 0 && li.refs[last].seq == p.seq && li.refs[last].at+uint64(p.part) == n && li.refs[last].parts == p.part:
		li.refs[last].parts++
	}
	return true, nil
}

// entrySize is what an entry takes in a page.
func entrySize(key, value []byte) int64 { return int64(len(key) + len(value) + elemSize) }

// sortRefs puts the refs in order. Of two for a message the one put last stays.
func (li *laneInfo) sortRefs() {
	byPlace := func(a, b ref) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(b.at, a.at)) }
	if !slices.IsSortedFunc(li.refs, byPlace) {
		slices.SortFunc(li.refs, byPlace)
	}
	li.refs = slices.CompactFunc(li.refs, func(a, b ref) bool { return a.seq == b.seq })
}

// findRef returns where a message's ref is, or would be.
func (li *laneInfo) findRef(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(li.refs, seq, func(r ref, seq uint64) int { return cmp.Compare(r.seq, seq) })
}

// needs says whether an entry of recent is in the index.
func (li *laneInfo) needs(p place, key []byte) bool {
	i, ok := li.findRef(p.seq)
	return ok && p.part < li.refs[i].parts && binary.BigEndian.Uint64(key) == li.refs[i].at+uint64(p.part)
}
