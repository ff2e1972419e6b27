package main

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// flow accounts for the messages of one device in one direction. Each carries its number.
type flow struct {
	id    uint32 // the device, and downwards
	topic string
	sent  atomic.Uint32

	mu    sync.Mutex // protects the following fields
	seen  []uint64   // a bit for each number
	next  uint32     // the number behind the highest that has arrived
	tally tally
}

// downwards marks the flow to a device.
const downwards = 1 << 31

func newFlows(device uint32) (up, down *flow) {
	return &flow{id: device, topic: fmt.Sprintf("up/%05d", device)},
		&flow{id: device | downwards, topic: downTopic(device)}
}

func downTopic(device uint32) string { return fmt.Sprintf("down/%05d", device) }

// tally is what has become of messages.
type tally struct {
	sent, arrived, lost, duplicated, reordered int
}

func (t *tally) add(o tally) {
	t.sent += o.sent
	t.arrived += o.arrived
	t.lost += o.lost
	t.duplicated += o.duplicated
	t.reordered += o.reordered
}

// ok says whether nothing went wrong.
func (t *tally) ok() bool { return t.lost == 0 && t.duplicated == 0 && t.reordered == 0 }

// arrive records a message, and says whether it is a new one.
func (f *flow) arrive(n uint32) (fresh bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for int(n/64) >= len(f.seen) {
		f.seen = append(f.seen, 0)
	}
	word, bit := &f.seen[n/64], uint64(1)<<(n%64)
	switch {
	case *word&bit != 0:
		f.tally.duplicated++
		return false
	case n < f.next:
		f.tally.reordered++
	default:
		f.next = n + 1
	}
	*word |= bit
	f.tally.arrived++
	return true
}

func (f *flow) result() tally {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tally
	t.sent = int(f.sent.Load())
	t.lost = t.sent - t.arrived
	return t
}

// A payload begins with the flow, the message's number and when it was sent, and is filled up to its size.
const payloadHead = 16

func stamp(p []byte, flow, number uint32, at time.Duration) {
	binary.BigEndian.PutUint32(p, flow)
	binary.BigEndian.PutUint32(p[4:], number)
	binary.BigEndian.PutUint64(p[8:], uint64(at))
}

func stamped(p []byte) (flow, number uint32, at time.Duration, ok bool) {
	if len(p) < payloadHead {
		return 0, 0, 0, false
	}
	return binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:]), time.Duration(binary.BigEndian.Uint64(p[8:])), true
}

// histogram counts durations. Its steps are a sixteenth of their value or less. Its zero value is ready; its methods
// are safe for concurrent use.
type histogram struct {
	buckets [64 << stepBits]atomic.Uint32
}

const stepBits = 5

func (h *histogram) add(d time.Duration) { h.buckets[bucketOf(uint64(max(d, 1)))].Add(1) }

func bucketOf(v uint64) int {
	shift := max(0, bits.Len64(v)-stepBits)
	return shift<<stepBits | int(v>>shift)
}

// quantile is the duration below which so much of them is, zero if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	total := uint64(0)
	for i := range h.buckets {
		total += uint64(h.buckets[i].Load())
	}
	rank, sum := uint64(q*float64(total)), uint64(0)
	for i := range h.buckets {
		if sum += uint64(h.buckets[i].Load()); sum > rank {
			shift := i >> stepBits
			return time.Duration((uint64(i&(1<<stepBits-1))<<shift + uint64(1)<<shift/2))
		}
	}
	return 0
}
