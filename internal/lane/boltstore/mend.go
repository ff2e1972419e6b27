package boltstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"bridged/internal/lane"
)

// mendMost is how often in a row a file is mended without a commit between: if it cannot be used then, something else
// is wrong, and more copies only fill the disk.
const mendMost = 3

// mend sets the damaged file aside and goes on with what can be salvaged of it. If it fails the file stays where it is,
// and the next commit tries again. Writing is held.
func (s *Store) mend(cause error) (err error) {
	defer func() {
		if err != nil {
			s.reopen = err
		}
	}()
	fields := []zap.Field{zap.String("file", s.path), zap.Error(cause)}
	var d *damage
	if errors.As(cause, &d) && d.stack != nil {
		fields = append(fields, zap.ByteString("stack", d.stack))
	}
	if s.mended >= mendMost {
		return fmt.Errorf("%s is damaged again right after it was mended: %s", s.path, cause.Error())
	}
	if s.mending != cause.Error() { // otherwise it was said, and could not be done
		s.mending = cause.Error()
		s.log.Error("the spool file is damaged, salvaging what can be read", fields...)
	}
	known := make(map[uint32]lane.Key)
	for id, li := range s.ids {
		known[id] = li.key
	}
	if err := s.leave(); err != nil {
		s.log.Warn("closing the spool file failed", zap.String("file", s.path), zap.Error(err))
	}
	if err := s.salvage(known); err != nil {
		return fmt.Errorf("salvaging %s: %w", s.path, err)
	}
	s.mended++
	s.mending = ""
	return nil
}

// salvage puts a new file in the damaged one's place.
func (s *Store) salvage(known map[uint32]lane.Key) error {
	src, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	v, err := newSalvage(src, known)
	if err != nil {
		return err
	}
	if err := roomFor(s.dir, v.used()); err != nil {
		return err
	}
	if v.out, err = newBuilder(filepath.Join(s.dir, mendedName)); err != nil {
		return err
	}
	if err := v.run(); err != nil {
		v.out.abandon()
		return err
	}
	h, ix, err := v.out.finish()
	if err != nil {
		v.out.abandon()
		return err
	}
	aside, err := s.setAside()
	if err != nil {
		v.out.abandon()
		return err
	}
	if err := s.rename(mendedName); err != nil {
		_ = h.close() // the next start finds it
		return err
	}
	s.adopt(h, ix)
	s.countRepair()
	s.log.Error("the spool was damaged: it was set aside, and a new file has what could be read of it",
		zap.String("file", s.path), zap.String("damaged", aside), zap.Int("salvaged", v.salvaged),
		v.lostField(), zap.Int("nameless", v.nameless), zap.Int("places", v.places))
	return s.syncDir()
}

// lostField says how many messages are lost, as far as the states that are left tell.
func (v *salvage) lostField() zap.Field {
	if v.damagedAt[laneBucket] {
		return zap.String("lost", fmt.Sprintf("unknown, %d at least", v.lost))
	}
	return zap.Uint64("lost", v.lost)
}

// setAside renames the damaged file. The one that replaces it is complete and named in the directory by then.
func (s *Store) setAside() (name string, err error) {
	s.unsureDir = true
	if err := s.syncDir(); err != nil {
		return "", err
	}
	base := s.path + damagedName[len(fileName):] + time.Now().UTC().Format("20060102T150405Z")
	name = base
	for i := 2; exists(name); i++ {
		name = fmt.Sprintf("%s-%d", base, i)
	}
	return name, os.Rename(s.path, name)
}

// countRepair lets lanes know that the file may have an older state of them now.
func (s *Store) countRepair() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Repairs++
}
