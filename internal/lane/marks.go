package lane

import "bridged/internal/mqtt"

// marks are packet identifiers of QoS 2 messages from the lane's source that are remembered on disk, see mqtt.Mark.
type marks struct {
	have    map[uint16]haveMark  // what is on disk when everything has been committed
	put     map[uint16]mqtt.Mark // not committed
	removed []uint16             // the same
	waiting []func()             // to be called when removed has been committed
	fresh   bool                 // all earlier ones are to be removed
	from    uint64               // messages before this sequence number belong to an earlier session
}

// haveMark is a mark that is known.
type haveMark struct {
	sum    uint32
	stored bool // one of this identifier may be on disk already
}

func (m *marks) pending() bool { return len(m.put)+len(m.removed)+len(m.waiting) > 0 || m.fresh }

func (m *marks) restore(saved []mqtt.Mark) {
	if len(saved) == 0 {
		return
	}
	m.have = make(map[uint16]haveMark, len(saved))
	for _, s := range saved {
		m.have[s.ID] = haveMark{sum: s.Sum, stored: true}
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
		m.have = make(map[uint16]haveMark)
	}
	if m.put == nil {
		m.put = make(map[uint16]mqtt.Mark)
	}
	stored := m.have[mark.ID].stored // which another one of this identifier may be
	m.have[mark.ID] = haveMark{sum: mark.Sum, stored: stored}
	m.put[mark.ID] = mark
}

// all returns the marks, once everything has been committed.
func (m *marks) all() []mqtt.Mark {
	all := make([]mqtt.Mark, 0, len(m.have))
	for id, h := range m.have {
		all = append(all, mqtt.Mark{ID: id, Sum: h.sum})
	}
	return all
}

// takeLocked moves what is not committed to a commit.
func (m *marks) takeLocked() (flying marks, removed []uint16, put []mqtt.Mark, fresh bool) {
	flying = marks{put: m.put, removed: m.removed, waiting: m.waiting, fresh: m.fresh}
	m.put, m.removed, m.waiting, m.fresh = nil, nil, nil, false
	for id, mark := range flying.put {
		m.have[id] = haveMark{sum: mark.Sum, stored: true}
		put = append(put, mark)
	}
	return flying, flying.removed, put, flying.fresh
}

// giveBackLocked is for a commit that failed. What has been removed since must not come back.
func (m *marks) giveBackLocked(flying marks) {
	m.waiting = append(flying.waiting, m.waiting...)
	if m.fresh {
		return
	}
	m.fresh = flying.fresh
	m.removed = append(flying.removed, m.removed...)
	for id, mark := range flying.put {
		_, ok := m.have[id]
		if _, newer := m.put[id]; ok && !newer {
			m.add(mark)
		}
	}
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
	l.attendLocked()
	l.mu.Unlock()
}

// Unmark forgets a mark and calls done once that is on disk, or at once if the mark is not there.
func (l *Lane) Unmark(id uint16, done func()) {
	l.mu.Lock()
	m := &l.marks
	stored := m.have[id].stored
	delete(m.have, id)
	delete(m.put, id)
	if !stored && !m.removing(id) && !l.disk.flying.removing(id) {
		l.mu.Unlock()
		done()
		return
	}
	if stored {
		m.removed = append(m.removed, id)
	}
	m.waiting = append(m.waiting, done)
	l.attendLocked()
	l.spool.store(l)
	l.mu.Unlock()
}

// removing says that a mark, if there was one, is about to be removed.
func (m *marks) removing(id uint16) bool {
	if m.fresh {
		return true
	}
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
	l.attendLocked()
	l.spool.store(l) // a mark that came back could hide a message of the next session
}
