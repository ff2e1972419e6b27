package upstream

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
	"go.uber.org/zap"

	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
	"bridged/internal/netconn"
	"bridged/internal/transport"
	"bridged/internal/wire"
)

const (
	connackTimeout = 15 * time.Second
	// maxIDs bounds packet identifiers in use. spareIDs are for SUBSCRIBEs and for what another process may have left.
	maxIDs   = 30000
	spareIDs = 1000
	// windowBytes bounds what is unacknowledged in a session, beside the cloud's limit in messages.
	windowBytes = 256 << 10
	// keepBuffer is the largest send buffer to keep for the next time.
	keepBuffer = 16 << 10
	// sendReady is how many bytes may wait for the cloud until the session takes no more from its lane.
	sendReady = 64 << 10
	// maxPackets is how many packets are handled at a time. Then other connections have their turn.
	maxPackets = 64
	// maxUnread is how much more than the largest message may wait for the cloud before it is not read any more: what it
	// has not read are the answers to what it sends.
	maxUnread = 1 << 20
)

// session is one connection to the cloud: an MQTT 3.1.1 client over WebSocket.
type session struct {
	w      *Worker
	ws     *websocket.Conn
	nc     *netconn.Conn
	rd     *wire.Reader
	reader *lane.Reader // set when established

	// What CONNECT said.
	clean bool
	armed bool // with a will
	// refused says that the cloud did not accept CONNECT, and so has not taken the will.
	refused bool
	// late says that CONNACK did not come in time. The cloud may have taken the will all the same: DISCONNECT takes it
	// back.
	late bool
	// Used by whoever reads: connect, then Readable, then Worker.served.
	left          bool   // nothing is read any more
	closedByCloud bool   // the session ended because the other side closed the connection
	corked        corker // the lane that uncork is due to, nil for none

	heard  atomic.Bool // something came since the last tick
	sent   atomic.Bool // something was sent since the last tick
	ending atomic.Bool // Readable is to end it; written under Worker.mu
	// largest is the size of the largest payload that was sent.
	largest atomic.Int64
	waiting atomic.Bool // for room in the parking: nothing is read. Written under Worker.flow.mu
	// yielding says that another session is to follow, see yieldLocked; deaf that what the cloud sends is not wanted
	// any more. Both are written under Worker.mu.
	yielding, deaf atomic.Bool

	// Protected by Worker.mu.
	established bool
	graceful    bool // end with DISCONNECT
	finish      bool // end when the up lane is empty, without lingering
	abort       bool // and without DISCONNECT, so that the cloud publishes the will
	exchanges   map[uint16]*exchange
	lastHeard   time.Time
	lastSent    time.Time
	ticked      time.Time // the last tick
	pingAt      time.Time // when the PINGREQ that is not answered was sent
	oldest      oldest
	answered    bool             // a SUBSCRIBE or UNSUBSCRIBE was
	lost        *failure.Failure // why the Keeper cut the connection
	yieldUntil  time.Time        // set while yielding
	yieldReason string

	// Protected by Worker.flow.mu.
	out, spare []byte // out begins with space for the frame's header
	writing    bool
	closed     bool
	yieldLeft  int // how many messages may be sent while yielding
	trial      trial
}

func newSession(w *Worker, ws *websocket.Conn, nc *netconn.Conn) *session {
	return &session{
		w: w, ws: ws, nc: nc, rd: wire.NewReader(ws, &w.maxPacket), exchanges: make(map[uint16]*exchange), out: frame(nil),
	}
}

// connect sends CONNECT and waits for CONNACK. It also returns nil if the session is not wanted any more: it is
// ending then.
func (s *session) connect(login credentials.Login, lease *governor.Lease) *failure.Failure {
	w := s.w
	w.mu.Lock()
	if !w.demandLocked() {
		s.ending.Store(true)
		w.mu.Unlock()
		return nil
	}
	reset := w.reset && !w.cleanLocked()
	s.clean = reset || w.cleanLocked()
	p := wire.Connect(login, w.cfg.Keepalive, s.clean)
	if w.needsWillLocked() && !reset {
		will := w.connect.Will
		s.armed = true
		p.WillFlag, p.WillTopic, p.WillMessage = true, w.cfg.Topics.Up(will.Topic), will.Payload
		p.WillQos, p.WillRetain = min(will.QoS, w.cfg.Limits.MaxQoS), will.Retain && w.cfg.Limits.Retain
	}
	w.live = s
	w.setStateLocked(Connecting, "")
	w.mu.Unlock()

	lease.Sent()
	s.append(func(b []byte) []byte { return wire.AppendPacket(b, p) })
	s.flush()
	present, refused, f := s.rd.Connack(s.nc, connackTimeout)
	if f != nil {
		if s.ending.Load() && !refused && f.Kind != failure.NoConnack {
			return nil
		}
		s.refused, s.late = refused, f.Kind == failure.NoAnswer
		return f
	}
	lease.Connected()
	s.establish(present && !s.clean, reset)
	return nil
}

