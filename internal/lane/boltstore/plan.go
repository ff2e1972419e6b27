package boltstore

import (
	"bytes"
	"math"
	"slices"

	"go.etcd.io/bbolt"

	"bridged/internal/lane"
)

// plan is what a commit will do: to the file, and then in memory. It is made first and as a whole, so that every page
// that it touches can be checked before bbolt gets to see it.
type plan struct {
	s      *Store
	v      snapshot
	change uint64
	ops    [buckets][]op
	// drop deletes recent, before what is put there. If moved is set, what was needed of it is put elsewhere.
	drop, moved bool

	lanes  map[*laneInfo]*laneInfo // as they will be
	fresh  []*laneInfo             // lanes that are not known yet
	recent uint64                  // the last number used in recent
	size   int64                   // what is put there
	count  int
	puts   []put
	bytes  uint64
	budget int // how many entries may still be purged
	over   map[*laneInfo]bool

	committed uint64
}

// op puts a value under a key, or deletes the key if the value is nil.
type op struct{ key, value []byte }

// put is a message that is to be put somewhere.
type put struct {
	li     *laneInfo
	seq    uint64
	parts  [][]byte
	direct bool
}

func (s *Store) newPlan(v snapshot) *plan {
	return &plan{
		s: s, v: v, change: s.change + 1, lanes: make(map[*laneInfo]*laneInfo), recent: s.lastRecent,
		budget: s.lim.purgeMost, over: make(map[*laneInfo]bool),
	}
}

func (p *plan) op(bucket int, key, value []byte) {
	p.ops[bucket] = append(p.ops[bucket], op{key, value})
}

// lane returns what a lane will be.
func (p *plan) lane(li *laneInfo) *laneInfo {
	next := p.lanes[li]
	if next == nil {
		copied := *li // the refs are the same ones: they may be appended to, but not be changed
		next = &copied
		p.lanes[li] = next
	}
	return next
}

// batch adds a batch to the plan.
func (p *plan) batch(b *lane.Batch) error {
	for _, n := range b.Notes {
		if len(n.Value) > MaxNote {
			return ErrNoteSize
		}
		key := noteKey(n.Name)
		if n.Value == nil {
			p.op(noteBucket, key, nil)
		} else {
			p.op(noteBucket, key, noteRow(key, p.change, n.Value))
		}
	}
	for i := range b.Changes {
		if err := p.laneChange(&b.Changes[i]); err != nil {
			return err
		}
	}
	if err := p.place(); err != nil {
		return err
	}
	for li := range p.s.overdue {
		if err := p.purge(p.lane(li), 1); err != nil {
			return err
		}
	}
	return nil
}

// find returns a lane as it will be, with a number if it is new.
func (p *plan) find(k lane.Key) *laneInfo {
	if li := p.s.lanes[k]; li != nil {
		return p.lane(li)
	}
	li := &laneInfo{key: k, id: p.s.lastLane + uint32(len(p.fresh)) + 1, low: 1}
	p.fresh = append(p.fresh, li)
	p.op(metaBucket, nameKey(li.id), nameRow(li.id, k))
	return li
}

func (p *plan) laneChange(c *lane.Change) error {
	li := p.find(c.Key)
	key := laneKey(c.Key)
	r := row{id: li.id, change: p.change, state: c.State}
	p.op(laneBucket, key, r.encode(key))
	li.head = c.State.Head
	i, _ := li.findRef(li.head)
	li.refs = li.refs[i:]
	if err := p.gone(li, c.Gone); err != nil {
		return err
	}
	p.put(li, c.Put)
	// Of long messages fewer are left lying.
	if err := p.purge(li, max(p.s.lim.purge/max(uint64(li.parts), 1), 1)); err != nil {
		return err
	}
	return p.marks(li, c)
}

