package boltstore

import (
	"slices"

	"bridged/internal/lane"
)

// put is a message that is to be put somewhere: into messages if it is direct, otherwise into recent.
type put struct {
	li     *laneInfo
	seq    uint64
	parts  [][]byte
	direct bool
}

// put prepares messages for being put.
func (p *plan) put(li *laneInfo, records []lane.Record) {
	var size int64
	first := len(p.puts)
	for i := range records {
		r := &records[i]
		if r.Seq < li.head {
			continue
		}
		parts := encode(li.id, r)
		for _, part := range parts {
			size += int64(len(part))
		}
		p.puts = append(p.puts, put{li: li, seq: r.Seq, parts: parts})
	}
	for i := range p.puts[first:] {
		p.puts[first+i].direct = size >= p.s.lim.direct
	}
	p.bytes += uint64(size)
}

// place decides where messages go, and whether it is time to move what is in recent.
func (p *plan) place() error {
	size, count, lanes := p.s.recentSize, p.s.recentCount, 0
	var last *laneInfo // a lane's messages come together
	for i := range p.puts {
		m := &p.puts[i]
		if m.direct {
			continue
		}
		if m.li != last && len(m.li.refs) == 0 {
			lanes++
		}
		last = m.li
		count += len(m.parts)
		for _, part := range m.parts {
			size += int64(len(part)) + elemSize + 16
		}
	}
	needed := false
	for _, li := range p.s.lanes {
		if next := p.lanes[li]; next != nil {
			li = next
		}
		if len(li.refs) > 0 {
			lanes, needed = lanes+1, true
		}
	}
	lim := &p.s.lim
	bound := min(max(lim.recentLane*int64(lanes), lim.recentMin), lim.recentMax)
	switch {
	case size > bound || count > lim.recentEntries:
		if err := p.move(); err != nil {
			return err
		}
	case !needed && p.s.recentCount > 0:
		if err := p.dropRecent(); err != nil {
			return err
		}
	}
	for i := range p.puts {
		p.putOne(&p.puts[i])
	}
	return nil
}

// move puts what is still needed of recent where it belongs.
func (p *plan) move() error {
	ids := make(map[uint32]*laneInfo)
	for _, li := range p.s.lanes {
		if len(li.refs) > 0 {
			ids[li.id] = p.lane(li)
		}
	}
	err := eachRecent(p.v, ids, func(at place, part []byte) error {
		p.op(messageBucket, at.key(), part)
		ids[at.lane].hold(at)
		return nil
	})
	if err != nil {
		return err
	}
	for _, li := range ids {
		li.refs = nil
	}
	for i := range p.puts {
		p.puts[i].direct = true
	}
	p.moved = true
	return p.dropRecent()
}

// dropRecent deletes recent. Bbolt reads all of it for that.
func (p *plan) dropRecent() error {
	p.drop = true
	p.ops[recentBucket] = nil
	return p.v.ascend(recentBucket, nil, func([]byte, []byte) (bool, error) { return true, nil })
}

// hold notes that a part of a message is in messages.
func (li *laneInfo) hold(at place) {
	if li.low > li.high {
		li.low, li.high, li.parts = at.seq, at.seq, 0
	}
	li.low, li.high, li.parts = min(li.low, at.seq), max(li.high, at.seq), max(li.parts, at.part+1)
}

func (p *plan) putOne(m *put) {
	if m.direct {
		for n, part := range m.parts {
			at := place{m.li.id, m.seq, uint32(n)}
			m.li.hold(at)
			p.op(messageBucket, at.key(), part)
		}
		return
	}
	if i, ok := m.li.findRef(m.seq); ok {
		p.unref(m.li, i) // put once more, after an error
	}
	f := ref{seq: m.seq, at: p.recent + 1, parts: uint32(len(m.parts))}
	for n, part := range m.parts {
		p.recent++
		key := recentKey(p.recent)
		value := append(place{m.li.id, m.seq, uint32(n)}.appendTo(make([]byte, 0, len(part)+20)), part...)
		p.op(recentBucket, key, value)
		p.size += entrySize(key, value)
		p.count++
	}
	if i, _ := m.li.findRef(m.seq); i < len(m.li.refs) {
		m.li.refs = slices.Concat(m.li.refs[:i], []ref{f}, m.li.refs[i:])
	} else {
		m.li.refs = append(m.li.refs, f)
	}
}
