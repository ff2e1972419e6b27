package boltstore

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// The buckets.
const (
	metaBucket = iota
	laneBucket
	messageBucket
	markBucket
	noteBucket
	recentBucket // deleted as a whole, and made anew when it is needed
	buckets
)

var bucketNames = [buckets]string{"meta", "lanes", "messages", "marks", "notes", "recent"}

// handle is an open file. Bbolt writes it, we read it.
type handle struct {
	db *bbolt.DB
	f  *os.File // bbolt's own
	r  *patient // reads f
	// reading says that the file system is mounted for reading only.
	reading bool
	// stuck says that bbolt panicked while it held one of its locks.
	stuck atomic.Bool
}

// openBolt hands a file to bbolt, which owns it from now on. Its frame must have been checked, or it must be empty.
func openBolt(f *os.File) (*handle, error) { return openBoltFor(f, false) }

func openBoltFor(f *os.File, reading bool) (*handle, error) {
	h := &handle{f: f, r: newPatient(f), reading: reading}
	err := guard(func() (err error) {
		h.db, err = bbolt.Open(f.Name(), 0o600, &bbolt.Options{
			// A lock that is held is not waited for. What holds it must be somebody's tool: the directory is ours.
			Timeout:  time.Millisecond,
			ReadOnly: reading,
			PageSize: pageSize,
			// The list of free pages is written with each commit. Without it every page would be read at the start,
			// and after every commit that fails, by a goroutine of bbolt's whose panics nobody can recover.
			NoFreelistSync: false,
			// With this type single pages, which are all that we need but for the list itself, are taken from the
			// front of the file and in order.
			FreelistType: bbolt.FreelistArrayType,
			OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return f, nil },
		})
		return err
	})
	if err != nil {
		_ = f.Close()
		if errors.Is(err, berrors.ErrTimeout) {
			return nil, fmt.Errorf("%w: %s is locked", ErrLocked, f.Name())
		}
		return nil, typed(err)
	}
	return h, nil
}

// guard calls bbolt. A panic, or a fault in the mapped file, becomes an error that says that the file is damaged.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &damage{what: fmt.Sprintf("bbolt panicked: %v", p), stack: debug.Stack()}
		}
	}()
	return f()
}

// begin begins a transaction.
func (h *handle) begin(writable bool) (tx *bbolt.Tx, err error) {
	// Bbolt reads the mapped meta pages under a lock that it would keep if that failed. So it is tried here first.
	if _, _, err := readMeta(h.r); err != nil {
		return nil, err
	}
	err = guard(func() (err error) {
		tx, err = h.db.Begin(writable)
		return err
	})
	if isDamage(err) {
		h.stuck.Store(true)
	}
	return tx, err
}

// end ends a transaction that was not committed.
func (h *handle) end(tx *bbolt.Tx) {
	if isDamage(guard(tx.Rollback)) {
		h.stuck.Store(true)
	}
}

// close waits for transactions.
func (h *handle) close() error {
	if h.stuck.Load() {
		// Closing would wait for the locks for ever. So the mapping stays. It would keep the file locked.
		return errors.Join(syscall.Flock(int(h.f.Fd()), syscall.LOCK_UN), h.f.Close())
	}
	return guard(h.db.Close)
}

// snapshot is the file as a transaction sees it.
type snapshot struct {
	pages *pages
	root  tree
}

func snapshotOf(h *handle, tx *bbolt.Tx) snapshot {
	p := &pages{r: h.r, end: uint64(tx.Size() / pageSize)}
	return snapshot{pages: p, root: tree{pages: p, root: uint64(tx.Cursor().Bucket().RootPage())}}
}

// bucket returns a bucket's tree.
func (s snapshot) bucket(n int) (tree, error) {
	t, ok, err := s.root.bucket(bucketNames[n])
	switch {
	case err != nil:
		return tree{}, err
	case !ok && n == recentBucket:
		return tree{inline: &page{leaf: true}}, nil
	case !ok:
		return tree{}, damaged("bucket %s is missing", bucketNames[n])
	}
	return t, nil
}

// ascend visits a bucket's entries from a key on.
func (s snapshot) ascend(n int, from []byte, f func(k, v []byte) (bool, error)) error {
	t, err := s.bucket(n)
	if err != nil {
		return err
	}
	return t.ascend(from, func(k, v []byte, bucket bool) (bool, error) {
		if bucket {
			return false, damaged("bucket %s has a bucket in it", bucketNames[n])
		}
		return f(k, v)
	})
}