// establish takes up relaying after CONNACK. A connection that was made to discard the cloud's session ends at once.
func (s *session) establish(present, reset bool) {
	w := s.w
	w.count.connects.Add(1)
	if !present {
		w.forgetFlow()
	}
	w.flow.mu.Lock()
	if present {
		if !w.flow.known && w.cfg.Limits.MaxQoS == 2 {
			w.flow.out.Inherit()
		}
		for _, id := range w.flow.out.Released() {
			s.out = wire.AppendAck(s.out, packets.Pubrel, id)
		}
	}
	w.flow.known = true
	w.flow.live = s
	s.trial = w.flow.suspicion.try()
	w.flow.mu.Unlock()

	w.mu.Lock()
	s.established = true
	now := time.Now()
	w.upSince, s.lastHeard, s.lastSent, s.ticked = now, now, now, now
	w.last = nil
	w.retry.Established(now)
	_ = s.nc.SetReadDeadline(time.Time{}) // before endLocked sets its own; fails only on a closed connection
	w.reset = w.reset && !s.clean
	var calls []func()
	switch {
	case s.ending.Load():
		_ = s.nc.SetReadDeadline(now)
	case reset:
		s.endLocked(true, "the cloud's session was discarded")
	default:
		calls = w.subs.established(w, s, present)
		s.onlineLocked()
	}
	if !s.ending.Load() {
		s.reader = w.cfg.Up.Attach(s, lane.Window{Messages: w.cfg.Limits.MaxInFlight, Bytes: windowBytes})
	}
	w.settleLocked(now)
	w.mu.Unlock()
	w.judged(nil)
	call(calls)
	s.flush()
	if s.reader != nil {
		s.nc.OnDrain(s.drained)
		s.reader.Start()
	}
}

// drained sends what waits, and reads again, after the cloud has taken what was sent.
func (s *session) drained() {
	s.nc.Kick()
	s.reader.Pump()
}

// onlineLocked tells whether the subscriptions are in line.
func (s *session) onlineLocked() {
	switch w := s.w; {
	case w.state == Online || w.state == Draining: // they were in line already
	case len(s.exchanges) > 0:
		w.setStateLocked(Subscribing, "")
	case !w.present && !w.awaited && !w.cfg.Always:
		w.setStateLocked(Draining, "the device is away")
		w.recoveredLocked()
	default:
		w.setStateLocked(Online, "")
		w.recoveredLocked()
	}
}

// Readable implements netconn.Handler: it handles what the cloud has sent.
func (s *session) Readable() {
	if s.left {
		return
	}
	over, f := s.read()
	s.uncork()
	if !over {
		return
	}
	s.left = true
	s.nc.Leave()
	go s.w.served(s, f) // it waits
}

// read handles what has come. over says that the session has ended; the failure is nil if the worker ended it.
func (s *session) read() (over bool, f *failure.Failure) {
	for n := 0; !s.full(); n++ {
		if n == maxPackets {
			s.nc.Kick()
			break
		}
		if s.unread() {
			break // drained has it read again
		}
		p, err := s.rd.Next()
		switch {
		case s.ending.Load():
			return true, nil
		case errors.Is(err, netconn.ErrWouldBlock):
			return false, nil
		case err != nil:
			return true, s.readFailure(err)
		}
		s.heard.Store(true)
		if n > 0 || s.rd.Buffered() {
			s.cork(p)
		}
		if f := s.handle(p); f != nil {
			return true, f
		}
	}
	return false, nil
}

// unread says that the cloud does not read the answers to what it sends.
func (s *session) unread() bool {
	return int64(s.nc.Pending()) > s.largest.Load()+maxUnread && !s.ending.Load() && s.nc.Err() == nil
}

func (s *session) readFailure(err error) *failure.Failure {
	s.w.mu.Lock()
	lost := s.lost
	s.w.mu.Unlock()
	if lost != nil {
		return lost
	}
	f := transport.ReadFailure(failure.StageOnline, err, s.nc)
	s.closedByCloud = closed(f, err)
	return f
}

// corker is one of the device's lanes.
type corker interface {
	Cork()
	Uncork()
}

