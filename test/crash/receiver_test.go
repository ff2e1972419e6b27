package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// receiver is a device with a persistent session that takes numbered messages, and comes and goes.
type receiver struct {
	name, addr string
	rng        *rand.Rand
	// later has it take a QoS 2 message when it is released, as most libraries do, and not when it comes.
	later bool

	stay   <-chan struct{} // closed when it is not to leave any more
	logins atomic.Int64

	link       *link
	subscribed bool
	in         map[uint16]int // QoS 2 messages that were not released, by identifier

	mu  sync.Mutex // protects the following field
	got order
}

func newReceiver(name, addr string, rng *rand.Rand) *receiver {
	return &receiver{name: name, addr: addr, rng: rng, in: make(map[uint16]int), got: order{device: name}}
}

// arrived is how many different messages it has.
func (r *receiver) arrived() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got.next
}

// run goes on until ctx ends.
func (r *receiver) run(ctx context.Context) error {
	for {
		err := r.session(ctx)
		away := 20 * time.Millisecond
		switch {
		case err == nil: // it left by itself
			away = between(r.rng, 0, time.Second)
		case !errors.Is(err, errBroken) && !errors.Is(err, context.Canceled):
			return fmt.Errorf("%s: %w", r.name, err)
		}
		if !wait(ctx, away) {
			return nil
		}
	}
}

// session is one connection. It returns nil when the device leaves.
func (r *receiver) session(ctx context.Context) error {
	l, err := dial(ctx, r.addr, r.name, false)
	if err != nil {
		return err
	}
	defer l.close()
	r.logins.Add(1)
	r.link = l
	if err := r.begin(); err != nil {
		return err
	}
	leave := time.NewTimer(between(r.rng, 100*time.Millisecond, 1500*time.Millisecond))
	defer leave.Stop()
	for {
		select {
		case p, ok := <-l.in:
			if !ok {
				return errBroken
			}
			if err := r.handle(p); err != nil {
				return err
			}
		case <-leave.C:
			select {
			case <-r.stay:
				continue
			default:
			}
			if r.rng.IntN(2) == 0 {
				l.goodbye()
			}
			return nil
		case <-ctx.Done():
			l.goodbye()
			return nil
		}
	}
}

// begin subscribes, the first time.
func (r *receiver) begin() error {
	if r.subscribed {
		if !r.link.present {
			return wrong("the session is gone")
		}
		return nil
	}
	s := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	s.MessageID, s.Topics, s.Qoss = 1, []string{"down/" + r.name}, []byte{2}
	return r.link.send(s)
}

func (r *receiver) handle(p packets.ControlPacket) error {
	switch p := p.(type) {
	case *packets.SubackPacket:
		r.subscribed = true
		if p.ReturnCodes[0] != 2 {
			return wrong("SUBACK %v", p.ReturnCodes)
		}
		return nil
	case *packets.PublishPacket:
		return r.take(p)
	case *packets.PubrelPacket:
		n, known := r.in[p.MessageID]
		delete(r.in, p.MessageID)
		if known && r.later {
			r.have(n)
		}
		return r.link.answer(packets.Pubcomp, p.MessageID)
	}
	return wrong("an unexpected %v", p)
}

// take takes a message. One of QoS 2 that comes under an identifier that was not released is a repetition.
func (r *receiver) take(p *packets.PublishPacket) error {
	n, err := number(r.name, p.Payload)
	if err != nil {
		return err
	}
	if p.TopicName != "down/"+r.name {
		return wrong("a message to %s", p.TopicName)
	}
	if p.Qos == 1 {
		r.have(n)
		return r.link.answer(packets.Puback, p.MessageID)
	}
	switch old, known := r.in[p.MessageID]; {
	case !known:
		r.in[p.MessageID] = n
		if !r.later {
			r.have(n)
		}
	case n != old:
		return wrong("message %d came under the identifier of %d, which was not released", n, old)
	}
	return r.link.answer(packets.Pubrec, p.MessageID)
}

func (r *receiver) have(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got.take(n, r.logins.Load())
}
