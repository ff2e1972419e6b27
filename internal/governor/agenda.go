package governor

import (
	"container/heap"
	"time"
)

// entry is something that falls due at some time. It is in at most one agenda, once.
type entry struct {
	at  time.Time
	due func(now time.Time)
	pos int // in the agenda, counted from 1; 0: not in it
}

// agenda is what falls due, the earliest first.
type agenda []*entry

// set puts an entry in, or moves it.
func (a *agenda) set(e *entry, at time.Time) {
	e.at = at
	if e.pos > 0 {
		heap.Fix((*byTime)(a), e.pos-1)
		return
	}
	heap.Push((*byTime)(a), e)
}

// drop takes an entry out if it is in.
func (a *agenda) drop(e *entry) {
	if e.pos > 0 {
		heap.Remove((*byTime)(a), e.pos-1)
	}
}

// next is when the earliest entry falls due, zero if there is none.
func (a agenda) next() time.Time {
	if len(a) == 0 {
		return time.Time{}
	}
	return a[0].at
}

// run takes out and runs what is due.
func (a *agenda) run(now time.Time) {
	for len(*a) > 0 && !(*a)[0].at.After(now) {
		e := (*a)[0]
		a.drop(e)
		e.due(now)
	}
}

// byTime implements heap.Interface.
type byTime agenda

func (h byTime) Len() int           { return len(h) }
func (h byTime) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h byTime) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i+1, j+1
}

func (h *byTime) Push(x any) {
	e := x.(*entry)
	*h = append(*h, e)
	e.pos = len(*h)
}

func (h *byTime) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.pos = 0
	return e
}
