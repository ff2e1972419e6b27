package lane

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"bridged/internal/mqtt"
)

// The model of lanes with a spool does not foresee when what is written or read. It knows each message's fate, and what
// may never happen, whatever the order of things.

// plenty is no limit.
const plenty = 1 << 30

// fate is what became of a message, as its source and its far side know it.
type fate byte

const (
	alive   fate = iota
	acked        // by the far side, or QoS 0 and delivered
	lost         // dropped by a rule
	refused      // not taken
	unsaved      // not acknowledged to its source when the process was killed, and not on disk
)

type spoolMessage struct {
	n         int // its token and what its payload says
	m         mqtt.Message
	at        time.Time
	born      int64 // the step of its offer
	fate      fate
	step      int64   // when its fate was sealed
	told      Outcome // in its source's life
	again     bool    // it must be marked as a duplicate the next time
	maybe     bool    // it may be: its far side got it before a crash
	delivered int     // the connection, 0 for none in this life
	sent      int64   // the step of its latest delivery
	mark      bool    // QoS 2: it must be marked
	released  bool
	firm      bool // even if the process is killed
	seq       uint64
	early     bool // acknowledged or refused while it was on disk only
	late      bool // refused, and not counted yet
}

// spoolLane is a lane under test, its source and what is known of it. A restart makes a new Lane of it.
type spoolLane struct {
	run  *spoolRun
	key  Key
	cfg  Config
	asOf time.Time // when cfg was changed last
	l    *Lane
	life int

	solo     solo
	mu       sync.Mutex // protects the following fields
	messages []*spoolMessage
	conn     *spoolConn
	past     []*spoolConn
	conns    int
	refused  int64 // size of the message whose Room is awaited, 0 if none
	lastTold int   // in this life
	wrong    error
	since    int // messages before this one belong to an earlier session
	allowed  map[uint16]bool
	dropped  uint64 // as of the last check
	drops    [reasons]uint64
	ended    bool // a session ended in this step
	rejected int  // by the consumer in this step
	stalled  stall
}

type stall struct {
	n     int
	conn  int
	since time.Time
}

func (s *spoolLane) faultf(format string, args ...any) {
	if s.wrong == nil {
		s.wrong = fmt.Errorf(format, args...)
	}
}

// message returns the n-th.
func (s *spoolLane) message(n int) *spoolMessage { return s.messages[n-1] }

// spoolSource is a lane's source in one life.
type spoolSource struct {
	s    *spoolLane
	life int
}

// Settled implements Source.
func (src spoolSource) Settled(t mqtt.Token, o Outcome) {
	s := src.s
	defer s.solo.enter("Settled")()
	if s.run.killed.Load() {
		return
	}
	n := int(t >> 16)
	stored := s.run.store.holds(s.key, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.message(n)
	switch {
	case src.life != s.life:
		s.faultf("message %d was settled after the end", n)
	case m.told != 0:
		s.faultf("message %d was settled as %d and %d", n, m.told, o)
	case n <= s.lastTold:
		s.faultf("message %d was settled after %d", n, s.lastTold)
	case o == Delivered && m.fate != acked:
		s.faultf("message %d was settled as delivered, its fate is %d", n, m.fate)
	case o == Stored && !stored && m.fate != acked && !s.mayDropLocked():
		s.faultf("message %d was settled as stored, and is not", n)
	}
	m.told, s.lastTold = o, n
	if o == Dropped && m.fate == alive {
		m.fate, m.step = lost, s.run.step.Load()
	}
	if o == Stored && m.m.QoS == 2 && n > s.since {
		m.mark, m.firm = true, true
	}
}

// mayDropLocked says that messages may be dropped that are stored.
func (s *spoolLane) mayDropLocked() bool {
	return s.cfg.OnFull == DropOldest || s.cfg.MaxAge > 0 || s.ended || s.run.expires
}

// Room implements Source.
func (src spoolSource) Room() {
	s := src.s
	defer s.solo.enter("Room")()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == 0 && !s.run.killed.Load() {
		s.faultf("Room, and nothing was refused")
	}
	s.refused = 0
}

// spoolConn is a consumer.
type spoolConn struct {
	s       *spoolLane
	n       int
	life    int
	r       *Reader
	window  Window
	lowers  bool // to QoS 0: Done is called from Deliver
	solo    solo
	ready   bool
	started bool
	last    int
}

// Ready implements Consumer.
func (c *spoolConn) Ready() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.ready
}