// cork has a lane gather, until uncork or a packet that is for the other one, what comes of packets like p. Several in
// a row go on in one piece, and all in the order in which they came.
func (s *session) cork(p packets.ControlPacket) {
	var lane corker
	switch p.(type) {
	case *packets.PublishPacket:
		lane = s.w.cfg.Down
	case *packets.PubackPacket, *packets.PubrecPacket, *packets.PubcompPacket:
		lane = s.reader
	}
	if lane == s.corked {
		return
	}
	s.uncork()
	if s.corked = lane; lane != nil {
		lane.Cork()
	}
}

// uncork ends what cork began.
func (s *session) uncork() {
	if lane := s.corked; lane != nil {
		s.corked = nil
		lane.Uncork()
	}
}

func (s *session) handle(p packets.ControlPacket) *failure.Failure {
	w := s.w
	switch p := p.(type) {
	case *packets.PublishPacket:
		if s.deaf.Load() {
			return nil
		}
		return s.inbound(p)
	case *wire.Oversize:
		s.oversize(p)
	case *packets.PubackPacket:
		w.flow.mu.Lock()
		seq, ok := w.flow.out.Ack(p.MessageID)
		s.trial.acknowledged(seq, ok, packets.Puback)
		w.flow.mu.Unlock()
		if ok {
			s.done(seq)
		}
	case *packets.PubrecPacket:
		w.flow.mu.Lock()
		seq, ok := w.flow.out.Receive(p.MessageID)
		s.trial.acknowledged(seq, ok, packets.Pubrec)
		s.out = wire.AppendAck(s.out, packets.Pubrel, p.MessageID)
		w.flow.mu.Unlock()
		s.flush()
	case *packets.PubcompPacket:
		w.flow.mu.Lock()
		seq, ok := w.flow.out.Complete(p.MessageID)
		s.trial.acknowledged(seq, ok, packets.Pubcomp)
		w.flow.mu.Unlock()
		if ok {
			s.done(seq)
		}
	case *packets.PubrelPacket:
		w.release(p.MessageID)
	case *packets.SubackPacket:
		w.subs.answered(w, s, p.MessageID, p.ReturnCodes)
	case *packets.UnsubackPacket:
		w.subs.answered(w, s, p.MessageID, nil)
	case *packets.PingrespPacket: // mostly, that something came is all that counts
		s.begin()
	default:
		return wire.ProtocolError(nil, "a packet that only clients send (%T)", p)
	}
	return nil
}

// stuck says whether something waits for an acknowledgement, and nothing was acknowledged during the whole session.
func (s *session) stuck() bool {
	s.w.mu.Lock()
	asked, answered := len(s.exchanges) > 0, s.answered
	s.w.mu.Unlock()
	s.w.flow.mu.Lock()
	defer s.w.flow.mu.Unlock()
	return !answered && s.trial.acked == 0 && (asked || !s.trial.first.at.IsZero())
}

// done passes the cloud's acknowledgement on.
func (s *session) done(seq uint64) {
	s.reader.Done(seq)
	s.settle()
}

// settle ends the session if what was awaited has happened.
func (s *session) settle() {
	if s.w.leaving.Load() || s.yielding.Load() {
		s.w.settle()
	}
}

// inbound takes a message from the cloud.
func (s *session) inbound(p *packets.PublishPacket) *failure.Failure {
	if p.Qos > 2 || p.Qos > 0 && p.MessageID == 0 || !mqtt.Receivable(p.TopicName) {
		return wire.ProtocolError(nil, "a malformed PUBLISH")
	}
	w := s.w
	m := mqtt.Message{Topic: w.cfg.Topics.Down(p.TopicName), Payload: p.Payload, QoS: p.Qos, Retain: p.Retain}
	if p.Qos == 0 {
		w.cfg.Down.Offer(m, nil, 0)
		return nil
	}
	if token, fresh := s.arrive(p.MessageID, p.Dup, &m); fresh {
		s.offerDown(m, token)
	}
	return nil
}

// Settled records that a message may be acknowledged to the cloud. It is for the down lane.
func (w *Worker) Settled(t mqtt.Token, o lane.Outcome) {
	w.flow.mu.Lock()
	w.flow.in.Settle(t, o == lane.Stored)
	w.flow.mu.Unlock()
}

// SettledAll acknowledges what was settled, on the connection on which it came. It is for the down lane.
func (w *Worker) SettledAll() {
	w.flow.mu.Lock()
	s := w.flow.live
	due := s != nil && s.acknowledgeLocked()
	w.flow.mu.Unlock()
	if due {
		s.flush()
	}
}

