package cloudsim

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// identity is what is remembered of a device beyond its session. Cloud.mu guards it.
type identity struct {
	device  string
	session *session    // nil if it has none
	logins  []time.Time // within Rules.Connects.Per
	uplink  bucket
	recent  ring[uint64] // hashes of its last messages
	lose    progress
	drop    progress
}

// progress is how far a device has met a countdown.
type progress struct {
	serial uint64
	count  int // packets, or times
}

// to returns the progress for a countdown, begun anew if it is another than before.
func (p *progress) to(c countdown) *progress {
	if p.serial != c.serial {
		*p = progress{serial: c.serial}
	}
	return p
}

// message is an application message on its way to devices. It is shared and never changed.
type message struct {
	topic   string
	payload []byte
	qos     byte
}

// session is an MQTT session (MQTT 3.1.1, 4.1). Cloud.mu guards it.
type session struct {
	id       *identity
	clientID string
	clean    bool
	conn     *conn // nil while offline
	since    time.Time
	subs     map[string]byte // granted QoS by filter
	queue    []outgoing      // waits for the window, or for the device
	inflight []*outgoing     // sent and not done with, in the order of first sending
	lastID   uint16
	inbound  map[uint16]struct{} // QoS 2 messages that wait for PUBREL
}

// outgoing is a message for one session.
type outgoing struct {
	*message
	qos      byte // what this session gets
	retain   bool
	id       uint16
	released bool // QoS 2: PUBREC came, PUBREL was sent
	resent   bool
	sent     time.Time
}

// hardQueue bounds every session's queue.
const hardQueue = 100_000

// Unacked is a message that was sent to a device and is not done with.
type Unacked struct {
	Topic    string
	Payload  []byte // shared, not to be changed
	QoS      byte
	PacketID uint16
	Resent   bool
	Released bool // QoS 2: PUBREC came, PUBCOMP is awaited
}

// Session is a snapshot of a session.
type Session struct {
	Device    string
	ClientID  string
	Connected bool
	Secure    bool // connected over wss
	Clean     bool
	Since     time.Time       // of the connection, or of its end
	Subs      map[string]byte // granted QoS by filter
	Queued    int             // not sent yet
	Unacked   []Unacked       // sent, oldest first
	Withheld  int             // bytes of acknowledgements that a fault keeps back
}

// Sessions returns all sessions, connected or persistent, ordered by device.
func (c *Cloud) Sessions() []Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Session
	for _, id := range c.identities {
		if id.session != nil {
			out = append(out, id.session.snapshot())
		}
	}
	slices.SortFunc(out, func(a, b Session) int { return strings.Compare(a.Device, b.Device) })
	return out
}

// Session returns a device's session.
func (c *Cloud) Session(device string) (Session, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.identities[device]
	if id == nil || id.session == nil {
		return Session{}, false
	}
	return id.session.snapshot(), true
}

// Online says whether a device is connected.
func (c *Cloud) Online(device string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.identities[device]
	return id != nil && id.session != nil && id.session.conn != nil
}

func (s *session) snapshot() Session {
	out := Session{
		Device: s.id.device, ClientID: s.clientID, Connected: s.conn != nil, Clean: s.clean, Since: s.since,
		Subs: maps.Clone(s.subs), Queued: len(s.queue),
	}
	if s.conn != nil {
		out.Secure = s.conn.secure
		out.Withheld = len(s.conn.heldAcks) + len(s.conn.heldSubacks)
	}
	for _, m := range s.inflight {
		out.Unacked = append(out.Unacked, Unacked{
			Topic: m.topic, Payload: m.payload, QoS: m.qos, PacketID: m.id, Resent: m.resent, Released: m.released,
		})
	}
	return out
}

// openLocked gives a connection its session (MQTT 3.1.1, 3.1.2.4) and reports whether there was one. The caller holds
// c.mu and has ended the session's older connection.
func (c *Cloud) openLocked(cn *conn, id *identity, clean bool) (present bool) {
	s := id.session
	if s != nil && clean {
		c.discardLocked(s)
		s = nil
	}
	present = s != nil
	if s == nil {
		s = &session{id: id, subs: make(map[string]byte)}
		id.session = s
	}
	s.clientID, s.clean, s.conn, s.since = cn.clientID, clean, cn, time.Now()
	cn.session = s
	return present
}