// Flush implements Consumer.
func (c *spoolConn) Flush() {}

// Deliver implements Consumer.
func (c *spoolConn) Deliver(d Delivery) {
	defer c.solo.enter("Deliver")()
	s := c.s
	if s.run.killed.Load() {
		return
	}
	n := int(binary.BigEndian.Uint64(d.Message.Payload))
	s.mu.Lock()
	m := s.message(n)
	dup := m.m.QoS > 0 && (m.again || m.delivered > 0)
	switch {
	case s.conn != c:
		s.faultf("message %d was delivered on a connection that was replaced", n)
	case m.fate != alive:
		s.faultf("message %d was delivered, its fate is %d", n, m.fate)
	case n <= c.last:
		s.faultf("message %d was delivered after %d", n, c.last)
	case m.delivered == c.n:
		s.faultf("message %d was delivered twice on one connection", n)
	case d.Dup != dup && !(m.maybe && d.Dup):
		s.faultf("message %d was delivered with DUP %v", n, d.Dup)
	case d.Message.QoS != m.m.QoS || d.Message.Topic != m.m.Topic || len(d.Message.Payload) != len(m.m.Payload):
		s.faultf("message %d was %+v, delivered was %+v", n, m.m, d.Message)
	case !m.m.Expires.IsZero() && !m.m.Expires.Equal(d.Message.Expires):
		s.faultf("message %d expires at %v, delivered with %v", n, m.m.Expires, d.Message.Expires)
	case s.cfg.Always && m.m.QoS > 0 && m.told == 0 && s.l.unsettled(d.Seq) &&
		s.run.healthy(2*time.Second) && s.run.disk == plenty: // it is tried again after a second and a tick
		s.faultf("message %d was delivered before it was stored", n)
	}
	c.last = n
	m.delivered, m.sent, m.seq = c.n, s.run.step.Load(), d.Seq
	if m.m.QoS == 0 {
		s.sealLocked(m, acked)
	}
	lowers := c.lowers && m.m.QoS > 0
	if lowers {
		s.sealLocked(m, acked)
	}
	s.mu.Unlock()
	if lowers {
		c.r.Done(d.Seq)
	}
}

func (s *spoolLane) sealLocked(m *spoolMessage, f fate) {
	if m.fate == alive {
		m.fate, m.step = f, s.run.step.Load()
	}
}

// unsettled says whether a message is neither done nor stored.
func (l *Lane) unsettled(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.q.find(seq)
	return e != nil && e.outcome == 0
}

// has says whether a message is in the lane, or perhaps.
func (l *Lane) has(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.q.find(seq)
	return e != nil && e.state != gone || e == nil && l.gap.holds(seq)
}

// offer hands a new message over, unless Room is awaited.
func (s *spoolLane) offer(rng *rand.Rand) string {
	s.mu.Lock()
	if s.refused > 0 {
		s.mu.Unlock()
		return "no room"
	}
	n := len(s.messages) + 1
	payload := make([]byte, 8+rng.IntN(100))
	if rng.IntN(10) == 0 {
		payload = make([]byte, 8+rng.IntN(600))
	}
	binary.BigEndian.PutUint64(payload, uint64(n))
	m := &spoolMessage{n: n, at: time.Now(), born: s.run.step.Load()}
	m.m = mqtt.Message{Topic: "t", Payload: payload, QoS: byte(rng.IntN(3))}
	if s.run.expires && rng.IntN(6) == 0 {
		m.m.Expires = time.Now().Add(time.Duration(rng.IntN(6000)) * time.Millisecond).Round(0)
	}
	s.messages = append(s.messages, m)
	s.allowed[uint16(n)] = m.m.QoS == 2
	life := s.life
	s.refused = m.m.Size() // Room may be called before Offer returns
	s.mu.Unlock()
	taken := s.l.Offer(m.m, spoolSource{s, life}, mqtt.Token(n)<<16|mqtt.Token(n))
	s.mu.Lock()
	defer s.mu.Unlock()
	if taken {
		s.refused = 0
	} else {
		m.fate, m.step = refused, s.run.step.Load()
	}
	return fmt.Sprintf("offer %d: QoS %d, size %d, taken %v", n, m.m.QoS, m.m.Size(), taken)
}

