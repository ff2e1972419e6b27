package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"bridged/internal/lane"
)

// mendMost is how often in a row a file is mended without a commit between: if it cannot be used then, something else is
// wrong, and more copies only fill the disk.
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
	if s.mended++; s.mended > mendMost {
		return fmt.Errorf("%s is damaged again right after it was mended: %s", s.path, cause)
	}
	s.log.Error("the spool file is damaged, salvaging what can be read", fields...)
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
	s.mu.Lock()
	s.stats.Repairs++
	s.mu.Unlock()
	s.log.Error("the spool was damaged: it was set aside, and a new file has what could be read of it",
		zap.String("file", s.path), zap.String("damaged", aside), zap.Int("salvaged", v.salvaged),
		zap.Uint64("lost", v.lost), zap.Int("nameless", v.nameless), zap.Int("places", v.places))
	return s.syncDir()
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

// salvage reads a damaged file and fills a new one.
//
// It walks the trees from the newest meta page and goes around what is damaged. For what was lost that way it searches
// all pages, also those that are not in use any more, for values that prove by their checksums to be what they are: a
// bbolt file has many older copies of its pages. Older copies of states are used for lanes without a newer one. Of the
// messages, those are taken that a lane still needs by its state and that were not found by the walk.
type salvage struct {
	src  io.ReaderAt
	size int64
	out  *builder

	meta  boltMeta
	pages *pages
	root  bool // there is a meta page, and what its trees say is true

	names map[uint32]lane.Key
	rows  map[uint32]*foundRow
	notes map[string]uint64 // the newest change of each

	damagedAt [buckets]bool
	places    int // that are damaged
	salvaged  int // messages
	lost      uint64
	nameless  int // messages of unknown lanes
	stray     map[place]bool
}

// foundRow is a lane's state, and what there is of its messages.
type foundRow struct {
	row
	sure   bool // it is the newest: the walk found it
	known  bool // there is a state
	have   int
	bytes  int64
	lowest uint64
	high   uint64
	oldest time.Time
}

func newSalvage(src *os.File, known map[uint32]lane.Key) (*salvage, error) {
	size, err := src.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	v := &salvage{
		src: src, size: size, names: known, rows: make(map[uint32]*foundRow), notes: make(map[string]uint64),
		stray: make(map[place]bool),
	}
	v.pages = &pages{r: src, end: uint64(size) / pageSize}
	if m, _, err := readMeta(src); err == nil {
		v.meta, v.root = m, true
		v.pages.end = min(v.pages.end, m.end)
	}
	return v, nil
}

// used is about how much the new file may take.
func (v *salvage) used() int64 {
	if v.root && v.pages.checkFreelist(v.meta.freelist) == nil {
		head := make([]byte, headerSize+8)
		if _, err := v.src.ReadAt(head, int64(v.meta.freelist)*pageSize); err == nil {
			free := uint64(order.Uint16(head[10:]))
			if free == 0xFFFF {
				free = order.Uint64(head[headerSize:])
			}
			return int64(v.pages.end-min(free, v.pages.end)) * pageSize
		}
	}
	return v.size
}

func (v *salvage) run() error {
	trees := v.buckets()
	steps := []struct {
		bucket int
		take   func(k, value []byte) error
	}{
		{metaBucket, v.takeName}, {laneBucket, v.takeRow}, {markBucket, v.takeMark}, {noteBucket, v.takeNote},
	}
	for _, s := range steps {
		if err := v.walk(s.bucket, trees[s.bucket], s.take); err != nil {
			return err
		}
	}
	if v.damagedAt[metaBucket] || v.damagedAt[laneBucket] || v.damagedAt[noteBucket] {
		if err := v.scan(v.takeOldRow); err != nil {
			return err
		}
	}
	for _, n := range []int{messageBucket, recentBucket} {
		if err := v.walk(n, trees[n], v.takeMessage); err != nil {
			return err
		}
	}
	if err := v.tally(); err != nil {
		return err
	}
	if v.missing() {
		if err := v.scan(v.takeOldMessage); err != nil {
			return err
		}
		if err := v.tally(); err != nil {
			return err
		}
	}
	return v.settle()
}

