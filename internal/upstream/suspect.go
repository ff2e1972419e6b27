package upstream

import (
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/zap"

	"bridged/internal/failure"
	"bridged/internal/lane"
)

// Some clouds answer a message that they do not take, because of its topic or its size, by closing the connection. Such
// a message is the first to be sent on the next one, and blocks its lane for ever. It is dropped, but only when all
// this shows that it is the message and neither the network nor the cloud as a whole:
//
//   - suspectAfter sessions in a row were established and closed by the other side within soon after the message was
//     sent, which was the oldest, and the cloud acknowledged nothing on any of them;
//   - then, on refusedAfter sessions in a row, nothing was sent at first. The session stood for Config.Quiet, no
//     SUBSCRIBE or PUBREL was unanswered, and the cloud answered a ping. Then the message was sent, alone, and the
//     other side closed the connection, again within soon and without an acknowledgement;
//   - the cloud has acknowledged another message since the start of the process and since the last one that was
//     dropped like this. A cloud that takes nothing at all costs one message at most.
//
// Any other end of a session begins the count anew: a timeout, a stall, an end while nothing was on its way. If the
// third condition is not met, or Config.Refused not set, the lane stays blocked, and the failure says why.
const (
	suspectAfter = 5
	refusedAfter = 3
	soon         = 5 * time.Second
)

// suspicion is what sessions have shown so far. flow.mu protects it, like trial.
type suspicion struct {
	seq    uint64 // the message
	ends   int    // sessions in a row that it ended
	alone  int    // sessions in a row that it ended, alone and with the cloud well
	spread int    // how many messages were sent on the latest session that sent it with others
	proven bool   // the cloud has acknowledged another message
}

// trial watches the messages of one session.
type trial struct {
	alone  bool // one message at a time, and none before begun
	pinged bool // the cloud was asked for a sign that it is well
	begun  bool
	sent   int    // messages, of any QoS
	last   uint64 // the latest that is to be acknowledged, 0 when it was
	acked  int    // messages
	spread int    // with so many acknowledged it is no message here that ended the sessions before
	first  sent   // the oldest that is to be acknowledged, if any
	proof  *bool  // suspicion.proven
}

// sent is a message that was sent.
type sent struct {
	at    time.Time
	seq   uint64
	topic string
	bytes int // of its payload
	qos   byte
}

// try begins the trial of a new session.
func (p *suspicion) try() trial {
	return trial{alone: p.ends >= suspectAfter, spread: p.spread, proof: &p.proven}
}

// open says whether another message may be sent.
func (t *trial) open() bool { return !t.alone || t.begun && t.last == 0 }

func (t *trial) sending(d *lane.Delivery, qos byte) {
	t.sent++
	if qos == 0 {
		return
	}
	t.last = d.Seq
	if t.first.at.IsZero() {
		t.first = sent{time.Now(), d.Seq, d.Message.Topic, len(d.Message.Payload), qos}
	}
}

// acknowledged records a PUBACK, PUBREC or PUBCOMP for a message.
func (t *trial) acknowledged(seq uint64, known bool, kind byte) {
	if !known {
		return
	}
	*t.proof = true
	if kind != packets.Pubcomp || t.acked == 0 { // PUBREC counted
		t.acked++
	}
	if kind != packets.Pubrec && t.last == seq {
		t.last = 0
	}
	if t.acked >= t.spread {
		t.alone = false
	}
}

// probeLocked asks the cloud for a sign that it is well, before a message is tried on it.
func (s *session) probeLocked(now time.Time) {
	w := s.w
	w.flow.mu.Lock()
	defer w.flow.mu.Unlock()
	if s.trial.alone && !s.trial.pinged && len(s.exchanges) == 0 && now.Sub(w.upSince) >= w.cfg.Quiet {
		s.trial.pinged = true
		s.pingAt, s.lastSent = now, now
		s.out = append(s.out, 0xC0, 0)
	}
}

// probes says whether a ping for that may be due soon.
func (s *session) probes() bool {
	s.w.flow.mu.Lock()
	defer s.w.flow.mu.Unlock()
	return s.trial.alone && !s.trial.pinged
}

// begin lets messages flow that waited for the cloud's sign, PINGRESP.
func (s *session) begin() {
	s.w.flow.mu.Lock()
	begins := s.trial.pinged && !s.trial.begun
	s.trial.begun = s.trial.pinged
	s.w.flow.mu.Unlock()
	if begins {
		s.reader.Pump()
	}
}

// judge draws the conclusions from how a session has ended, nil if the worker ended it: it returns what to tell, and
// whether the session's first message is to be dropped.
func (s *session) judge(f *failure.Failure) (told *failure.Failure, refused bool) {
	if f == nil {
		return nil, false
	}
	w := s.w
	w.mu.Lock()
	busy := len(s.exchanges) > 0 // SUBSCRIBE may have been the cause
	w.mu.Unlock()
	w.flow.mu.Lock()
	defer w.flow.mu.Unlock()
	busy = busy || len(w.flow.out.Released()) > 0 // or PUBREL
	p, t := &w.flow.suspicion, &s.trial
	if !p.add(t, s.closedByCloud, busy) {
		return f, false
	}
	refused = p.alone >= refusedAfter && p.proven && w.cfg.Refused != 0
	outcome := ""
	switch {
	case refused:
		*p = suspicion{}
		outcome = "it is dropped, "
	case p.alone >= refusedAfter:
		outcome = "everything waits for it, "
	}
	return failure.New(failure.MessageRefused, failure.StageOnline, f.Err, "%stopic %q, %d bytes", outcome,
		failure.Clean(t.first.topic), t.first.bytes), refused
}

// add takes the end of a session into account and returns whether a message is under suspicion.
func (p *suspicion) add(t *trial, closed, busy bool) bool {
	if !closed || t.acked > 0 || t.first.at.IsZero() || time.Since(t.first.at) > soon {
		p.seq, p.ends, p.alone = 0, 0, 0
		return false
	}
	again := p.seq == t.first.seq
	if !again {
		p.seq, p.ends = t.first.seq, 0
	}
	p.ends++
	if !t.alone {
		p.spread = t.sent
	}
	if again && t.alone && t.sent == 1 && !busy {
		p.alone++
	} else {
		p.alone = 0
	}
	return p.ends >= suspectAfter
}

// dropFirst drops the session's first message, which the cloud does not take.
func (s *session) dropFirst() {
	m := &s.trial.first
	s.w.log.Error("dropped a message that the cloud does not take: it closed the connection each time",
		zap.String("topic", m.topic), zap.Int("bytes", m.bytes), zap.Uint8("qos", m.qos),
		zap.String("remedy", failure.MessageRefused.Info().Remedy))
	s.reader.Drop(m.seq, s.w.cfg.Refused)
}