// done has the far side acknowledge or refuse one of the oldest messages that it got, on any of its connections.
func (s *spoolLane) done(rng *rand.Rand) string {
	s.mu.Lock()
	var sent []*spoolMessage
	for _, m := range s.messages {
		if m.delivered > 0 && (m.fate == alive && s.l.has(m.seq) || rng.IntN(60) == 0) {
			sent = append(sent, m)
		}
	}
	if len(sent) == 0 || s.conns == 0 {
		s.mu.Unlock()
		return "nothing to do"
	}
	m := sent[rng.IntN(min(3, len(sent)))]
	c := s.conn
	if c == nil || len(s.past) > 0 && rng.IntN(4) == 0 {
		if len(s.past) == 0 {
			s.mu.Unlock()
			return "nobody to do it"
		}
		c = s.past[rng.IntN(len(s.past))]
	}
	drop := rng.IntN(8) == 0
	if m.fate == alive && s.l.has(m.seq) { // else a rule has just dropped it
		if drop {
			s.rejected++
			s.sealLocked(m, lost)
		} else {
			s.sealLocked(m, acked)
		}
	}
	s.mu.Unlock()
	if drop {
		c.r.Drop(m.seq, TooLarge)
		return fmt.Sprintf("drop %d", m.n)
	}
	c.r.Done(m.seq)
	return fmt.Sprintf("done %d", m.n)
}

func (s *spoolLane) attach(window Window, lowers bool) string {
	s.mu.Lock()
	if s.conn != nil {
		s.past = append(s.past, s.conn)
	}
	s.conns++
	c := &spoolConn{s: s, n: s.conns, life: s.life, window: window, lowers: lowers, ready: true}
	s.conn = c
	s.mu.Unlock()
	c.r = s.l.Attach(c, window)
	return fmt.Sprintf("attach %+v, lowers %v", window, lowers)
}

func (s *spoolLane) detach(hold bool) string {
	s.mu.Lock()
	c := s.conn
	s.past = append(s.past, c)
	s.conn = nil
	s.ended = s.ended || !hold
	s.mu.Unlock()
	c.r.Detach(hold)
	return fmt.Sprintf("detach, hold %v", hold)
}

// unmark releases one of the messages that were acknowledged to their source.
func (s *spoolLane) unmark(rng *rand.Rand) string {
	s.mu.Lock()
	var told []*spoolMessage
	for _, m := range s.messages {
		if m.m.QoS == 2 && m.told != 0 && s.allowed[uint16(m.n)] {
			told = append(told, m)
		}
	}
	if len(told) == 0 {
		s.mu.Unlock()
		return "nothing to unmark"
	}
	m := told[rng.IntN(len(told))]
	m.mark, m.firm, m.released = false, false, true
	life := s.life
	s.mu.Unlock()
	s.l.Unmark(uint16(m.n), func() {
		stored := s.run.store.marked(s.key, uint16(m.n))
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.life != life || s.run.killed.Load() {
			return
		}
		if stored && s.allowed[uint16(m.n)] {
			s.faultf("the mark %d is gone, and there", m.n)
		}
		s.allowed[uint16(m.n)] = false
	})
	return fmt.Sprintf("unmark %d", m.n)
}

// mark marks a message that was delivered.
func (s *spoolLane) mark() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range slices.Backward(s.messages) {
		if m.m.QoS == 2 && m.told == Delivered && !m.mark && !m.released && s.allowed[uint16(m.n)] && m.n > s.since {
			m.mark = true
			s.l.Mark(mqtt.Mark{ID: uint16(m.n), Sum: mqtt.Sum(m.m.Payload)})
			return fmt.Sprintf("mark %d", m.n)
		}
	}
	return "nothing to mark"
}

// endSession forgets all marks.
func (s *spoolLane) endSession() string {
	s.mu.Lock()
	s.since = len(s.messages)
	for _, m := range s.messages {
		m.mark, m.firm = false, false
	}
	s.mu.Unlock()
	s.l.ClearMarks()
	return "clear marks"
}

// holds says whether a lane's n-th message is stored.
func (s *fakeStore) holds(k Key, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[k]; l != nil {
		for _, r := range l.records {
			if number(&r.Message) == n {
				return true
			}
		}
	}
	return false
}

func number(m *mqtt.Message) int { return int(binary.BigEndian.Uint64(m.Payload)) }

func (s *fakeStore) marked(k Key, id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[k]; l != nil {
		_, ok := l.marks[id]
		return ok
	}
	return false
}