// buckets finds the trees of the buckets.
func (v *salvage) buckets() (trees [buckets]*tree) {
	if !v.root {
		for n := range v.damagedAt {
			v.damagedAt[n] = true
		}
		v.places++
		return trees
	}
	root := tree{pages: v.pages, root: v.meta.root}
	whole := true
	w := walk{pages: v.pages, seen: newBitset(v.pages.end), lost: func(error) { whole = false; v.places++ }}
	w.visit = func(k, header []byte, _ bool) (bool, error) {
		for n, name := range bucketNames {
			if name != string(k) {
				continue
			}
			if t, err := root.open(header); err == nil {
				trees[n] = &t
			}
		}
		return true, nil
	}
	_ = w.tree(root) // errors are damage, and were counted
	for n := range trees {
		v.damagedAt[n] = trees[n] == nil && (!whole || n != recentBucket)
	}
	return trees
}

// walk takes what can be reached of a bucket.
func (v *salvage) walk(n int, t *tree, take func(k, value []byte) error) error {
	if t == nil {
		return nil
	}
	w := walk{pages: v.pages, seen: newBitset(v.pages.end)}
	w.lost = func(error) { v.damagedAt[n] = true; v.places++ }
	w.visit = func(k, value []byte, _ bool) (bool, error) {
		err := take(k, value)
		if isDamage(err) {
			v.damagedAt[n] = true
			v.places++
			err = nil
		}
		return true, err
	}
	return w.tree(*t)
}

