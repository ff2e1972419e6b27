package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The layout of bbolt's pages, which are in the byte order of the machine: a header of identifier (8 bytes), flags (2),
// count (2) and overflow (4), then an element for each entry, then keys and values.
const (
	pageSize   = 4096 // of all our files, whatever the machine's is, so that a file can be read elsewhere
	headerSize = 16
	elemSize   = 16 // of leaf and branch pages alike

	branchFlag   = 0x01
	leafFlag     = 0x02
	metaFlag     = 0x04
	freelistFlag = 0x10

	bucketFlag = 0x01 // of a leaf element: the value is a bucket's header

	metaSize    = 64
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	// maxRun bounds the pages that one node may take. Ours take one, but for long names and notes.
	maxRun = 16 << 20 / pageSize
	// maxDepth bounds the levels of a tree: pages that point at each other must not be followed for ever.
	maxDepth = 24
)

var order = binary.NativeEndian

// damage is something in the file that cannot be what was written.
type damage struct {
	what  string
	err   error  // of reading, if that failed
	stack []byte // of bbolt, if it panicked
}

func (d *damage) Error() string {
	if d.err != nil {
		return d.what + ": " + d.err.Error()
	}
	return d.what
}

func (d *damage) Unwrap() error { return d.err }

func damaged(format string, args ...any) error { return &damage{what: fmt.Sprintf(format, args...)} }

func isDamage(err error) bool {
	var d *damage
	return errors.As(err, &d)
}

// boltMeta is what one of a file's two first pages says; the newer valid one counts.
type boltMeta struct {
	root     uint64
	freelist uint64
	end      uint64 // the number of pages that were ever in use
	txid     uint64
}

// parseMeta returns what a meta page says, or why it says nothing.
func parseMeta(page []byte) (boltMeta, error) {
	b := page[headerSize:]
	if order.Uint32(b) != boltMagic {
		return boltMeta{}, damaged("a meta page has no magic number")
	}
	sum := fnv.New64a()
	_, _ = sum.Write(b[:56])
	if sum.Sum64() != order.Uint64(b[56:]) {
		return boltMeta{}, damaged("a meta page has a wrong checksum")
	}
	if v := order.Uint32(b[4:]); v != boltVersion {
		return boltMeta{}, &VersionError{What: "bbolt format", Version: v, Known: boltVersion}
	}
	if size := order.Uint32(b[8:]); size != pageSize {
		return boltMeta{}, damaged("the page size is %d", size)
	}
	return boltMeta{
		root: order.Uint64(b[16:]), freelist: order.Uint64(b[32:]), end: order.Uint64(b[40:]), txid: order.Uint64(b[48:]),
	}, nil
}

// readMeta returns the newest valid meta page's contents and its number.
func readMeta(r io.ReaderAt) (newest boltMeta, at int64, err error) {
	var errs [2]error
	at = -1
	for i := range errs {
		page := make([]byte, headerSize+metaSize)
		if _, err := r.ReadAt(page, int64(i)*pageSize); err != nil {
			errs[i] = &damage{what: fmt.Sprintf("meta page %d cannot be read", i), err: err}
			continue
		}
		m, err := parseMeta(page)
		if err != nil {
			errs[i] = err
			continue
		}
		if at < 0 || m.txid > newest.txid {
			newest, at = m, int64(i)
		}
	}
	if at >= 0 {
		return newest, at, nil
	}
	var newer *VersionError
	if errors.As(errs[1], &newer) {
		return boltMeta{}, -1, errs[1]
	}
	return boltMeta{}, -1, errs[0]
}

// page is a branch or leaf page whose frame was checked: its elements lie within it.
type page struct {
	leaf  bool
	count int
	data  []byte // with the header
}

func (p *page) elem(i int) []byte { return p.data[headerSize+i*elemSize:] }

func (p *page) key(i int) []byte {
	at := headerSize + i*elemSize
	if p.leaf {
		pos, size := order.Uint32(p.data[at+4:]), order.Uint32(p.data[at+8:])
		return p.data[at+int(pos):][:size]
	}
	pos, size := order.Uint32(p.data[at:]), order.Uint32(p.data[at+4:])
	return p.data[at+int(pos):][:size]
}

// value returns a leaf's value, and whether it is a bucket's header.
func (p *page) value(i int) (v []byte, bucket bool) {
	at := headerSize + i*elemSize
	e := p.data[at:]
	pos, ksize, vsize := int(order.Uint32(e[4:])), int(order.Uint32(e[8:])), order.Uint32(e[12:])
	return e[pos+ksize:][:vsize], order.Uint32(e)&bucketFlag != 0
}

func (p *page) child(i int) uint64 { return order.Uint64(p.elem(i)[8:]) }

// framed says whether element i lies within the page, behind the elements.
func framed(data []byte, leaf bool, i, count int) bool {
	at := headerSize + i*elemSize
	e := data[at:]
	var pos, size uint64
	if leaf {
		pos, size = uint64(order.Uint32(e[4:])), uint64(order.Uint32(e[8:]))+uint64(order.Uint32(e[12:]))
	} else {
		pos, size = uint64(order.Uint32(e)), uint64(order.Uint32(e[4:]))
	}
	start := uint64(at) + pos
	return start >= uint64(headerSize+count*elemSize) && start+size <= uint64(len(data))
}