// acknowledgeLocked appends the acknowledgements that are to be sent, and says whether there are any.
func (s *session) acknowledgeLocked() (due bool) {
	for {
		id, qos, ok := s.w.flow.in.Due()
		if !ok {
			return due
		}
		kind := byte(packets.Puback)
		if qos == 2 {
			kind = packets.Pubrec
		}
		s.out = wire.AppendAck(s.out, kind, id)
		due = true
	}
}

// Ready says whether the cloud keeps up, and its rate allows another message. It is for the up lane.
func (s *session) Ready() bool {
	if s.ending.Load() || s.nc.Pending() >= sendReady {
		return false
	}
	w := s.w
	w.flow.mu.Lock()
	defer w.flow.mu.Unlock()
	if s.closed || s.yielding.Load() && s.yieldLeft <= 0 || !s.trial.open() {
		return false
	}
	if w.flow.out.InFlight() >= min(w.cfg.Limits.MaxInFlight+spareIDs, maxIDs) {
		return false
	}
	if !w.flow.pacer.ready(time.Now()) {
		w.flow.pacer.wait(s.reader.Pump)
		return false
	}
	return true
}

// Deliver sends a message to the cloud, within what the cloud's profile allows. It is for the up lane.
func (s *session) Deliver(d lane.Delivery) {
	w, m := s.w, &d.Message
	qos, retain := m.QoS, m.Retain
	if qos > w.cfg.Limits.MaxQoS {
		qos = w.cfg.Limits.MaxQoS
		w.count.lowered.Add(1)
	}
	if retain && !w.cfg.Limits.Retain {
		retain = false
		w.count.stripped.Add(1)
	}
	if n := int64(len(m.Payload)); n > s.largest.Load() {
		s.largest.Store(n) // nobody else does
	}
	w.flow.mu.Lock()
	s.yieldLeft--
	if s.closed {
		w.flow.mu.Unlock()
		return
	}
	if w.flow.out.Received(d.Seq) { // the cloud has it; its PUBREL was sent again
		w.flow.mu.Unlock()
		return
	}
	w.flow.pacer.sent()
	s.trial.sending(&d, qos)
	var id uint16
	if qos > 0 {
		id, _, _ = w.flow.out.Assign(d.Seq, qos) // Ready saw to it that there is one
		if w.flow.out.Doubtful(id) {
			s.out = wire.AppendAck(s.out, packets.Pubrel, id)
		}
	}
	s.out = wire.AppendPublish(s.out, m.Topic, m.Payload, qos, retain, d.Dup && qos > 0, id)
	w.flow.mu.Unlock()
	if qos == 0 && m.QoS > 0 {
		s.reader.Done(d.Seq)
	}
}

// Flush writes what Deliver has gathered. It is for the up lane.
func (s *session) Flush() {
	s.flush()
	s.settle() // QoS 0 is done with here
}

// append adds packets to what is to be written.
func (s *session) append(f func([]byte) []byte) {
	s.w.flow.mu.Lock()
	defer s.w.flow.mu.Unlock()
	s.out = f(s.out)
}

// flush writes what has been appended, unless another goroutine is at it: that one takes this along.
func (s *session) flush() {
	mu := &s.w.flow.mu
	mu.Lock()
	defer mu.Unlock()
	if s.writing {
		return
	}
	s.writing = true
	for len(s.out) > wire.FrameHead && !s.closed {
		buf := s.out
		s.out, s.spare = frame(s.spare), nil
		mu.Unlock()
		err := wire.WriteFrame(s.ws, buf)
		s.sent.Store(true)
		mu.Lock()
		if cap(buf) <= keepBuffer {
			s.spare = buf
		}
		if err != nil {
			s.closed = true
			_ = s.nc.Close() // the reader finds out, and why
		}
	}
	s.writing = false
}

// frame begins a frame in a buffer, which may be nil.
func frame(buf []byte) []byte {
	if buf == nil {
		return make([]byte, wire.FrameHead, 64)
	}
	return buf[:wire.FrameHead]
}

// flushSession flushes a session that may be nil.
func (w *Worker) flushSession(s *session) {
	if s != nil {
		s.flush()
	}
}

// endLocked has Readable end the session. Only the first call counts, except that a due will takes the goodbye back.
func (s *session) endLocked(graceful bool, reason string) {
	if s.ending.Load() {
		s.graceful = s.graceful && graceful
		return
	}
	s.graceful = graceful
	s.ending.Store(true)
	s.w.log.Debug("ending the session", zap.String("reason", reason))
	_ = s.nc.SetReadDeadline(time.Now()) // wakes the reader; fails only on a closed connection
}
