package boltstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"go.uber.org/zap"
)

// start opens the file, at first and after an error. Writing is held.
func (s *Store) start() error {
	s.unsureFile, s.unsureDir = true, true // nobody knows how it ended the last time
	if err := s.leftovers(); err != nil {
		return s.orRead(explain(s.path, err))
	}
	h, ix, err := s.openFile()
	if s.nothing && (isDamage(err) || err == nil && ix.change > 0) {
		if h != nil {
			_ = h.close()
		}
		return explain(s.path, errAppeared)
	}
	if isDamage(err) {
		return s.mend(err)
	}
	if err != nil {
		return s.orRead(err)
	}
	s.adopt(h, ix)
	return nil
}

// orRead opens the file for reading, if err says that nothing can be written there. It returns err.
func (s *Store) orRead(err error) error {
	if !errors.Is(err, syscall.EROFS) {
		return err
	}
	f, rerr := os.Open(s.path)
	if rerr != nil {
		return err
	}
	ix, rerr := inspect(f)
	if rerr != nil {
		_ = f.Close()
		return err
	}
	if h, rerr := openBoltFor(f, true); rerr == nil {
		s.use(h, ix)
	}
	return err
}

// later says whether a failed start may be made up for with a later commit, which is refused until then: what is stored
// can be read, or there is nothing.
func (s *Store) later(err error) bool {
	if s.h != nil {
		return true
	}
	if !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return false
	}
	info, serr := os.Stat(s.path)
	nothing := errors.Is(serr, fs.ErrNotExist) || serr == nil && info.Mode().IsRegular() && info.Size() == 0
	return nothing && !exists(filepath.Join(s.dir, mendedName))
}

// adopt begins to use an open file.
func (s *Store) adopt(h *handle, ix index) {
	s.use(h, ix)
	s.reopen = nil
}

// leftovers finishes what an interrupted process left.
func (s *Store) leftovers() error {
	if left := filepath.Join(s.dir, newName); exists(left) {
		if err := os.Remove(left); err != nil {
			return err
		}
	}
	mended := filepath.Join(s.dir, mendedName)
	switch {
	case !exists(mended):
		return nil
	case exists(s.path): // the damaged file is still in its place, and will be mended again
		return os.Remove(mended)
	}
	return s.rename(mendedName)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// openFile opens the file, or makes it, and reads what is to be kept in memory. It returns a *damage if the file is
// damaged.
func (s *Store) openFile() (*handle, index, error) {
	info, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if s.lanes != nil {
			s.log.Error("the spool file is gone, beginning a new one", zap.String("file", s.path))
			s.countRepair()
		}
		return s.create()
	case err != nil:
		return nil, index{}, explain(s.path, err)
	case !info.Mode().IsRegular():
		return nil, index{}, fmt.Errorf("spool %s: is not a regular file; move it away", s.path)
	case info.Size() == 0:
		s.log.Error("the spool file is empty, which it never is unless it was cut off: beginning a new one",
			zap.String("file", s.path), zap.String("lost", "unknown"))
		return s.create()
	}
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return nil, index{}, explain(s.path, err)
	}
	ix, err := inspect(f)
	if err != nil {
		_ = f.Close()
		var newer *VersionError
		if errors.As(err, &newer) {
			newer.Path = s.path
			return nil, index{}, newer
		}
		if isDamage(err) {
			return nil, index{}, err
		}
		return nil, index{}, explain(s.path, err)
	}
	h, err := openBolt(f)
	if err != nil && !isDamage(err) {
		err = explain(s.path, err)
	}
	return h, ix, err
}

// create makes an empty file, under another name first: it is there as a whole or not at all.
func (s *Store) create() (*handle, index, error) {
	b, err := newBuilder(filepath.Join(s.dir, newName))
	if err != nil {
		return nil, index{}, explain(s.path, err)
	}
	h, ix, err := b.finish()
	if err == nil {
		err = s.rename(newName)
	}
	if err == nil {
		err = s.syncDir()
	}
	if err != nil {
		b.abandon()
		return nil, index{}, explain(s.path, err)
	}
	return h, ix, nil
}

