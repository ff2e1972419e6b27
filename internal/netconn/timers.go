package netconn

import (
	"container/heap"
	"time"
)

// timers are Conns by the time at which the loop is to call tick.
type timers struct{ q timerQueue }

// timer is a Conn's entry.
type timer struct {
	at    time.Duration
	index int // in the queue, -1 outside
}

// set enters a Conn, or moves it.
func (t *timers) set(c *Conn, at time.Duration) {
	c.timer.at = at
	if c.timer.index >= 0 {
		heap.Fix(&t.q, c.timer.index)
	} else {
		heap.Push(&t.q, c)
	}
}

func (t *timers) remove(c *Conn) {
	if c.timer.index >= 0 {
		heap.Remove(&t.q, c.timer.index)
	}
}

// first is the earliest time, never if there is none.
func (t *timers) first() time.Duration {
	if len(t.q) == 0 {
		return never
	}
	return t.q[0].timer.at
}

// pop takes the first Conn out.
func (t *timers) pop() *Conn { return heap.Pop(&t.q).(*Conn) }

// timerQueue is a heap.Interface.
type timerQueue []*Conn

func (q timerQueue) Len() int           { return len(q) }
func (q timerQueue) Less(i, j int) bool { return q[i].timer.at < q[j].timer.at }

func (q timerQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].timer.index, q[j].timer.index = i, j
}

func (q *timerQueue) Push(x any) {
	c := x.(*Conn)
	c.timer.index = len(*q)
	*q = append(*q, c)
}

func (q *timerQueue) Pop() any {
	last := len(*q) - 1
	c := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	c.timer.index = -1
	return c
}