// scan takes what is found in any page that looks like a leaf. In a page with wrong elements the others may be right.
func (v *salvage) scan(take func(k, value []byte) error) error {
	const chunk = 256
	buf := make([]byte, chunk*pageSize)
	for at := int64(0); at < v.size; at += int64(len(buf)) {
		n, err := v.src.ReadAt(buf[:min(int64(len(buf)), v.size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			n = v.readAround(buf[:min(int64(len(buf)), v.size-at)], at)
		}
		for i := 0; i+headerSize <= n; i += pageSize {
			// A copy, since what is put must stay as it is.
			if data := v.leafAt(buf[i:min(i+pageSize, n)], at+int64(i)); data != nil {
				if err := takeLeaf(data, take); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// readAround reads a chunk page by page, with zeros for what cannot be read.
func (v *salvage) readAround(buf []byte, at int64) int {
	clear(buf)
	for i := 0; i < len(buf); i += pageSize {
		p := buf[i:min(i+pageSize, len(buf))]
		if _, err := v.src.ReadAt(p, at+int64(i)); err != nil && !errors.Is(err, io.EOF) {
			clear(p)
		}
	}
	return len(buf)
}

// leafAt returns a copy of a page if it looks like a leaf, with those that it overflows to.
func (v *salvage) leafAt(head []byte, at int64) []byte {
	overflow := order.Uint32(head[12:])
	if order.Uint16(head[8:]) != leafFlag || overflow >= maxRun {
		return nil
	}
	data := make([]byte, min(int64(overflow+1)*pageSize, v.size-at))
	if overflow == 0 {
		return data[:copy(data, head)]
	}
	n, _ := v.src.ReadAt(data, at)
	return data[:n]
}

// takeLeaf takes what lies within a page.
func takeLeaf(data []byte, take func(k, value []byte) error) error {
	p := &page{leaf: true, data: data, count: int(order.Uint16(data[10:]))}
	p.count = min(p.count, (len(data)-headerSize)/elemSize)
	for i := range p.count {
		if !framed(data, true, i, 0) || len(p.key(i)) == 0 {
			continue
		}
		value, bucket := p.value(i)
		if bucket {
			if inner := value; len(inner) >= 2*headerSize && order.Uint64(inner) == 0 {
				// A small bucket is a page within its header.
				if err := takeLeaf(inner[16:], take); err != nil {
					return err
				}
			}
			continue
		}
		if err := take(p.key(i), value); err != nil && !isDamage(err) {
			return err
		}
	}
	return nil
}

func (v *salvage) takeName(k, value []byte) error {
	if string(k) == string(versionKey) {
		return nil
	}
	id, key, ok := parseName(k, value)
	if !ok {
		return wrongUnless(false, "a lane's name")
	}
	v.names[id] = key
	return nil
}

func (v *salvage) takeRow(k, value []byte) error {
	key, ok := parseLaneKey(k)
	r, okRow := parseRow(k, value)
	if !ok || !okRow {
		return wrongUnless(false, "a lane's state")
	}
	v.names[r.id] = key
	v.rows[r.id] = &foundRow{row: r, sure: true, known: true}
	return nil
}

func (v *salvage) takeMark(k, value []byte) error {
	if _, _, ok := parseMark(k, value); !ok {
		return wrongUnless(false, "a mark")
	}
	return v.out.put(markBucket, k, value)
}

func (v *salvage) takeNote(k, value []byte) error {
	n, change, ok := parseNote(k, value)
	if !ok {
		return wrongUnless(false, "a note")
	}
	if newest, have := v.notes[n.Name]; have && newest >= change {
		return nil
	}
	v.notes[n.Name] = change
	return v.out.put(noteBucket, k, value)
}

// takeOldRow takes names, and states and notes for which there is no newer one. Not marks: one that is not true any more
// would make a device's new message pass for one that came before.
func (v *salvage) takeOldRow(k, value []byte) error {
	if len(value) == 0 {
		return nil
	}
	switch value[0] {
	case kindName:
		if id, key, ok := parseName(k, value); ok && v.names[id].Device == "" {
			v.names[id] = key
		}
	case kindNote:
		if v.damagedAt[noteBucket] {
			return v.takeNote(k, value)
		}
	case kindState:
		key, okKey := parseLaneKey(k)
		r, ok := parseRow(k, value)
		if !okKey || !ok {
			return nil
		}
		v.names[r.id] = key
		if old := v.rows[r.id]; old == nil || !old.sure && old.change < r.change {
			v.rows[r.id] = &foundRow{row: r, known: true}
		}
	}
	return nil
}

// part recognises a part of a message in either bucket.
func part(k, value []byte) (p place, p1 []byte, ok bool) {
	if len(k) == 8 {
		p, value, ok = cutPlace(value)
	} else {
		p, ok = parsePlace(k)
	}
	return p, value, ok && validPart(p, value)
}

func (v *salvage) takeMessage(k, value []byte) error {
	p, value, ok := part(k, value)
	if !ok {
		return wrongUnless(false, "a message")
	}
	r := v.rowOf(p)
	if r == nil || r.known && p.seq < r.state.Head {
		return nil
	}
	return v.out.put(messageBucket, p.key(), value)
}

// takeOldMessage takes what a lane lacks. Some of it may have been dropped or delivered: better twice than lost.
func (v *salvage) takeOldMessage(k, value []byte) error {
	p, value, ok := part(k, value)
	if !ok {
		return nil
	}
	r := v.rowOf(p)
	switch {
	case r == nil, r.known && p.seq < r.state.Head:
		return nil
	case r.sure && (r.have >= r.state.Queued || p.seq >= r.state.Next), !r.sure && !v.holes():
		return nil
	}
	return v.out.put(messageBucket, p.key(), value)
}

// rowOf returns what is known of a message's lane, nil if nobody knows whose it is.
func (v *salvage) rowOf(p place) *foundRow {
	if r := v.rows[p.lane]; r != nil {
		return r
	}
	if _, ok := v.names[p.lane]; !ok {
		if p.part == 0 && !v.stray[p] {
			v.nameless++
			if len(v.stray) < 1<<16 { // beyond, they are counted as often as they are seen
				v.stray[p] = true
			}
		}
		return nil
	}
	r := &foundRow{row: row{id: p.lane}}
	v.rows[p.lane] = r
	return r
}

// holes says whether messages may be missing since the way to them is.
func (v *salvage) holes() bool { return v.damagedAt[messageBucket] || v.damagedAt[recentBucket] }

// missing says whether a search may find more.
func (v *salvage) missing() bool {
	for _, r := range v.rows {
		if r.sure && r.have < r.state.Queued {
			return true
		}
	}
	return v.holes()
}

// tally counts what was put, and removes parts without the rest.
func (v *salvage) tally() error {
	for _, r := range v.rows {
		r.have, r.bytes, r.lowest, r.high, r.oldest = 0, 0, 0, 0, time.Time{}
	}
	s, err := v.out.read()
	if err != nil {
		return err
	}
	t := tallying{v: v}
	err = s.ascend(messageBucket, nil, func(k, value []byte) (bool, error) {
		p, ok := parsePlace(k)
		if !ok {
			return false, fmt.Errorf("a new file has a key %x", k)
		}
		if p.lane != t.at.lane || p.seq != t.at.seq {
			t.flush()
			t.at = place{lane: p.lane, seq: p.seq}
		}
		t.keys = append(t.keys, k)
		if p.part != t.parts.parts || t.parts.add(value) != nil {
			t.broken = true
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	t.flush()
	for _, k := range t.remove {
		if err := v.out.remove(messageBucket, k); err != nil {
			return err
		}
	}
	return nil
}

// tallying looks at one message after the other.
type tallying struct {
	v      *salvage
	at     place
	keys   [][]byte
	parts  assembly
	broken bool
	remove [][]byte
}

func (t *tallying) flush() {
	keys, parts, broken := t.keys, t.parts, t.broken
	t.keys, t.parts, t.broken = nil, assembly{}, false
	switch {
	case len(keys) == 0:
		return
	case broken || !parts.complete():
		t.remove = append(t.remove, keys...)
		return
	}
	r := t.v.rows[t.at.lane]
	if r.have == 0 {
		r.lowest, r.oldest = t.at.seq, parts.at
	}
	r.have++
	r.bytes += parts.size()
	r.high = t.at.seq
}

// settle writes names and states that are true of what the new file has.
func (v *salvage) settle() error {
	var change uint64
	for _, r := range v.rows {
		change = max(change, r.change)
	}
	for _, c := range v.notes {
		change = max(change, c)
	}
	for id, r := range v.rows {
		key := v.names[id] // rowOf and takeRow made sure that there is one
		if !r.known && r.have == 0 {
			continue
		}
		if err := v.out.put(metaBucket, nameKey(id), nameRow(id, key)); err != nil {
			return err
		}
		v.salvaged += r.have
		v.lost += r.settle()
		r.change = change + 1
		k := laneKey(key)
		if err := v.out.put(laneBucket, k, r.encode(k)); err != nil {
			return err
		}
	}
	return v.dropMarks()
}

// settle makes a state true, and returns how many messages are missing.
func (r *foundRow) settle() (lost uint64) {
	st := &r.state
	switch n := st.Queued - r.have; {
	case n > 0:
		lost = uint64(n)
		st.Dropped[lane.Damaged] += lost
	default: // the state is older than its messages, or there is none
		st.Accepted += uint64(-n)
	}
	st.Queued, st.Bytes, st.Oldest = r.have, r.bytes, r.oldest
	if r.have > 0 {
		st.Next = max(st.Next, r.high+1)
		st.Head = r.lowest
	} else {
		st.Head = st.Next
	}
	if !r.sure { // any of them may have been delivered before
		st.Sent = max(st.Sent, r.high)
	}
	return lost
}

// dropMarks removes marks of lanes that nobody knows.
func (v *salvage) dropMarks() error {
	s, err := v.out.read()
	if err != nil {
		return err
	}
	var keys [][]byte
	err = s.ascend(markBucket, nil, func(k, _ []byte) (bool, error) {
		if r := v.rows[binary.BigEndian.Uint32(k)]; r == nil || !r.known && r.have == 0 {
			keys = append(keys, k)
		}
		return true, nil
	})
	for _, k := range keys {
		if err := v.out.remove(markBucket, k); err != nil {
			return err
		}
	}
	return err
}
