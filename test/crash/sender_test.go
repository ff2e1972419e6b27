package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// sender is a device that publishes numbered messages, with a few unacknowledged at a time. It keeps those over
// connections and sends them again, as a client has to.
type sender struct {
	name, addr string
	clean      bool
	qos        func(n int) byte
	window     int
	pace       time.Duration
	burst      int           // messages that it publishes each pace, if the window allows
	leaves     time.Duration // how long it stays connected; 0: for ever
	total      int           // how many it publishes; 0: until it is to finish

	finish <-chan struct{} // closed when it is to finish: nothing new
	acked  atomic.Int64    // messages that were acknowledged
	logins atomic.Int64
	ended  atomic.Bool // all is acknowledged
	next   int         // the number of its next message; for others to read when it has ended

	link       *link
	subscribed bool // bridged has confirmed a subscription, so that the session must be there from now on
	out        []*outgoing
	id         uint16
	sent       []int // the number of each message that it sent, in order; for others to read when it has ended
	early      int   // acknowledgements that came before older ones; for others to read when it has ended
}

// outgoing is a message that is not done with.
type outgoing struct {
	n        int // its number
	packet   *packets.PublishPacket
	received bool // PUBREC came
	answered bool // on this connection
}

// run returns when all is acknowledged.
func (s *sender) run(ctx context.Context) error {
	for {
		err := s.session(ctx)
		switch {
		case err == nil:
			s.ended.Store(true)
			return nil
		case !errors.Is(err, errBroken):
			return fmt.Errorf("%s: %w, with %d of %d messages acknowledged", s.name, err, s.acked.Load(), s.next)
		case !wait(ctx, 20*time.Millisecond):
			return fmt.Errorf("%s: %w, with %d of %d messages acknowledged", s.name, ctx.Err(), s.acked.Load(), s.next)
		}
	}
}

// session is one connection. It returns nil when all is acknowledged.
func (s *sender) session(ctx context.Context) error {
	l, err := dial(ctx, s.addr, s.name, s.clean)
	if err != nil {
		return err
	}
	defer l.close()
	s.logins.Add(1)
	s.link = l
	if err := s.again(); err != nil {
		return err
	}
	tick := time.NewTicker(s.pace)
	defer tick.Stop()
	var leave <-chan time.Time
	if s.leaves > 0 {
		t := time.NewTimer(s.leaves)
		defer t.Stop()
		leave = t.C
	}
	for !s.over() {
		select {
		case p, ok := <-l.in:
			if !ok {
				return errBroken
			}
			err = s.handle(p)
		case <-tick.C:
			for i := 0; i < s.burst && err == nil; i++ {
				err = s.publish()
			}
		case <-leave:
			return errBroken
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	l.goodbye()
	return nil
}

// over says whether all is done.
func (s *sender) over() bool { return len(s.out) == 0 && s.full() }

// full says whether it has published all that it is to.
func (s *sender) full() bool {
	if s.total > 0 {
		return s.next >= s.total
	}
	select {
	case <-s.finish:
		return true
	default:
		return false
	}
}

// again sends what is not done with, in order.
func (s *sender) again() error {
	if !s.clean && !s.link.present {
		if err := s.subscribe(); err != nil {
			return err
		}
	}
	if !s.link.present { // what bridged has said PUBREC for is its own; the rest begins anew
		s.out = slices.DeleteFunc(s.out, func(o *outgoing) bool { return o.received })
	}
	for _, o := range s.out {
		o.answered = false
		o.packet.Dup = s.link.present
		var err error
		if o.received {
			err = s.link.answer(packets.Pubrel, o.packet.MessageID)
		} else {
			s.sent = append(s.sent, o.n)
			err = s.link.send(o.packet)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// subscribe subscribes to something that never comes.
func (s *sender) subscribe() error {
	if s.subscribed {
		return wrong("the session is gone")
	}
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics, p.Qoss = 65535, []string{"down/" + s.name}, []byte{1}
	return s.link.send(p)
}

// publish publishes the next message, if the window allows one.
func (s *sender) publish() error {
	if len(s.out) >= s.window || s.full() {
		return nil
	}
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos = "up/"+s.name, text(s.name, s.next), s.qos(s.next)
	s.id = s.id%1000 + 1
	p.MessageID = s.id
	s.out = append(s.out, &outgoing{n: s.next, packet: p})
	s.sent = append(s.sent, s.next)
	s.next++
	return s.link.send(p)
}

func (s *sender) handle(p packets.ControlPacket) error {
	switch p := p.(type) {
	case *packets.SubackPacket:
		s.subscribed = true
		return nil
	case *packets.PubackPacket:
		return s.acknowledged(1, p.MessageID)
	case *packets.PubrecPacket:
		if err := s.acknowledged(2, p.MessageID); err != nil {
			return err
		}
		return s.link.answer(packets.Pubrel, p.MessageID)
	case *packets.PubcompPacket:
		i := s.find(p.MessageID)
		if i < 0 || !s.out[i].received {
			return wrong("PUBCOMP %d for nothing that was released", p.MessageID)
		}
		s.out = slices.Delete(s.out, i, i+1)
		return nil
	}
	return wrong("an unexpected %v", p)
}

func (s *sender) find(id uint16) int {
	return slices.IndexFunc(s.out, func(o *outgoing) bool { return o.packet.MessageID == id })
}

// acknowledged handles PUBACK and PUBREC, which come in the order of the messages (MQTT 3.1.1, 4.6).
func (s *sender) acknowledged(qos byte, id uint16) error {
	i := s.find(id)
	if i < 0 || s.out[i].packet.Qos != qos || s.out[i].answered {
		return wrong("an acknowledgement %d for nothing that awaits it", id)
	}
	for _, o := range s.out[:i] {
		if o.packet.Qos == qos && !o.received && !o.answered {
			s.early++
		}
	}
	s.acked.Add(1)
	if qos == 1 {
		s.out = slices.Delete(s.out, i, i+1)
	} else {
		s.out[i].received, s.out[i].answered = true, true
	}
	return nil
}