func (p *plan) marks(li *laneInfo, c *lane.Change) error {
	if c.Fresh {
		prefix := markKey(li.id, 0)[:4]
		err := p.v.ascend(markBucket, prefix, func(k, _ []byte) (bool, error) {
			if !bytes.HasPrefix(k, prefix) {
				return false, nil
			}
			p.op(markBucket, k, nil)
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	for _, id := range c.Unmark {
		p.op(markBucket, markKey(li.id, id), nil)
	}
	for _, m := range c.Mark {
		key := markKey(li.id, m.ID)
		p.op(markBucket, key, markRow(key, m.Sum))
	}
	return nil
}

// gone deletes messages from where they may be.
func (p *plan) gone(li *laneInfo, seqs []uint64) error {
	everything := math.MaxInt
	for _, seq := range seqs {
		if seq < li.head {
			continue
		}
		if i, ok := li.findRef(seq); ok {
			p.unref(li, i)
		}
		if seq < li.low || seq > li.high {
			continue
		}
		if _, err := p.remove(li, seq, seq+1, &everything); err != nil {
			return err
		}
	}
	return nil
}

// unref deletes a message from recent.
func (p *plan) unref(li *laneInfo, i int) {
	for part := range uint64(li.refs[i].parts) {
		p.op(recentBucket, recentKey(li.refs[i].at+part), nil)
	}
	li.refs = slices.Concat(li.refs[:i], li.refs[i+1:])
}

// remove deletes a range of a lane from messages, but begins no message beyond a budget of entries. It returns where it
// ended.
func (p *plan) remove(li *laneInfo, from, before uint64, budget *int) (end uint64, err error) {
	end = before
	stop := place{lane: li.id, seq: before}.key()
	err = p.v.ascend(messageBucket, place{lane: li.id, seq: from}.key(), func(k, _ []byte) (bool, error) {
		if bytes.Compare(k, stop) >= 0 {
			return false, nil
		}
		if at, ok := parsePlace(k); ok && at.part == 0 && *budget <= 0 {
			end = at.seq
			return false, nil
		}
		p.op(messageBucket, k, nil)
		*budget--
		return true, nil
	})
	return end, err
}

// purge deletes what a lane does not need any more from messages, if there are so many of them.
func (p *plan) purge(li *laneInfo, least uint64) error {
	if li.low > li.high || li.low >= li.head || min(li.head, li.high+1)-li.low < least {
		return nil
	}
	end, err := p.remove(li, li.low, li.head, &p.budget)
	if err != nil {
		return err
	}
	li.low = end
	if end < li.head {
		p.over[li] = true
	}
	return nil
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
	size, count, lanes := p.s.recentSize, p.s.recentCount, make(map[*laneInfo]bool)
	for i := range p.puts {
		if put := &p.puts[i]; !put.direct {
			lanes[put.li] = true
			count += len(put.parts)
			for _, part := range put.parts {
				size += int64(len(part)) + elemSize + 16
			}
		}
	}
	needed := 0
	for _, li := range p.s.lanes {
		if next := p.lanes[li]; next != nil {
			li = next
		}
		if needed += len(li.refs); len(li.refs) > 0 {
			lanes[li] = true
		}
	}
	lim := &p.s.lim
	bound := min(max(lim.recentLane*int64(len(lanes)), lim.recentMin), lim.recentMax)
	switch {
	case size > bound || count > lim.recentEntries:
		if err := p.move(); err != nil {
			return err
		}
	case needed == 0 && p.s.recentCount > 0:
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

func (p *plan) empty() bool {
	for _, ops := range p.ops {
		if len(ops) > 0 {
			return false
		}
	}
	return !p.drop
}

// check has every page read that bbolt will read.
func (p *plan) check() error {
	var names [][]byte
	for n := range p.ops {
		ops := p.ops[n]
		slices.SortStableFunc(ops, func(a, b op) int { return bytes.Compare(a.key, b.key) })
		drop := p.drop && n == recentBucket
		if len(ops) > 0 || drop {
			names = append(names, []byte(bucketNames[n]))
		}
		if len(ops) == 0 || drop {
			continue
		}
		t, err := p.v.bucket(n)
		if err != nil {
			return err
		}
		keys, deletions := make([][]byte, len(ops)), false
		for i := range ops {
			keys[i] = ops[i].key
			deletions = deletions || ops[i].value == nil
		}
		if err := t.check(keys, deletions); err != nil {
			return err
		}
	}
	slices.SortFunc(names, bytes.Compare)
	return p.v.root.check(names, p.drop)
}

// apply has bbolt do it.
func (p *plan) apply(tx *bbolt.Tx) error {
	if p.drop && tx.Bucket([]byte(bucketNames[recentBucket])) != nil {
		if err := tx.DeleteBucket([]byte(bucketNames[recentBucket])); err != nil {
			return err
		}
	}
	for n, ops := range p.ops {
		if len(ops) == 0 {
			continue
		}
		b, err := tx.CreateBucketIfNotExists([]byte(bucketNames[n]))
		if err != nil {
			return err
		}
		b.FillPercent = fill[n]
		for _, o := range ops {
			if o.value == nil {
				err = b.Delete(o.key)
			} else {
				err = b.Put(o.key, o.value)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// fill is how full pages are made when one is divided: messages only follow one another, the others grow anywhere.
var fill = [buckets]float64{
	metaBucket: 0.9, laneBucket: 0.8, messageBucket: 1, markBucket: 0.8, noteBucket: 0.8, recentBucket: 1,
}

// done brings the index up to date. Readers are kept out.
func (p *plan) done() {
	s := p.s
	for li, next := range p.lanes {
		if delete(s.overdue, li); p.over[next] {
			s.overdue[li] = true
		}
		*li = *next
	}
	for _, li := range p.fresh {
		s.lanes[li.key], s.ids[li.id] = li, li
		s.lastLane = li.id
	}
	if p.drop {
		s.recentSize, s.recentCount = 0, 0
	}
	s.recentSize += p.size
	s.recentCount += p.count
	s.lastRecent, s.change = p.recent, p.change
	s.stats.Put += p.bytes
	s.stats.Commits += p.committed
	if p.moved {
		s.stats.Moves++
	}
}
