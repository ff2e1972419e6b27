package broker

import (
	"sync"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// session is an MQTT session's state (MQTT 3.1.1, 4.1), and the source of the device's messages in the up lane. One
// that was abandoned has no link any more, and nothing is sent for it.
type session struct {
	foreign bool // it was begun by an earlier process; set once

	mu      sync.Mutex // protects the following fields
	link    *link      // nil while the device is away
	in      mqtt.Inbox
	out     mqtt.Outbox
	filters map[string]struct{} // that were granted
}

func newSession() *session { return &session{} }

// Settled implements lane.Source: the message may be acknowledged.
func (s *session) Settled(t mqtt.Token, _ lane.Outcome) {
	s.mu.Lock()
	qos := s.in.Settle(t)
	l := s.link
	s.mu.Unlock()
	if l != nil {
		l.acknowledge(qos, t.ID())
	}
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
	s.link = l
}

func (s *session) disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = nil
	s.in.Disconnected()
	s.out.Disconnected()
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