// parsePage checks the frame of a branch or leaf page.
func parsePage(data []byte) (*page, error) {
	flags, count := order.Uint16(data[8:]), int(order.Uint16(data[10:]))
	if flags != leafFlag && flags != branchFlag {
		return nil, damaged("flags %#x", flags)
	}
	p := &page{leaf: flags == leafFlag, count: count, data: data}
	if headerSize+count*elemSize > len(data) {
		return nil, damaged("%d elements", count)
	}
	if !p.leaf && count == 0 {
		return nil, damaged("a branch without children")
	}
	for i := range count {
		if !framed(data, p.leaf, i, count) {
			return nil, damaged("element %d is not within the page", i)
		}
		switch key := p.key(i); {
		case len(key) == 0:
			return nil, damaged("element %d has no key", i)
		case i > 0 && bytes.Compare(p.key(i-1), key) >= 0:
			return nil, damaged("the keys are not in order")
		}
	}
	return p, nil
}

// pages reads a file page by page.
type pages struct {
	r   io.ReaderAt
	end uint64 // there are no pages from here on
	// kept has the pages that were read last, for the next way through the tree.
	kept map[uint64]*page
}

const keptMost = 64

// read returns a branch or leaf page whose keys are not before lo and before hi. A nil hi is no bound.
func (p *pages) read(id uint64, lo, hi []byte) (*page, error) {
	if pg := p.kept[id]; pg != nil {
		return pg, nil
	}
	data, err := p.run(id)
	if err != nil {
		return nil, err
	}
	pg, err := parsePage(data)
	if err != nil {
		return nil, damaged("page %d: %v", id, err)
	}
	if pg.count > 0 {
		if bytes.Compare(pg.key(0), lo) < 0 || hi != nil && bytes.Compare(pg.key(pg.count-1), hi) >= 0 {
			return nil, damaged("page %d has keys that belong elsewhere", id)
		}
	}
	for i := range pg.count {
		if !pg.leaf && (pg.child(i) < 2 || pg.child(i) >= p.end) {
			return nil, damaged("page %d points to page %d", id, pg.child(i))
		}
	}
	if len(data) == pageSize {
		if p.kept == nil || len(p.kept) == keptMost {
			p.kept = make(map[uint64]*page)
		}
		p.kept[id] = pg
	}
	return pg, nil
}

// run returns a page and those it overflows to.
func (p *pages) run(id uint64) ([]byte, error) {
	if id < 2 || id >= p.end {
		return nil, damaged("there is no page %d", id)
	}
	data := make([]byte, pageSize)
	if _, err := p.r.ReadAt(data, int64(id)*pageSize); err != nil {
		return nil, &damage{what: fmt.Sprintf("page %d cannot be read", id), err: err}
	}
	if self := order.Uint64(data); self != id {
		return nil, damaged("page %d says that it is page %d", id, self)
	}
	overflow := uint64(order.Uint32(data[12:]))
	if overflow == 0 {
		return data, nil
	}
	if overflow >= maxRun || id+overflow >= p.end {
		return nil, damaged("page %d claims %d more", id, overflow)
	}
	data = make([]byte, (overflow+1)*pageSize)
	if _, err := p.r.ReadAt(data, int64(id)*pageSize); err != nil {
		return nil, &damage{what: fmt.Sprintf("page %d cannot be read to its end", id), err: err}
	}
	return data, nil
}

// checkFreelist makes sure that bbolt can read the list of free pages.
func (p *pages) checkFreelist(id uint64) error {
	if id < 2 || id >= p.end {
		return damaged("the list of free pages is said to be in page %d", id)
	}
	r := io.NewSectionReader(p.r, int64(id)*pageSize, int64(p.end-id)*pageSize)
	head := make([]byte, headerSize+8)
	if _, err := io.ReadFull(r, head); err != nil {
		return &damage{what: "the list of free pages cannot be read", err: err}
	}
	if order.Uint64(head) != id || order.Uint16(head[8:]) != freelistFlag {
		return damaged("page %d is not the list of free pages", id)
	}
	at, count := int64(headerSize), uint64(order.Uint16(head[10:]))
	if count == 0xFFFF { // then the first entry is the count
		at, count = headerSize+8, order.Uint64(head[headerSize:])
	}
	if run := uint64(order.Uint32(head[12:])) + 1; count >= p.end || id+run > p.end || uint64(at)+8*count > run*pageSize {
		return damaged("the list of free pages has %d entries", count)
	}
	list := make([]byte, 8*count)
	if _, err := r.ReadAt(list, at); err != nil {
		return &damage{what: "the list of free pages cannot be read", err: err}
	}
	last := uint64(1)
	for ; len(list) > 0; list = list[8:] {
		next := order.Uint64(list)
		if next <= last || next >= p.end {
			return damaged("page %d is said to be free after page %d", next, last)
		}
		last = next
	}
	return nil
}
