package demo

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"
)

// book counts the messages of one direction of one device. Messages are numbered from 1 in the order of sending, and
// carry their number.
type book struct {
	fault func(text string) // told about each fault, without the book's lock

	mu       sync.Mutex // protects the following fields
	messages map[int]*message
	last     int // number of the newest message
	pruned   int // messages up to here are forgotten
	newest   int // highest number that has arrived
	count    tally
	times    samples
}

// tally is what a book has counted.
type tally struct {
	sent, acked, arrived int
	repeated             int // arrived again, because a connection had been lost
	faults               int
}

// message is one that was sent. An epoch is a connection's identity, whatever it is as long as it changes with it.
type message struct {
	payload []byte
	sent    time.Time
	origin  int64 // epoch of the sender's connection when it was sent first
	carrier int64 // epoch of the receiver's connection when it arrived first
	acked   bool
	arrived bool
	noticed bool // that it is late
}

// keep is how many messages a book remembers after they are done with, to recognise repetitions.
const keep = 1000

func newBook(fault func(string)) *book {
	return &book{fault: fault, messages: make(map[int]*message)}
}

// send enters a new message. write makes its payload from its number.
func (b *book) send(now time.Time, origin int64, write func(n int) []byte) (n int, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	b.count.sent++
	m := &message{payload: write(b.last), sent: now, origin: origin}
	b.messages[b.last] = m
	b.pruneLocked()
	return b.last, m.payload
}

// unsend takes the newest message back: it did not leave.
func (b *book) unsend(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n == b.last {
		delete(b.messages, n)
		b.last--
		b.count.sent--
	}
}

// ack enters that the sender was told that a message is safe, and returns after how long. Only the first time counts.
func (b *book) ack(n int, now time.Time) (after time.Duration, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.messages[n]
	if m == nil || m.acked {
		return 0, false
	}
	m.acked = true
	b.count.acked++
	after = now.Sub(m.sent)
	b.times.add(after)
	return after, true
}

// arrive enters that a message has reached the far side; origin and carrier are the epochs of now.
func (b *book) arrive(n int, payload []byte, dup bool, origin, carrier int64) {
	b.mu.Lock()
	wrong := b.arriveLocked(n, payload, dup, origin, carrier)
	b.mu.Unlock()
	if wrong != "" {
		b.report(wrong)
	}
}

func (b *book) arriveLocked(n int, payload []byte, dup bool, origin, carrier int64) (wrong string) {
	m := b.messages[n]
	switch {
	case m == nil && n > 0 && n <= b.pruned:
		return fmt.Sprintf("message %d arrived again long after it was done with", n)
	case m == nil:
		return fmt.Sprintf("message %d arrived and was never sent", n)
	case !bytes.Equal(m.payload, payload):
		return fmt.Sprintf("message %d arrived with another payload: %q", n, payload)
	case m.arrived:
		return b.repeatLocked(n, m, dup, origin, carrier)
	}
	m.arrived, m.carrier = true, carrier
	b.count.arrived++
	if n < b.newest {
		return fmt.Sprintf("message %d arrived after message %d: out of order", n, b.newest)
	}
	b.newest = n
	return ""
}

// repeatLocked judges a message that has arrived before. A new connection on either side is a reason to send it again;
// if it is only the receiver's, the bridge has sent it again itself and must say so with DUP.
func (b *book) repeatLocked(n int, m *message, dup bool, origin, carrier int64) (wrong string) {
	b.count.repeated++
	switch {
	case origin == m.origin && carrier == m.carrier:
		return fmt.Sprintf("message %d arrived twice without cause", n)
	case origin == m.origin && !dup:
		return fmt.Sprintf("message %d arrived again without the DUP flag", n)
	}
	return ""
}

// resent enters that the sender sends a message again itself.
func (b *book) resent(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.messages[n]; m != nil {
		m.origin = resentOrigin
	}
}

// resentOrigin is the epoch of no connection: whatever comes twice then has a cause.
const resentOrigin = -1

// report counts a fault and tells it.
func (b *book) report(text string) {
	b.mu.Lock()
	b.count.faults++
	b.mu.Unlock()
	b.fault(text)
}

// late returns the payloads of messages that have been waiting for their acknowledgement since before, each only once.
func (b *book) late(before time.Time) (payloads [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := b.pruned + 1; n <= b.last; n++ {
		if m := b.messages[n]; m != nil && !m.acked && !m.noticed && m.sent.Before(before) {
			m.noticed = true
			payloads = append(payloads, m.payload)
		}
	}
	return payloads
}

// open counts the messages that are not done with.
func (b *book) open() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.messages {
		if !m.done() {
			n++
		}
	}
	return n
}

func (m *message) done() bool { return m.acked && m.arrived }

// close reports the messages that are not done with and never will be.
func (b *book) close() {
	b.mu.Lock()
	var wrong []string
	for n := b.pruned + 1; n <= b.last; n++ {
		switch m := b.messages[n]; {
		case m == nil || m.done():
		case m.acked:
			wrong = append(wrong, fmt.Sprintf("message %d was lost: acknowledged, and never arrived", n))
		case m.arrived:
			wrong = append(wrong, fmt.Sprintf("message %d arrived, and was never acknowledged", n))
		default:
			wrong = append(wrong, fmt.Sprintf("message %d neither arrived nor was acknowledged", n))
		}
	}
	b.mu.Unlock()
	for _, text := range wrong {
		b.report(text)
	}
}

// pruneLocked forgets old messages that are done with.
func (b *book) pruneLocked() {
	for n := b.pruned + 1; n <= b.last-keep; n++ {
		if m := b.messages[n]; m != nil && !m.done() {
			return
		}
		delete(b.messages, n)
		b.pruned = n
	}
}

// result is what a book says in the summary.
func (b *book) result() (t tally, median, longest time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count, b.times.median(), b.times.longest
}

// samples keeps the newest durations, and the longest of all.
type samples struct {
	newest  []time.Duration
	next    int
	longest time.Duration
}

const maxSamples = 4096

func (s *samples) add(d time.Duration) {
	s.longest = max(s.longest, d)
	if len(s.newest) < maxSamples {
		s.newest = append(s.newest, d)
		return
	}
	s.newest[s.next] = d
	s.next = (s.next + 1) % maxSamples
}

func (s *samples) median() time.Duration {
	if len(s.newest) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.newest))
	return sorted[len(sorted)/2]
}
