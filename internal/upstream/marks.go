package upstream

import (
	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/mqtt"
	"bridged/internal/wire"
)

// Marks are the packet identifiers of QoS 2 messages from the cloud that survive the process; see lane.Lane. They
// belong to the session which the cloud keeps for the device. Whether that goes on is not known before CONNACK, so they
// are always taken up, and forgotten if it does not.
type Marks interface {
	// Marks returns what was stored when the process started.
	Marks() []mqtt.Mark
	// Mark adds one.
	Mark(m mqtt.Mark)
	// Unmark removes one. done is called once, when that is on disk, or at once if there is none.
	Unmark(id uint16, done func())
	// ClearMarks removes all. What was offered before gets no mark any more.
	ClearMarks()
}

// arrive records a message of QoS 1 or 2, and acknowledges it if it was taken care of before.
func (s *session) arrive(id uint16, dup bool, m *mqtt.Message) (t mqtt.Token, fresh bool) {
	w := s.w
	w.flow.mu.Lock()
	arrival, t := w.flow.in.Publish(id, dup, m)
	due := s.acknowledgeLocked()
	w.flow.mu.Unlock()
	if due {
		s.flush()
	}
	if arrival == mqtt.Fresh && m.QoS == 2 {
		w.cfg.Marks.Unmark(id, func() {}) // one that is there is of another message
	}
	return t, arrival == mqtt.Fresh
}

// release handles PUBREL. PUBCOMP follows when no mark is left.
func (w *Worker) release(id uint16) {
	w.flow.mu.Lock()
	t := w.flow.in.Release(id)
	w.flow.mu.Unlock()
	w.cfg.Marks.Unmark(id, func() {
		w.flow.mu.Lock()
		s := w.flow.live
		if s == nil || !w.flow.in.Released(t) {
			w.flow.mu.Unlock()
			return
		}
		s.out = wire.AppendAck(s.out, packets.Pubcomp, id)
		w.flow.mu.Unlock()
		s.flush()
	})
}

// forgetFlow drops the state of a session that the cloud does not have any more. Messages of it that are parked get
// through, but nobody waits for their acknowledgement. The caller does not hold flow.mu.
func (w *Worker) forgetFlow() {
	f := w.flow
	f.mu.Lock()
	for i := range f.parking.cars {
		f.parking.cars[i].token = 0
	}
	for f.parking.offering { // perhaps with a token
		f.parking.room.Wait()
	}
	f.in.Reset()
	f.out.Reset()
	f.mu.Unlock()
	w.cfg.Marks.ClearMarks()
}

// keepMarks hands over what a later process has to know of the cloud's session, if that goes on.
func (w *Worker) keepMarks() {
	w.mu.Lock()
	over := w.cleanLocked() || w.reset
	w.mu.Unlock()
	if over {
		return
	}
	w.flow.mu.Lock()
	marks := w.flow.in.Unmarked()
	w.flow.mu.Unlock()
	for _, m := range marks {
		w.cfg.Marks.Mark(m)
	}
}