// rename gives a finished file its place.
func (s *Store) rename(name string) error {
	s.unsureDir = true
	return os.Rename(filepath.Join(s.dir, name), s.path)
}

// syncDir makes sure that the file's name is on disk: a commit to a file that is not found after a power cut is lost.
func (s *Store) syncDir() error {
	if !s.unsureDir {
		return nil
	}
	if err := s.lock.Sync(); err != nil {
		return err
	}
	s.unsureDir = false
	return nil
}

// syncFile makes sure that the newest commit is on disk before the next one overwrites pages that only the one before
// needs. It may not be: the process may have been killed between writing and syncing it, or that sync failed. After a
// failed sync Linux takes the pages for clean, so that the next sync succeeds without writing them. Only the meta page
// can be missing, since the others were synced before it was written. So it is written again.
func (s *Store) syncFile() error {
	if !s.unsureFile {
		return nil
	}
	_, at, err := readMeta(s.h.r)
	if err != nil {
		return err
	}
	page := make([]byte, pageSize)
	if _, err := s.h.r.ReadAt(page, at*pageSize); err != nil {
		return &damage{what: "a meta page cannot be read", err: err}
	}
	if _, err := s.h.f.WriteAt(page, at*pageSize); err != nil {
		return err
	}
	if err := s.h.f.Sync(); err != nil {
		return err
	}
	s.unsureFile = false
	return nil
}

// inspect reads a file's frame and all that is kept in memory of it. It changes nothing.
func inspect(f *os.File) (index, error) {
	r := newPatient(f)
	m, _, err := readMeta(r)
	if err != nil {
		return index{}, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return index{}, err
	}
	// Bbolt does not notice, and would fault on what is missing.
	if m.end > uint64(size)/pageSize {
		return index{}, damaged("the file was cut off: %d bytes instead of %d", size, m.end*pageSize)
	}
	p := &pages{r: r, end: m.end}
	v := snapshot{pages: p, root: tree{pages: p, root: m.root}}
	if err := checkVersion(v); err != nil {
		return index{}, err
	}
	if err := p.checkFreelist(m.freelist); err != nil {
		return index{}, err
	}
	return readIndex(v)
}

func checkVersion(v snapshot) error {
	found := false
	err := v.ascend(metaBucket, versionKey, func(k, value []byte) (bool, error) {
		if string(k) != string(versionKey) {
			return false, nil
		}
		found = true
		version, ok := parseVersion(value)
		if !ok {
			return false, damaged("the format's version cannot be read")
		}
		if version > formatVersion {
			return false, &VersionError{What: "spool format", Version: version, Known: formatVersion}
		}
		return false, nil
	})
	if err == nil && !found {
		err = damaged("the format's version is missing")
	}
	return err
}

// errAppeared means that there is a file with contents which Load has not returned, as when another file system was
// mounted there.
var errAppeared = errors.New("was not there when bridged started; start it again")

// errNotOpen means that an earlier error left no file open.
var errNotOpen = errors.New("the spool is not open")

// ready makes sure that the file is open, after whatever happened before.
func (s *Store) ready() error {
	if s.closed {
		return ErrClosed
	}
	if s.reopen == nil {
		return nil
	}
	if err := s.checkDir(); err != nil {
		return err
	}
	if s.h != nil && s.h.reading { // and remains so as long as it cannot be written
		f, err := os.OpenFile(s.path, os.O_RDWR, 0)
		if err != nil {
			return explain(s.path, err)
		}
		_ = f.Close()
	}
	// Bbolt may be at odds with the file after an error: without a mapping, or taking a commit for made whose sync
	// failed. It begins anew.
	if err := s.leave(); err != nil {
		s.log.Warn("closing the spool file failed", zap.String("file", s.path), zap.Error(err))
	}
	return s.start()
}
