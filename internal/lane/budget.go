package lane

import (
	"sync"
	"sync/atomic"
)

// Budget is the memory that the lanes of a process share. A nil Budget has no limit.
type Budget struct {
	limit, used atomic.Int64 // bytes; used goes without a lock, since every message of all lanes comes by
	waits       atomic.Int32 // the size of waiting

	mu      sync.Mutex         // protects the following field; taken while a lane's mutex is held, never the reverse
	waiting map[*Lane]struct{} // that were refused
}

// NewBudget returns a budget of so many bytes, as Message.Size counts them.
func NewBudget(limit int64) *Budget {
	b := &Budget{waiting: make(map[*Lane]struct{})}
	b.limit.Store(limit)
	return b
}

// SetLimit changes the limit. What is taken already stays. The caller must not hold a lock that lanes' sources take.
func (b *Budget) SetLimit(limit int64) {
	b.limit.Store(limit)
	for _, l := range b.free(0) {
		l.wake()
	}
}

// Used is how many bytes are taken.
func (b *Budget) Used() int64 { return b.used.Load() }

// fits says whether a message of this size can ever be reserved.
func (b *Budget) fits(size int64) bool { return b == nil || size <= b.limit.Load() }

// reserve takes size bytes, beyond the limit if must is set.
func (b *Budget) reserve(size int64, must bool) bool {
	if b == nil {
		return true
	}
	for {
		used := b.used.Load()
		if !must && used+size > b.limit.Load() {
			return false
		}
		if b.used.CompareAndSwap(used, used+size) {
			return true
		}
	}
}

// wait has l called when there may be room for a message of this size, or returns true if there is room already.
func (b *Budget) wait(l *Lane, size int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, waits := b.waiting[l] // for another source of the lane, which goes on waiting
	b.waiting[l] = struct{}{}
	b.waits.Store(int32(len(b.waiting))) // before a look at used, which free changes before it looks at waits
	if b.used.Load()+size > b.limit.Load() {
		return false
	}
	if !waits {
		delete(b.waiting, l)
	}
	b.waits.Store(int32(len(b.waiting)))
	return true
}

// Take takes memory for a message on its way to a lane, if it is not short. Give gives it back.
func (b *Budget) Take(size int64) bool { return b.reserve(size, false) }

// Give gives back what Take took. It has lanes that wait for memory call their sources: the caller must not hold a lock
// that these take.
func (b *Budget) Give(size int64) {
	if size == 0 {
		return
	}
	for _, l := range b.free(size) {
		l.wake()
	}
}

// roomy says whether it is well below the limit, so that a lane that is called mostly finds room. If it does not, it
// waits for the next call.
func (b *Budget) roomy() bool {
	limit := b.limit.Load()
	return b.used.Load() < limit-limit/8
}

// free gives size bytes back and returns the lanes that may try again.
func (b *Budget) free(size int64) (waiting []*Lane) {
	if b == nil {
		return nil
	}
	b.used.Add(-size)
	if b.waits.Load() == 0 || !b.roomy() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.waiting {
		waiting = append(waiting, l)
	}
	clear(b.waiting)
	b.waits.Store(0)
	return waiting
}
