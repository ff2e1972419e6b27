package lane

import "bridged/internal/mqtt"

// marks are packet identifiers of QoS 2 messages from the lane's source that are remembered on disk, see mqtt.Mark.
type marks struct {
	have    map[uint16]struct{} // what is on disk when everything has been committed
	put     []mqtt.Mark         // not committed
	removed []uint16            // the same
	waiting []func()            // to be called when removed has been committed
	fresh   bool                // all earlier ones are to be removed
	from    uint64              // messages before this sequence number belong to an earlier session
}

func (m *marks) pending() bool { return len(m.put)+len(m.removed)+len(m.waiting) > 0 || m.fresh }

func (m *marks) restore(saved []mqtt.Mark) {
	m.have = make(map[uint16]struct{}, len(saved))
	for _, s := range saved {
		m.have[s.ID] = struct{}{}
	}
}

// storeLocked marks a message that is going to be stored.
func (m *marks) storeLocked(e *entry) {
	if e.msg.QoS == 2 && e.from != nil && e.token.ID() != 0 && e.seq >= m.from {
		m.add(mqtt.Mark{ID: e.token.ID(), Sum: mqtt.Sum(e.msg.Payload)})
	}
}

func (m *marks) add(mark mqtt.Mark) {
	if m.have == nil {
		m.have = make(map[uint16]struct{})
	}
	m.have[mark.ID] = struct{}{}
	m.put = append(m.put, mark)
}

// takeLocked moves what is not committed to a commit.
func (m *marks) takeLocked() (flying marks, removed []uint16, put []mqtt.Mark, fresh bool) {
	flying = marks{put: m.put, removed: m.removed, waiting: m.waiting, fresh: m.fresh}
	m.put, m.removed, m.waiting, m.fresh = nil, nil, nil, false
	return flying, flying.removed, flying.put, flying.fresh
}

// giveBackLocked is for a commit that failed. What has been removed since must not come back.
func (m *marks) giveBackLocked(flying marks) {
	m.waiting = append(flying.waiting, m.waiting...)
	if m.fresh {
		return
	}
	m.fresh = flying.fresh
	m.removed = append(flying.removed, m.removed...)
	var put []mqtt.Mark
	for _, mark := range flying.put {
		if _, ok := m.have[mark.ID]; ok {
			put = append(put, mark)
		}
	}
	m.put = append(put, m.put...)
}

// Marks returns the marks that were stored when the lane was made.
func (l *Lane) Marks() []mqtt.Mark { return l.savedMarks }

// Mark remembers that the source's QoS 2 message was acknowledged, over a restart. Those that the lane stores it marks
// itself.
func (l *Lane) Mark(m mqtt.Mark) {
	if l.spool == nil {
		return
	}
	l.mu.Lock()
	l.marks.add(m)
	l.unsaved.Store(true)
	l.mu.Unlock()
}

// Unmark forgets a mark and calls done once that is on disk, or at once if there is no such mark.
func (l *Lane) Unmark(id uint16, done func()) {
	l.mu.Lock()
	m := &l.marks
	_, marked := m.have[id]
	if !marked && !m.removing(id) && !l.disk.flying.removing(id) {
		l.mu.Unlock()
		done()
		return
	}
	if marked {
		delete(m.have, id)
		m.removed = append(m.removed, id)
		for i := range m.put {
			if m.put[i].ID == id {
				m.put = append(m.put[:i:i], m.put[i+1:]...)
				break
			}
		}
	}
	m.waiting = append(m.waiting, done)
	l.unsaved.Store(true)
	l.spool.store(l)
	l.mu.Unlock()
}

// removing says that a mark is about to be removed.
func (m *marks) removing(id uint16) bool {
	for _, r := range m.removed {
		if r == id {
			return true
		}
	}
	return false
}

// ClearMarks forgets all marks: the source's session is over.
func (l *Lane) ClearMarks() {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &l.marks
	m.from = l.q.end()
	if len(m.have)+len(m.removed) == 0 {
		return
	}
	clear(m.have)
	m.put, m.removed, m.fresh = nil, nil, true
	l.unsaved.Store(true)
}
