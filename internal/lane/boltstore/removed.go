package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

var (
	// errRemoved means that the open file is not the one of its name: what is committed to it would not be found.
	errRemoved = errors.New("the spool file was removed or replaced while it was in use")
	// errMoved is the same for the directory. The one that is there now is not locked.
	errMoved = errors.New("was removed or replaced while it was in use; start bridged again")
)

// checkPlace makes sure that the open file is still in its place. If it is not, the next commit goes on with what is
// there instead.
func (s *Store) checkPlace() error {
	used, err := s.h.f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(s.path)
	switch {
	case err == nil && os.SameFile(used, there):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	s.countRepair() // lanes write their states again
	return errRemoved
}

// checkDir makes sure that the directory is still the one that is locked.
func (s *Store) checkDir() error {
	used, err := s.lock.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(s.dir); err != nil || !os.SameFile(used, there) {
		return fmt.Errorf("%s %w", s.dir, errMoved)
	}
	return nil
}
