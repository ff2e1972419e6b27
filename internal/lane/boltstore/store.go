package boltstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"go.uber.org/zap"

	"bridged/internal/lane"
)

const (
	fileName = "spool.db"
	// newName is a file in the making. What is left of it is removed at the start.
	newName = fileName + ".new"
	// mendedName is what was salvaged, complete. It takes the damaged file's place, also at the start.
	mendedName = fileName + ".mended"
	// damagedName is followed by the time.
	damagedName = fileName + ".damaged-"
)

// Options are for Open. The zero value is usable.
type Options struct {
	Log *zap.Logger // nil: nothing is logged
}

// limits are constants but in tests.
type limits struct {
	// recentMin and recentMax bound recent, in bytes. Between them it may have recentLane for each lane in it.
	recentMin, recentMax, recentLane int64
	// recentEntries bounds what the index of recent takes in memory.
	recentEntries int
	// direct is from how many bytes on what a lane puts at once goes to messages directly.
	direct int64
	// purge is how many delivered messages of a lane are deleted together, purgeMost how many entries in one commit.
	purge     uint64
	purgeMost int
	// compact is the size from which a file is compacted when more than three quarters of it are free, and copyMost
	// what may be in use of it if that happens while the store is in use: commits wait for it.
	compact, copyMost int64
}

var defaults = limits{
	recentMin: 512 << 10, recentMax: 4 << 20, recentLane: 8 << 10, recentEntries: 16 << 10,
	direct: pageSize,
	purge:  64, purgeMost: 4 << 10,
	compact: 16 << 20, copyMost: 64 << 20,
}

// Store implements lane.Store.
type Store struct {
	dir, path string
	log       *zap.Logger
	lim       limits
	lock      *os.File // the directory

	// writing is held by whoever changes the file or its name. It protects the fields up to mu.
	writing sync.Mutex
	closed  bool
	// reopen is why the file must be opened again before the next commit.
	reopen error
	// nothing says that there was no file, and none could be made, when Load was called.
	nothing bool
	// unsure says that what is read may not be on disk yet: the file's newest commit, or its name in the directory.
	unsureFile, unsureDir bool
	// mended counts how often the file was salvaged since the last commit.
	mended int
	// mending is the damage that was told of last and is not mended yet.
	mending string
	index

	// mu protects the fields below, and of the index what readers need: lanes and all that is in them. Whoever changes
	// that holds writing as well.
	mu    sync.RWMutex
	h     *handle // nil if there is none now
	stats Stats
}

// Stats are figures about the store.
type Stats struct {
	// Size is the length of the part of the file that was ever in use, Free what of it is not in use now, in bytes.
	Size, Free int64
	// Commits counts transactions, and Put the bytes of the messages in them, since the start.
	Commits, Put uint64
	// Moves counts how often recent messages were moved to their lanes, Compactions and Repairs count the new files.
	Moves, Compactions, Repairs uint64
}

var _ lane.Store = (*Store)(nil)

// Open opens the spool in a directory and locks it. It makes the file if there is none, and mends it if it is
// damaged, which it logs. It returns ErrLocked if the spool is in use, and a *VersionError if the file is newer than
// this program. Where nothing can be written it reads what there is, if anything, and commits fail until something can.
func Open(dir string, opt Options) (*Store, error) { return open(dir, opt, defaults) }

func open(dir string, opt Options, lim limits) (*Store, error) {
	s := &Store{dir: dir, path: filepath.Join(dir, fileName), log: opt.Log, lim: lim}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if err := s.lockDir(); err != nil {
		return nil, err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.start(); err != nil {
		if !s.later(err) {
			_ = s.lock.Close()
			return nil, err
		}
		s.reopen = err
		s.log.Error("messages cannot be stored on disk since the spool file cannot be written", zap.Error(err))
		return s, nil
	}
	if !s.mostlyFree() {
		return s, nil
	}
	err := s.compact()
	if isDamage(err) {
		if err := s.mend(err); err != nil {
			_ = s.lock.Close()
			return nil, err
		}
	}
	return s, nil
}

// lockDir keeps other processes away. It is the directory that is locked since the file comes and goes.
func (s *Store) lockDir() error {
	f, err := os.Open(s.dir)
	if err != nil {
		return explain(s.dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		_ = f.Close()
		return fmt.Errorf("spool %s: %w; stop it first", s.path, ErrLocked)
	}
	if err != nil {
		// Some network file systems lock no directories. Then bbolt's lock of the file has to do.
		s.log.Debug("the spool's directory cannot be locked", zap.String("dir", s.dir), zap.Error(err))
	}
	s.lock = f
	return nil
}

// Close waits for calls of other methods to end. Later ones fail.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.leave()
	if cerr := s.lock.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("spool %s: %w", s.path, err)
	}
	return nil
}

// leave closes the file, if it is open.
func (s *Store) leave() error {
	h := s.use(nil, s.index)
	if h == nil {
		return nil
	}
	return h.close()
}

// use puts a file in place and returns the one that was there. Readers may still be busy with it.
func (s *Store) use(h *handle, ix index) (old *handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, s.h, s.index = s.h, h, ix
	if h != nil {
		s.measureLocked()
	}
	return old
}

// measureLocked takes the figures that cost something to ask bbolt for.
func (s *Store) measureLocked() {
	st := s.h.db.Stats()
	s.stats.Free = int64(st.FreePageN+st.PendingPageN) * pageSize
	if m, _, err := readMeta(s.h.r); err == nil {
		s.stats.Size = int64(m.end) * pageSize
	}
}

// Stats returns figures as of the last commit.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.stats
}

// Repairs implements lane.Store.
func (s *Store) Repairs() uint64 { return s.Stats().Repairs }
