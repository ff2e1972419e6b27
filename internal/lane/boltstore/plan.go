package boltstore

import (
	"bytes"
	"math"
	"slices"

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
		if len(n.Value) > lane.MaxNote {
			return lane.ErrNoteSize
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
