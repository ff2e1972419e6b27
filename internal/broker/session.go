package broker

import (
	"sync"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// session is an MQTT session's state (MQTT 3.1.1, 4.1), and the source of the device's messages in the up lane. One
// that was abandoned has no link any more, and nothing is sent for it.
type session struct {
	marks Marks // the device's

	mu      sync.Mutex // protects the following fields
	link    *link      // nil while the device is away
	marking bool       // the device is away, and what is settled gets a mark
	in      mqtt.Inbox
	out     mqtt.Outbox
	acks    []byte // memory for acknowledgements
	// acknowledging says that a goroutine sends acknowledgements.
	acknowledging bool
	filters       map[string]struct{} // that were granted
}

func newSession(m Marks) *session { return &session{marks: m} }

// restored returns a session that an earlier process left.
func restored(k *Kept, m Marks) *session {
	s := newSession(m)
	s.out.Inherit()
	s.in.Restore(m.Marks())
	for _, f := range k.Filters {
		s.subscribed(f)
	}
	return s
}

// Settled implements lane.Source: the message may be acknowledged, which SettledAll does.
func (s *session) Settled(t mqtt.Token, o lane.Outcome) {
	s.mu.Lock()
	s.in.Settle(t, o == lane.Stored)
	if s.marking {
		if m, ok := s.in.Mark(t); ok {
			s.marks.Mark(m)
		}
	}
	s.mu.Unlock()
}

// SettledAll implements lane.Batcher: it acknowledges what was settled.
func (s *session) SettledAll() {
	s.mu.Lock()
	s.acknowledgeLocked()
	s.mu.Unlock()
}

// acknowledgeLocked sends the acknowledgements that are due, unless another goroutine is at it: that one goes on for
// this call, which keeps them in order. It unlocks mu for that.
func (s *session) acknowledgeLocked() {
	if s.acknowledging {
		return
	}
	s.acknowledging = true
	for s.link != nil {
		acks := s.acks[:0]
		for id, qos, ok := s.in.Due(); ok; id, qos, ok = s.in.Due() {
			kind := puback
			if qos == 2 {
				kind = pubrec
			}
			acks = appendAck(acks, kind, id)
		}
		if len(acks) == 0 {
			break
		}
		l := s.link
		s.mu.Unlock()
		l.send(acks)
		s.mu.Lock()
		if s.acks = acks; cap(acks) > keepBuffer {
			s.acks = nil
		}
	}
	s.acknowledging = false
}

// Room implements lane.Source: the up lane may take the message that it refused. That is parked with the link, unless
// the device has left since.
func (s *session) Room() {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l != nil {
		l.parking.retry(l.take)
	}
}

func (s *session) connected(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link, s.marking = l, false
}

// disconnected records that the device has left. If the session is kept, QoS 2 messages that were taken care of and are
// not released get marks, so that they are recognised even if the process is restarted before the device returns.
func (s *session) disconnected(kept bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link, s.marking = nil, kept
	s.in.Disconnected()
	s.out.Disconnected()
	if !kept {
		return
	}
	for _, m := range s.in.Unmarked() {
		s.marks.Mark(m)
	}
}

// end ends the session. Messages of it that are still in the up lane get no mark.
func (s *session) end() {
	s.mu.Lock()
	s.marking = false
	s.mu.Unlock()
	s.marks.ClearMarks()
}

// release handles PUBREL. PUBCOMP follows when no mark is left: after a restart a new message with this identifier
// could be taken for the one that is released.
func (s *session) release(id uint16) {
	s.mu.Lock()
	t := s.in.Release(id)
	s.mu.Unlock()
	s.marks.Unmark(id, func() {
		s.mu.Lock()
		due, l := s.in.Released(t), s.link
		s.mu.Unlock()
		if due && l != nil {
			l.respond(pubcomp, id)
		}
	})
}

// subscribed records granted filters, to answer UNSUBSCRIBE.
func (s *session) subscribed(filter string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filters == nil {
		s.filters = make(map[string]struct{})
	}
	s.filters[filter] = struct{}{}
}

// unsubscribed says whether the filter was granted.
func (s *session) unsubscribed(filter string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.filters[filter]
	delete(s.filters, filter)
	return ok
}
