package boltstore

import (
	"fmt"
	"path/filepath"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// mostlyFree says whether the file is worth compacting. Writing is held.
func (s *Store) mostlyFree() bool {
	return s.stats.Size > s.lim.compact && s.stats.Free > s.stats.Size/4*3
}

// compact copies what is needed of the file to a new one, which takes its place. Readers are not held up. It returns
// nil if there is no room for the copy.
func (s *Store) compact() error {
	err := s.tryCompact()
	if err != nil {
		s.log.Warn("compacting the spool failed", zap.String("file", s.path), zap.Error(err))
	}
	return err
}

func (s *Store) tryCompact() error {
	used := s.stats.Size - s.stats.Free
	if err := roomFor(s.dir, used); err != nil {
		s.log.Debug("the spool is not compacted", zap.String("file", s.path), zap.Error(err))
		return nil
	}
	before := s.stats.Size
	b, err := newBuilder(filepath.Join(s.dir, newName))
	if err != nil {
		return err
	}
	h, ix, err := s.copyTo(b)
	if err == nil {
		err = s.rename(newName)
	}
	if err != nil {
		b.abandon()
		return err
	}
	old := s.h
	s.adopt(h, ix)
	if err := old.close(); err != nil {
		s.log.Warn("closing the spool file failed", zap.String("file", s.path), zap.Error(err))
	}
	s.mu.Lock()
	s.stats.Compactions++
	s.mu.Unlock()
	s.log.Debug("the spool was compacted", zap.Int64("before", before), zap.Int64("after", s.stats.Size))
	return s.syncDir()
}

// roomFor returns an error if a file system has not so many bytes left.
func roomFor(dir string, size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	const slack = 1 << 20                      // bbolt makes files a little larger than needed
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // Bsize is not the same everywhere
	if free < size+slack {
		return fmt.Errorf("a copy needs %d MiB, %d MiB are free: %w", (size+slack)>>20, free>>20, syscall.ENOSPC)
	}
	return nil
}

// copyTo fills a new file with what is needed of this one.
func (s *Store) copyTo(b *builder) (*handle, index, error) {
	tx, err := s.h.begin(false)
	if err != nil {
		return nil, index{}, err
	}
	defer s.h.end(tx)
	v := snapshotOf(s.h, tx)
	for _, n := range []int{metaBucket, laneBucket, markBucket, noteBucket} {
		if err := v.ascend(n, nil, func(k, value []byte) (bool, error) { return true, b.put(n, k, value) }); err != nil {
			return nil, index{}, err
		}
	}
	err = v.ascend(messageBucket, nil, func(k, value []byte) (bool, error) {
		if p, ok := parsePlace(k); ok && s.ids[p.lane] != nil && p.seq >= s.ids[p.lane].head {
			return true, b.put(messageBucket, k, value)
		}
		return true, nil
	})
	if err == nil {
		err = eachRecent(v, s.ids, func(p place, value []byte) error { return b.put(messageBucket, p.key(), value) })
	}
	if err != nil {
		return nil, index{}, err
	}
	return b.finish()
}

// eachRecent calls f with each part in recent that a lane still needs.
func eachRecent(v snapshot, ids map[uint32]*laneInfo, f func(place, []byte) error) error {
	return v.ascend(recentBucket, nil, func(k, value []byte) (bool, error) {
		p, part, ok := cutPlace(value)
		if !ok || !validPart(p, part) {
			return false, wrongUnless(false, "a recent message")
		}
		if li := ids[p.lane]; li != nil && li.needs(p, k) {
			return true, f(p, part)
		}
		return true, nil
	})
}
