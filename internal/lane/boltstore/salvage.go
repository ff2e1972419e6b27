package boltstore

import (
	"io"
	"os"
	"time"

	"bridged/internal/lane"
)

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
	r := newPatient(src)
	v := &salvage{
		src: r, size: size, names: known, rows: make(map[uint32]*foundRow), notes: make(map[string]uint64),
		stray: make(map[place]bool),
	}
	v.pages = &pages{r: r, end: uint64(size) / pageSize}
	if m, _, err := readMeta(r); err == nil {
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
