package boltstore

import (
	"errors"

	"go.etcd.io/bbolt"

	"bridged/internal/lane"
)

// Commit implements lane.Store. For want of space its error is syscall.ENOSPC to errors.Is.
func (s *Store) Commit(b *lane.Batch) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if len(b.Changes)+len(b.Notes) == 0 {
		return nil
	}
	if err := s.write(func(p *plan) error { return p.batch(b) }); err != nil {
		return s.wrap("commit", err)
	}
	return nil
}

// write commits what f plans. If the file turns out to be damaged it is mended first. Writing is held.
func (s *Store) write(f func(*plan) error) error {
	err := s.tryWrite(f)
	if !isDamage(err) {
		return err
	}
	if err := s.mend(err); err != nil {
		return err
	}
	return s.tryWrite(f)
}

func (s *Store) tryWrite(f func(*plan) error) error {
	if err := s.ready(); err != nil {
		return err
	}
	tx, err := s.h.begin(true)
	if err != nil {
		s.reopen = err
		return err
	}
	p := s.newPlan(snapshotOf(s.h, tx))
	if err = f(p); err == nil && !p.empty() {
		err = s.carryOut(p, tx)
	} else {
		s.h.end(tx)
	}
	if err != nil {
		if !errors.Is(err, lane.ErrNoteSize) {
			s.reopen = err
		}
		return typed(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.done()
	s.measureLocked()
	return nil
}

// carryOut commits a plan.
func (s *Store) carryOut(p *plan, tx *bbolt.Tx) error {
	err := s.checkPlace()
	if err == nil {
		err = s.checkCommit(p)
	}
	if err == nil {
		err = s.syncDir()
	}
	if err == nil {
		err = s.syncFile()
	}
	if err == nil {
		err = guard(func() error { return p.apply(tx) })
	}
	if err == nil {
		err = guard(tx.Commit)
	}
	if err != nil {
		s.h.end(tx)
		return err
	}
	s.mended, s.nothing = 0, false
	p.committed = 1
	return nil
}

// checkCommit has everything read that bbolt will read.
func (s *Store) checkCommit(p *plan) error {
	m, _, err := readMeta(s.h.r)
	if err != nil {
		return err
	}
	// Bbolt frees the pages of the old list, as many as it says, and reads it again if the commit fails.
	if err := p.v.pages.checkFreelist(m.freelist); err != nil {
		return err
	}
	return p.check()
}

// Maintain implements lane.Store: it deletes what is not needed any more, and makes a file that is mostly free smaller.
func (s *Store) Maintain() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.maintain(); err != nil {
		return s.wrap("maintain", err)
	}
	return nil
}

func (s *Store) maintain() error {
	if err := s.ready(); err != nil {
		return err
	}
	for s.untidy() {
		if err := s.write((*plan).tidy); err != nil {
			return err
		}
	}
	if !s.mostlyFree() || s.stats.Size-s.stats.Free > s.lim.copyMost {
		return nil
	}
	err := s.compact()
	if isDamage(err) {
		return s.mend(err)
	}
	return err
}

// untidy says whether there is something to delete. For a lane that was not looked at since the start it may be
// mistaken.
func (s *Store) untidy() bool {
	needed := 0
	for _, li := range s.lanes {
		if li.low <= li.high && li.low < li.head {
			return true
		}
		needed += len(li.refs)
	}
	return needed == 0 && s.recentCount > 0
}

// tidy plans to delete what is not needed any more.
func (p *plan) tidy() error {
	p.budget *= 16 // nobody is waiting
	for _, li := range p.s.lanes {
		if err := p.purge(p.lane(li), 1); err != nil {
			return err
		}
	}
	return p.place()
}
