package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// peer is a device, or an application, that is always busy. It publishes numbered messages, as many at a time as a
// window allows, and takes others. When its connection is lost it comes back to its session, which it asks to be kept,
// and sends again what was not acknowledged, as MQTT 3.1.1 says in 4.4. So nothing may be missing in the end.
type peer struct {
	addr, id, user, password string

	topic  string // to publish to; a level with the QoS follows
	total  int    // messages to publish, of QoS 1 and 2 in turns; even
	filter string // to subscribe to if not empty
	expect int    // messages to take before it leaves, not counting repetitions

	mu       sync.Mutex         // protects the following fields
	acked    int                // of its own messages
	taken    []message          // in the order in which they came or were released
	in       map[uint16]message // QoS 2 that came and was not released
	connects int

	// What follows belongs to run.
	conn       net.Conn
	subscribed bool
	next       int         // the number of the next message
	out        []*outgoing // published and not done with, oldest first
	last       uint16      // the latest packet identifier
}

// outgoing is a message on its way.
type outgoing struct {
	packet   *packets.PublishPacket
	received bool // PUBREC came, in this session
	counted  bool // as acknowledged
}

const peerWindow = 20

// run works until everything is published and taken. It is to be called once.
func (p *peer) run(ctx context.Context) error {
	p.in = make(map[uint16]message)
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		err := p.session(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		var refused refusedError
		if errors.As(err, &refused) {
			return err
		}
		select { // a little patience with a server that is not there
		case <-retry.C:
		case <-ctx.Done():
		}
	}
}

type refusedError byte

func (e refusedError) Error() string { return fmt.Sprintf("CONNACK %d", byte(e)) }

// session is one connection. It returns nil when all is done.
func (p *peer) session(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	p.conn = conn
	if err := p.begin(); err != nil {
		return err
	}
	for {
		if err := p.fill(); err != nil {
			return err
		}
		if p.done() {
			_ = packets.NewControlPacket(packets.Disconnect).Write(conn) // a courtesy
			return nil
		}
		got, err := packets.ReadPacket(conn)
		if err != nil {
			return fmt.Errorf("%s: %w", p.progress(), err)
		}
		if err := p.handle(got); err != nil {
			return err
		}
	}
}

// begin connects, and takes up where the connection before ended.
func (p *peer) begin() error {
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.ClientIdentifier = "MQTT", 4, p.id
	c.UsernameFlag, c.Username, c.PasswordFlag, c.Password = true, p.user, true, []byte(p.password)
	if err := c.Write(p.conn); err != nil {
		return err
	}
	got, err := packets.ReadPacket(p.conn)
	if err != nil {
		return err
	}
	ack, ok := got.(*packets.ConnackPacket)
	if !ok || ack.ReturnCode != 0 {
		return refusedError(ack.ReturnCode)
	}
	p.mu.Lock()
	p.connects++
	if !ack.SessionPresent {
		p.subscribed = false
		clear(p.in)
	}
	p.mu.Unlock()
	if p.filter != "" && !p.subscribed {
		s := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
		s.MessageID, s.Topics, s.Qoss = 65535, []string{p.filter}, []byte{2}
		if err := s.Write(p.conn); err != nil {
			return err
		}
	}
	for _, o := range p.out {
		if !ack.SessionPresent {
			o.received = false
		}
		o.packet.Dup = true
		if err := p.send(o); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) send(o *outgoing) error {
	if o.received {
		return p.answer(packets.Pubrel, o.packet.MessageID)
	}
	return o.packet.Write(p.conn)
}

// fill publishes what the window allows, once the subscription stands.
func (p *peer) fill() error {
	for p.next < p.total && len(p.out) < peerWindow && (p.subscribed || p.filter == "") {
		m := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		m.Qos = byte(1 + p.next%2)
		m.TopicName, m.Payload = fmt.Sprint(p.topic, "/", m.Qos), payload(strconv.Itoa(p.next/2))
		p.last = p.last%1000 + 1
		m.MessageID = p.last
		p.next++
		o := &outgoing{packet: m}
		p.out = append(p.out, o)
		if err := p.send(o); err != nil {
			return err
		}
	}
	return nil
}

// done says whether everything was exchanged. What was not released when bridged ended is released when its packet
// identifier is used again, which may be never.
func (p *peer) done() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked == p.total && len(p.out) == 0 && (len(p.in) == 0 || p.connects > 1) &&
		len(distinct(p.taken)) >= p.expect &&
		(p.subscribed || p.filter == "")
}

