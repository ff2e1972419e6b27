package boltstore

import (
	"bytes"
	"slices"

	"go.etcd.io/bbolt"
)

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
