package boltstore

import (
	"bytes"
	"sort"
)

// tree is a bucket as of some transaction: a tree of pages, or, if it is small, one page within its header.
type tree struct {
	pages  *pages
	root   uint64
	inline *page
}

// bucket returns the tree of a bucket in the root tree.
func (t tree) bucket(name string) (b tree, ok bool, err error) {
	err = t.ascend([]byte(name), func(k, v []byte, isBucket bool) (bool, error) {
		if string(k) != name {
			return false, nil
		}
		if !isBucket {
			return false, damaged("%s is not a bucket", name)
		}
		ok = true
		b, err = t.open(v)
		return false, err
	})
	return b, ok, err
}

// open returns the tree that a bucket's header describes: the root's page, a sequence, and if there is no such page
// the page itself.
func (t tree) open(header []byte) (tree, error) {
	const size = 16
	if len(header) < size {
		return tree{}, damaged("a bucket's header has %d bytes", len(header))
	}
	if root := order.Uint64(header); root != 0 {
		return tree{pages: t.pages, root: root}, nil
	}
	if len(header) < size+headerSize {
		return tree{}, damaged("a small bucket has %d bytes", len(header))
	}
	p, err := parsePage(header[size:])
	if err != nil {
		return tree{}, damaged("a small bucket: %v", err)
	}
	if !p.leaf {
		return tree{}, damaged("a small bucket has branches")
	}
	return tree{inline: p}, nil
}

// visit is called with each entry, in order. It returns false to end.
type visit func(k, v []byte, bucket bool) (bool, error)

// ascend visits the entries from a key on.
func (t tree) ascend(from []byte, f visit) error {
	w := walk{pages: t.pages, from: from, visit: f}
	return w.tree(t)
}

// walk visits the entries of a tree in order.
type walk struct {
	pages *pages
	from  []byte
	visit visit
	// lost, if set, is told about subtrees that are damaged, and the walk goes around them.
	lost func(error)
	// seen, if set, keeps a walk around damage from visiting a page twice.
	seen bitset
}

type bitset []uint64

func newBitset(size uint64) bitset { return make(bitset, size/64+1) }

// add returns false if the number was in already. Numbers beyond the size are not noted.
func (b bitset) add(n uint64) bool {
	if n/64 >= uint64(len(b)) {
		return true
	}
	was := b[n/64]
	b[n/64] |= 1 << (n % 64)
	return b[n/64] != was
}

func (w *walk) tree(t tree) error {
	if t.inline != nil {
		_, err := w.leaf(t.inline)
		return err
	}
	_, err := w.page(t.root, nil, nil, 0)
	if isDamage(err) && w.lost != nil {
		w.lost(err)
		return nil
	}
	return err
}

func (w *walk) page(id uint64, lo, hi []byte, depth int) (more bool, err error) {
	if depth == maxDepth {
		return false, damaged("the tree is too deep at page %d", id)
	}
	if w.seen != nil && !w.seen.add(id) {
		return false, damaged("page %d is in two places", id)
	}
	p, err := w.pages.read(id, lo, hi)
	if err != nil {
		return false, err
	}
	if p.leaf {
		return w.leaf(p)
	}
	for i := p.find(w.from); i < p.count; i++ {
		more, err := w.page(p.child(i), p.lower(i, lo), p.upper(i, hi), depth+1)
		if isDamage(err) && w.lost != nil {
			w.lost(err)
			more, err = true, nil
		}
		if !more || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (w *walk) leaf(p *page) (more bool, err error) {
	from := sort.Search(p.count, func(i int) bool { return bytes.Compare(p.key(i), w.from) >= 0 })
	for i := from; i < p.count; i++ {
		v, bucket := p.value(i)
		if more, err := w.visit(p.key(i), v, bucket); !more || err != nil {
			return false, err
		}
	}
	return true, nil
}

// find returns the child of a branch where a key is, if it is there.
func (p *page) find(key []byte) int {
	i := sort.Search(p.count, func(i int) bool { return bytes.Compare(p.key(i), key) > 0 })
	return max(i-1, 0)
}

// lower and upper bound the keys of a child: what is before a branch's first key belongs to its first child.
func (p *page) lower(i int, lo []byte) []byte {
	if i == 0 {
		return lo
	}
	return p.key(i)
}

func (p *page) upper(i int, hi []byte) []byte {
	if i+1 < p.count {
		return p.key(i + 1)
	}
	return hi
}

// check reads every page that bbolt will when it changes the given keys, which are in order. Deletions make it join
// a page with the one beside.
func (t tree) check(keys [][]byte, deletions bool) error {
	if t.inline != nil || len(keys) == 0 {
		return nil
	}
	c := checker{pages: t.pages, beside: deletions}
	return c.page(t.root, nil, nil, keys, 0)
}

type checker struct {
	pages  *pages
	beside bool
}

func (c *checker) page(id uint64, lo, hi []byte, keys [][]byte, depth int) error {
	if depth == maxDepth {
		return damaged("the tree is too deep at page %d", id)
	}
	p, err := c.pages.read(id, lo, hi)
	if err != nil || p.leaf {
		return err
	}
	touched, before := -2, 0 // the last child with a key, and how many keys are in children before it
	for before < len(keys) {
		i := p.find(keys[before])
		after := len(keys)
		if i+1 < p.count {
			next := p.key(i + 1)
			after = before + sort.Search(len(keys)-before, func(j int) bool { return bytes.Compare(keys[before+j], next) >= 0 })
		}
		if c.beside {
			if err := c.neighbours(p, i, touched, lo, hi); err != nil {
				return err
			}
		}
		err := c.page(p.child(i), p.lower(i, lo), p.upper(i, hi), keys[before:after], depth+1)
		if err != nil {
			return err
		}
		touched, before = i, after
	}
	return nil
}

// neighbours checks the children beside child i, but for one that was checked before.
func (c *checker) neighbours(p *page, i, touched int, lo, hi []byte) error {
	for _, j := range [2]int{i - 1, i + 1} {
		if j < 0 || j >= p.count || j == touched {
			continue
		}
		if _, err := c.pages.read(p.child(j), p.lower(j, lo), p.upper(j, hi)); err != nil {
			return err
		}
	}
	return nil
}