func (p *peer) handle(got packets.ControlPacket) error {
	switch got := got.(type) {
	case *packets.SubackPacket:
		if got.ReturnCodes[0] != 2 {
			return refusedError(got.ReturnCodes[0])
		}
		p.subscribed = true
	case *packets.PublishPacket:
		return p.take(got)
	case *packets.PubrelPacket:
		p.release(got.MessageID)
		return p.answer(packets.Pubcomp, got.MessageID)
	case *packets.PubackPacket:
		p.finish(got.MessageID)
	case *packets.PubrecPacket:
		for _, o := range p.out {
			if o.packet.MessageID == got.MessageID {
				o.received = true
				p.count(o)
			}
		}
		return p.answer(packets.Pubrel, got.MessageID)
	case *packets.PubcompPacket:
		p.finish(got.MessageID)
	}
	return nil
}

func (p *peer) count(o *outgoing) {
	if o.counted {
		return
	}
	o.counted = true
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked++
}

// finish is done with a message of its own.
func (p *peer) finish(id uint16) {
	i := slices.IndexFunc(p.out, func(o *outgoing) bool { return o.packet.MessageID == id })
	if i < 0 {
		return
	}
	p.count(p.out[i])
	p.out = slices.Delete(p.out, i, i+1)
}

// take takes a message. One of QoS 2 is kept until it is released; until then another under its identifier is a
// repetition.
func (p *peer) take(m *packets.PublishPacket) error {
	got := message{topic: m.TopicName, payload: string(m.Payload), qos: m.Qos, retain: m.Retain}
	p.mu.Lock()
	if _, known := p.in[m.MessageID]; m.Qos == 2 && !known {
		p.in[m.MessageID] = got
	}
	if m.Qos < 2 {
		p.taken = append(p.taken, got)
	}
	p.mu.Unlock()
	switch m.Qos {
	case 1:
		return p.answer(packets.Puback, m.MessageID)
	case 2:
		return p.answer(packets.Pubrec, m.MessageID)
	}
	return nil
}

// release takes a message that came with QoS 2.
func (p *peer) release(id uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m, ok := p.in[id]; ok {
		p.taken = append(p.taken, m)
		delete(p.in, id)
	}
}

func (p *peer) answer(kind byte, id uint16) error {
	head := kind << 4
	if kind == packets.Pubrel {
		head |= 2
	}
	_, err := p.conn.Write([]byte{head, 2, byte(id >> 8), byte(id)})
	return err
}

func (p *peer) progress() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%s: %d of %d acknowledged, %d of %d taken (%d with repetitions, %d not released), %d connects",
		p.id, p.acked, p.total, len(distinct(p.taken)), p.expect, len(p.taken), len(p.in), p.connects)
}

// ackedCount is how many of its own messages were acknowledged so far.
func (p *peer) ackedCount() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked
}

func distinct(all []message) map[message]struct{} {
	set := make(map[message]struct{})
	for _, m := range all {
		set[m] = struct{}{}
	}
	return set
}

// complete checks that the numbered messages of one topic are all there, in order. Where an acknowledgement was lost
// some may be repeated, beginning with the oldest that was not acknowledged: at most so many.
//
// A topic has messages of one QoS, because Mosquitto passes one of QoS 2 on when it is released, and a later one of QoS
// 1 may overtake it.
func complete(tb testing.TB, topic string, all []message, total, maxRepetitions int) {
	tb.Helper()
	expected, repetitions, previous := 0, 0, -1
	for _, m := range all {
		if m.topic != topic {
			continue
		}
		n, err := strconv.Atoi(strings.TrimPrefix(m.payload, payloadMark+" "))
		if err != nil {
			tb.Fatalf("%s: not one of the numbered messages: %s", topic, m)
		}
		if n > expected {
			tb.Errorf("%s: after %d came %d: what is between is lost or late", topic, previous, n)
			return
		}
		if n == expected {
			expected++
		} else {
			repetitions++
		}
		previous = n
	}
	if expected != total {
		tb.Errorf("%s: %d of %d messages arrived", topic, expected, total)
	}
	if repetitions > maxRepetitions {
		tb.Errorf("%s: %d messages were repeated, want at most %d", topic, repetitions, maxRepetitions)
	}
}
