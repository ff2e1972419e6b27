package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"bridged/internal/lane"
)

// Load implements lane.Store.
func (s *Store) Load() (lane.Contents, error) {
	s.writing.Lock()
	s.nothing = s.h == nil && s.lanes == nil && s.reopen != nil
	nothing := s.nothing
	s.writing.Unlock()
	if nothing {
		return lane.Contents{Notes: make(map[string][]byte)}, nil
	}
	var c lane.Contents
	err := s.view(func() error { return nil }, func(v snapshot) (err error) {
		c, err = load(v)
		return err
	})
	return c, err
}

func load(v snapshot) (lane.Contents, error) {
	c := lane.Contents{Notes: make(map[string][]byte)}
	at := make(map[uint32]int)
	err := v.ascend(laneBucket, nil, func(k, value []byte) (bool, error) {
		key, ok := parseLaneKey(k)
		r, okRow := parseRow(k, value)
		if !ok || !okRow {
			return false, wrongUnless(false, "a lane's state")
		}
		at[r.id] = len(c.Lanes)
		c.Lanes = append(c.Lanes, lane.Saved{Key: key, State: r.state})
		return true, nil
	})
	if err != nil {
		return lane.Contents{}, err
	}
	err = v.ascend(markBucket, nil, func(k, value []byte) (bool, error) {
		id, m, ok := parseMark(k, value)
		if i, known := at[id]; known {
			c.Lanes[i].Marks = append(c.Lanes[i].Marks, m)
		}
		return ok, wrongUnless(ok, "a mark")
	})
	if err != nil {
		return lane.Contents{}, err
	}
	err = v.ascend(noteBucket, nil, func(k, value []byte) (bool, error) {
		n, _, ok := parseNote(k, value)
		c.Notes[n.Name] = n.Value
		return ok, wrongUnless(ok, "a note")
	})
	return c, err
}

// Read implements lane.Store.
func (s *Store) Read(k lane.Key, from, before uint64, count int, bytes int64) ([]lane.Record, error) {
	var r *reading
	err := s.view(func() error {
		li := s.lanes[k]
		if li == nil || count <= 0 || from >= before {
			return errNothing
		}
		r = &reading{log: s.log, key: k, lane: li.id, count: count, bytes: bytes}
		i, _ := li.findRef(from)
		j, _ := li.findRef(before)
		r.refs = slices.Clone(li.refs[i:min(j, i+count)])
		return nil
	}, func(v snapshot) error { return r.read(v, from, before) })
	if errors.Is(err, errNothing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.records, nil
}

var errNothing = errors.New("nothing to read")

// view calls f with a snapshot of the file. What prepare copies from the index is as old as the snapshot or older. Both
// are called once more if the file turned out to be damaged, when it has been mended.
func (s *Store) view(prepare func() error, f func(snapshot) error) error {
	for again := false; ; again = true {
		h, err := s.viewOnce(prepare, f)
		if err == nil || errors.Is(err, errNothing) {
			return err
		}
		if !again {
			if err = s.recover(h, err); err == nil {
				continue
			}
		}
		return s.wrap("read", err)
	}
}

func (s *Store) wrap(what string, err error) error {
	if errors.Is(err, ErrClosed) {
		return ErrClosed
	}
	return fmt.Errorf("spool %s: %s: %w", s.path, what, err)
}

func (s *Store) viewOnce(prepare func() error, f func(snapshot) error) (*handle, error) {
	s.mu.RLock()
	h := s.h
	if h == nil {
		s.mu.RUnlock()
		return nil, errNotOpen
	}
	err := prepare()
	if err != nil {
		s.mu.RUnlock()
		return h, err
	}
	tx, err := h.begin(false)
	s.mu.RUnlock()
	if err != nil {
		return h, err
	}
	defer h.end(tx)
	return h, f(snapshotOf(h, tx))
}

// recover puts right what kept a reader from reading, unless somebody else did meanwhile.
func (s *Store) recover(h *handle, cause error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.h != h: // it was done
		return nil
	case isDamage(cause):
		return s.mend(cause)
	case s.reopen != nil:
		return s.ready()
	}
	return cause
}

// reading is a Read.
type reading struct {
	log   *zap.Logger
	key   lane.Key
	lane  uint32
	refs  []ref // in recent
	count int
	bytes int64

	recent  tree
	records []lane.Record
	done    bool

	// The message that is being read, by its number; begun until it is flushed, broken if a part of it is not right.
	at            uint64
	parts         assembly
	begun, broken bool
}

// read merges the two places where messages may be. A ref to a message that was moved in the meantime leads nowhere,
// and the message is in messages in the same snapshot.
func (r *reading) read(v snapshot, from, before uint64) (err error) {
	if r.recent, err = v.bucket(recentBucket); err != nil {
		return err
	}
	end := place{lane: r.lane, seq: before}.key()
	err = v.ascend(messageBucket, place{lane: r.lane, seq: from}.key(), func(k, value []byte) (bool, error) {
		if string(k) >= string(end) {
			return false, nil
		}
		p, ok := parsePlace(k)
		if !ok {
			return true, nil
		}
		if p.seq != r.at {
			r.flush()
			if err := r.readRefs(p.seq + 1); err != nil {
				return false, err
			}
		}
		r.add(p, value)
		return !r.done, nil
	})
	if err != nil {
		return err
	}
	r.flush()
	return r.readRefs(before)
}

// readRefs reads the recent messages before a number.
func (r *reading) readRefs(before uint64) error {
	for !r.done && len(r.refs) > 0 && r.refs[0].seq < before {
		f := r.refs[0]
		r.refs = r.refs[1:]
		err := r.recent.ascend(recentKey(f.at), func(k, value []byte, _ bool) (bool, error) {
			p, part, ok := cutPlace(value)
			n := binary.BigEndian.Uint64(k) - f.at
			if !ok || n >= uint64(f.parts) || p != (place{r.lane, f.seq, uint32(n)}) {
				return false, nil
			}
			r.add(p, part)
			return true, nil
		})
		if err != nil {
			return err
		}
		r.flush()
	}
	return nil
}

// add takes a part of a message. Those of one message come together and in order, if none is missing.
func (r *reading) add(p place, value []byte) {
	if r.done || len(r.records) > 0 && p.seq <= r.records[len(r.records)-1].Seq {
		return
	}
	if p.seq != r.at {
		r.at, r.parts, r.broken = p.seq, assembly{}, false
	}
	r.begun = true
	if p.part != r.parts.parts || !validPart(p, value) || r.parts.add(value) != nil {
		r.broken = true
	}
	if !r.broken && r.parts.complete() {
		r.flush()
	}
}

// flush returns the message that was read, if it is whole.
func (r *reading) flush() {
	if !r.begun {
		return
	}
	r.begun = false
	if r.broken || !r.parts.complete() {
		r.log.Error("a message in the spool is damaged and left out", zap.String("device", r.key.Device),
			zap.Stringer("direction", r.key.Direction), zap.Uint64("number", r.at))
		return
	}
	rec := r.parts.record()
	rec.Seq = r.at
	r.records = append(r.records, rec)
	r.bytes -= rec.Message.Size()
	r.done = len(r.records) == r.count || r.bytes <= 0
}
