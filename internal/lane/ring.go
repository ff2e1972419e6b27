package lane

// ring is a queue of entries in the order of their sequence numbers. It grows and shrinks with what it holds. Entries
// that are spent are kept as place holders, until they are popped or the space is needed.
type ring struct {
	buf  []entry // its length is a power of two
	head int     // where in buf the oldest entry is
	n    int
	next uint64 // sequence number of the next entry
}

const (
	ringMin  = 1  // most devices send one message at a time, and seldom
	ringKeep = 64 // a ring of at most this size does not shrink before rest
)

// end is the sequence number that the next entry will get.
func (r *ring) end() uint64 { return r.next }

// first is the sequence number of the oldest entry, or of the next one if there is none.
func (r *ring) first() uint64 {
	if r.n == 0 {
		return r.next
	}
	return r.at(0).seq
}

// at returns the i-th oldest entry. The pointer is valid until the next push or pop.
func (r *ring) at(i int) *entry { return &r.buf[(r.head+i)&(len(r.buf)-1)] }

// index is where the entry with this sequence number is, or the next one behind it.
func (r *ring) index(seq uint64) int {
	first := r.first()
	if seq <= first {
		return 0
	}
	if seq >= r.next {
		return r.n
	}
	// Without gaps it would be here; with them it is before.
	hi := int(min(seq-first, uint64(r.n)))
	if hi < r.n && r.at(hi).seq == seq {
		return hi
	}
	lo := 0
	for lo < hi {
		if mid := (lo + hi) / 2; r.at(mid).seq < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// find returns the entry with this sequence number, nil if there is none.
func (r *ring) find(seq uint64) *entry {
	if i := r.index(seq); i < r.n && r.at(i).seq == seq {
		return r.at(i)
	}
	return nil
}

// push appends an entry and numbers it.
func (r *ring) push(e entry) *entry {
	if r.n == len(r.buf) {
		r.compact()
		if r.n >= len(r.buf)/2 {
			r.resize(max(ringMin, 2*len(r.buf)))
		}
	}
	e.seq = r.next
	r.next++
	p := r.at(r.n)
	*p = e
	r.n++
	return p
}

// compact takes out the spent entries. One message that the far side never acknowledges would otherwise keep a place
// for each that comes after it.
func (r *ring) compact() {
	kept := 0
	for i := range r.n {
		if e := r.at(i); !e.spent() {
			*r.at(kept) = *e
			kept++
		}
	}
	for i := kept; i < r.n; i++ {
		*r.at(i) = entry{}
	}
	r.n = kept
}

// pop removes the oldest entry.
func (r *ring) pop() {
	*r.at(0) = entry{}
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	r.shrink()
}

// cut removes the entries from the i-th to before the j-th.
func (r *ring) cut(i, j int) {
	gone := j - i
	if i <= r.n-j { // move what is before
		for k := i - 1; k >= 0; k-- {
			*r.at(k + gone) = *r.at(k)
		}
		for k := range gone {
			*r.at(k) = entry{}
		}
		if gone > 0 {
			r.head = (r.head + gone) & (len(r.buf) - 1)
		}
	} else { // move what is behind
		for k := j; k < r.n; k++ {
			*r.at(k - gone) = *r.at(k)
		}
		for k := r.n - gone; k < r.n; k++ {
			*r.at(k) = entry{}
		}
	}
	r.n -= gone
	r.shrink()
}

// insert puts entries, which have their sequence numbers, before the i-th.
func (r *ring) insert(i int, entries []entry) {
	if len(entries) == 0 {
		return
	}
	size := max(ringMin, len(r.buf))
	for size < r.n+len(entries) {
		size *= 2
	}
	if size > len(r.buf) {
		r.resize(size)
	}
	k := len(entries)
	if i <= r.n-i { // move what is before
		r.head = (r.head - k + len(r.buf)) & (len(r.buf) - 1)
		for j := range i {
			*r.at(j) = *r.at(j + k)
		}
	} else { // move what is behind
		for j := r.n - 1; j >= i; j-- {
			*r.at(j + k) = *r.at(j)
		}
	}
	r.n += k
	for j := range entries {
		*r.at(i + j) = entries[j]
	}
}

// shrink gives memory back.
func (r *ring) shrink() {
	size := len(r.buf)
	for size > ringKeep && r.n <= size/8 {
		size /= 2
	}
	if size < len(r.buf) {
		r.resize(size)
	}
}

// rest gives all memory back if nothing is held.
func (r *ring) rest() {
	if r.n == 0 {
		r.buf, r.head = nil, 0
	}
}

func (r *ring) resize(size int) {
	buf := make([]entry, size)
	for i := range r.n {
		buf[i] = *r.at(i)
	}
	r.buf, r.head = buf, 0
}