// discardLocked ends a session.
func (c *Cloud) discardLocked(s *session) {
	for filter := range s.subs {
		c.tree.remove(filter, s)
	}
	s.subs = nil
	s.id.session = nil
}

// enqueueLocked sends a message to a session or queues it. It reports why not, if it does neither.
func (c *Cloud) enqueueLocked(s *session, m *message, qos byte, retain bool) error {
	out := outgoing{message: m, qos: min(m.qos, qos), retain: retain}
	switch {
	case out.qos == 0 && s.conn == nil:
		c.rec.totals.DroppedQoS0++
		return ErrOffline
	case out.qos == 0 && (s.conn.out.crowded() || len(s.queue) >= hardQueue):
		c.rec.totals.DroppedQoS0++
		return ErrQueueFull
	case len(s.queue) >= c.queueLimitLocked(s):
		c.rec.totals.DroppedQueue++
		return ErrQueueFull
	}
	s.queue = append(s.queue, out)
	c.pumpLocked(s)
	return nil
}

func (c *Cloud) queueLimitLocked(s *session) int {
	if s.conn == nil && c.rules.MaxQueued > 0 {
		return c.rules.MaxQueued
	}
	return hardQueue
}

// pumpLocked sends what the window allows.
func (c *Cloud) pumpLocked(s *session) {
	n := 0
	for ; s.conn != nil && n < len(s.queue); n++ {
		m := &s.queue[n]
		if m.qos > 0 && len(s.inflight) >= c.opts.Window {
			break
		}
		c.rec.totals.Sent++
		if m.qos > 0 {
			m.id, m.sent = s.nextID(), time.Now()
			kept := *m // the queue's array is reused
			s.inflight = append(s.inflight, &kept)
		}
		s.conn.sendPublishLocked(m, false)
	}
	if n == 0 {
		return
	}
	c.wakeLocked()
	clear(s.queue[:n])
	s.queue = s.queue[n:]
	if len(s.queue) == 0 {
		s.queue = nil
	}
}

// resendLocked repeats what is in flight, with its packet identifiers (MQTT 3.1.1, 4.4).
func (c *Cloud) resendLocked(s *session) {
	for _, m := range s.inflight {
		c.rec.totals.Resent++
		m.resent = true
		if m.released {
			s.conn.sendIDLocked(typePubrel, m.id)
		} else {
			s.conn.sendPublishLocked(m, true)
		}
	}
}

// offlineLocked takes the connection off a session, and ends the session if it was clean.
func (c *Cloud) offlineLocked(s *session) {
	s.conn, s.since = nil, time.Now()
	if s.clean {
		c.discardLocked(s)
		return
	}
	s.queue = slices.DeleteFunc(s.queue, func(m outgoing) bool {
		if m.qos == 0 {
			c.rec.totals.DroppedQoS0++
		}
		return m.qos == 0
	})
}

// nextID returns a packet identifier that is not in use. The window is smaller than their number.
func (s *session) nextID() uint16 {
	for {
		s.lastID++
		used := slices.ContainsFunc(s.inflight, func(m *outgoing) bool { return m.id == s.lastID })
		if s.lastID != 0 && !used {
			return s.lastID
		}
	}
}

// bucket measures a rate: it holds Count and fills with Count per Per.
type bucket struct {
	level float64 // what has been taken
	last  time.Time
	over  bool
}

// take reports whether one more is within the rate, and if not, whether the limit was passed just now.
func (b *bucket) take(r Rate, now time.Time) (within, crossed bool) {
	if r.Count == 0 {
		return true, false
	}
	b.level -= now.Sub(b.last).Seconds() * float64(r.Count) / r.Per.Seconds()
	b.level, b.last = max(b.level, 0), now
	if b.level+1 > float64(r.Count) {
		crossed, b.over = !b.over, true
		return false, crossed
	}
	b.level++
	if b.level < float64(r.Count)/2 {
		b.over = false // it was kept for a while
	}
	return true, false
}
