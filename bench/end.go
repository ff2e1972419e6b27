package main

import (
	"sync"
	"time"
)

// end is one end of an MQTT connection, a device or the cloud's: it sends messages, acknowledges those that it gets,
// and tells the run about both. Each packet is written by itself, as most devices and brokers do, unless the case
// gathers them.
type end struct {
	*conn
	r *run

	// Used by the reading goroutine only.
	acks  []byte // to be sent when everything that came at once has been handled
	acked int    // messages that were acknowledged meanwhile

	sending sync.Mutex // protects the following fields, and keeps what is sent in order
	window  *flow      // not nil: for each message that is acknowledged the next one is sent
	id      uint16
	times   []sent // by id, as far as there is space
	out     []byte
	payload []byte
}

type sent struct {
	id uint16
	at time.Duration
}

func newEnd(r *run, c *conn) *end {
	return &end{conn: c, r: r, times: make([]sent, r.inFlight), payload: make([]byte, r.c.payload)}
}

// appendNextLocked appends the flow's next message.
func (e *end) appendNextLocked(b []byte, f *flow) []byte {
	e.id++
	if e.id == 0 {
		e.id = 1
	}
	now := e.r.now()
	e.times[int(e.id)%len(e.times)] = sent{e.id, now}
	stamp(e.payload, f.id, f.sent.Add(1)-1, now)
	return appendPublish(b, f.topic, e.id, e.payload)
}

// publish sends the flow's next n messages.
func (e *end) publish(f *flow, n int) error {
	e.sending.Lock()
	defer e.sending.Unlock()
	e.out = e.out[:0]
	for range n {
		e.out = e.appendNextLocked(e.out, f)
		if !e.r.c.gather {
			if err := e.send(e.out); err != nil {
				return err
			}
			e.out = e.out[:0]
		}
	}
	if len(e.out) == 0 {
		return nil
	}
	return e.send(e.out)
}

// open begins to send, with so many messages unacknowledged at any time.
func (e *end) open(f *flow, window int) error {
	e.sending.Lock()
	e.window = f
	e.sending.Unlock()
	return e.publish(f, window)
}

// packet handles what both ends have in common.
func (e *end) packet(head byte, body []byte) error {
	switch head & 0xf0 {
	case publish:
		id, payload, err := published(head, body)
		if err != nil {
			return err
		}
		if err := e.r.arrived(payload); err != nil {
			return err
		}
		if id != 0 {
			e.acks = appendPuback(e.acks, id)
		}
	case puback:
		if len(body) < 2 {
			return errMalformed
		}
		id := uint16(body[0])<<8 | uint16(body[1])
		e.sending.Lock()
		if s := &e.times[int(id)%len(e.times)]; s.id == id {
			e.r.acknowledged(s.at)
			s.id = 0
		}
		e.sending.Unlock()
		e.acked++
	}
	return nil
}

// flush sends what is due after what came at once was handled.
func (e *end) flush() error {
	acked := e.acked
	e.acked = 0
	if acked > 0 && e.r.sending.Load() {
		e.sending.Lock()
		f := e.window
		e.sending.Unlock()
		if f != nil {
			if err := e.publish(f, acked); err != nil {
				return err
			}
		}
	}
	step := pubackSize
	if e.r.c.gather {
		step = len(e.acks)
	}
	for b := e.acks; len(b) > 0; b = b[step:] {
		if err := e.send(b[:step]); err != nil {
			return err
		}
	}
	e.acks = e.acks[:0]
	return nil
}
