package boltstore

import (
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// buildBytes is what a builder commits together. It bounds its memory.
const buildBytes = 4 << 20

// builder fills a new file. Nothing is on disk before it is finished.
type builder struct {
	path string
	h    *handle
	tx   *bbolt.Tx
	in   [buckets]*bbolt.Bucket
	size int64
}

func newBuilder(path string) (*builder, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	b := &builder{path: path}
	if b.h, err = openBolt(f); err != nil {
		_ = os.Remove(path)
		return nil, notDamage(err)
	}
	b.h.db.NoSync = true
	err = b.do(func() error {
		if err := b.begin(); err != nil {
			return err
		}
		return b.in[metaBucket].Put(versionKey, versionRow())
	})
	if err != nil {
		b.abandon()
		return nil, err
	}
	return b, nil
}

// do guards bbolt. What is wrong with a file in the making is not damage to the spool.
func (b *builder) do(f func() error) error { return notDamage(guard(f)) }

func notDamage(err error) error {
	if isDamage(err) {
		return fmt.Errorf("a new file cannot be read back: %s", err.Error()) // not as damage
	}
	return err
}

func (b *builder) begin() (err error) {
	if b.tx, err = b.h.db.Begin(true); err != nil {
		return err
	}
	for n, name := range bucketNames {
		if n == recentBucket {
			continue
		}
		if b.in[n], err = b.tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
		b.in[n].FillPercent = 1
	}
	return nil
}

// put adds an entry. Key and value must stay as they are.
func (b *builder) put(bucket int, key, value []byte) error {
	return b.do(func() error {
		if err := b.in[bucket].Put(key, value); err != nil {
			return err
		}
		if b.size += entrySize(key, value); b.size < buildBytes {
			return nil
		}
		return b.flush()
	})
}

func (b *builder) remove(bucket int, key []byte) error {
	return b.do(func() error { return b.in[bucket].Delete(key) })
}

// flush commits and goes on.
func (b *builder) flush() error {
	err := b.tx.Commit()
	b.tx, b.size = nil, 0
	if err != nil {
		return typed(err)
	}
	return b.begin()
}

// read returns what has been put so far.
func (b *builder) read() (v snapshot, err error) {
	err = b.do(func() error {
		if err := b.flush(); err != nil {
			return err
		}
		m, _, err := readMeta(b.h.r)
		p := &pages{r: b.h.r, end: m.end}
		v = snapshot{pages: p, root: tree{pages: p, root: m.root}}
		return err
	})
	return v, err
}

// finish brings the file to the disk, whole, and opens it for use.
func (b *builder) finish() (*handle, index, error) {
	err := b.do(func() error {
		err := b.tx.Commit()
		b.tx = nil
		if err != nil {
			return typed(err)
		}
		b.h.db.NoSync = false
		return b.h.f.Sync()
	})
	if err != nil {
		return nil, index{}, err
	}
	ix, err := inspect(b.h.f)
	return b.h, ix, notDamage(err)
}

// abandon removes the file.
func (b *builder) abandon() {
	if b.tx != nil {
		b.h.end(b.tx)
	}
	_ = b.h.close()
	_ = os.Remove(b.path) // or it is removed at the next start
}
