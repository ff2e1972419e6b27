package lane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"bridged/internal/mqtt"
)

// pair is a lane and its model.
type pair struct {
	l      *Lane
	s      *source
	model  *modelLane
	rng    *rand.Rand
	n      int // messages offered
	reader *Reader
	past   []*Reader
	c      *consumer
}

func newPair(rng *rand.Rand, budget *Budget, model *modelBudget) *pair {
	cfg := Config{
		MaxMessages: 1 + rng.IntN(12), MaxBytes: (1 + rng.Int64N(10)) * (base + 100), OnFull: Policy(rng.IntN(3)),
		DropQoS0: rng.IntN(2) == 0, Budget: budget, MaxPayload: 300 * rng.Int64N(2), MaxTopicBytes: 2, Hold: rng.IntN(3) > 0,
	}
	if rng.IntN(2) == 0 {
		cfg.MaxAge = time.Duration(1+rng.IntN(5)) * time.Second
	}
	return &pair{l: New(cfg), s: new(source), model: &modelLane{cfg: cfg, budget: model, hold: cfg.Hold}, rng: rng}
}

// step does something at random to both.
func (p *pair) step() (did string, err error) {
	l, model, rng := p.l, p.model, p.rng
	switch n := rng.IntN(100); {
	case n < 40:
		return p.offer()
	case n < 65:
		return p.done()
	case n < 70:
		return p.attach(), nil
	case n < 76 && p.reader != nil:
		p.reader.Start()
		if r := model.attached; r != nil {
			r.started = true
			model.pump()
		}
		return "start", nil
	case n < 80 && p.reader != nil:
		hold := rng.IntN(4) > 0
		p.reader.Detach(hold)
		if model.attached != nil {
			model.rewind()
			model.setHold(hold)
		}
		return fmt.Sprintf("detach, hold %v", hold), nil
	case n < 82:
		hold := rng.IntN(3) > 0
		l.Hold(hold)
		model.setHold(hold)
		return fmt.Sprintf("hold %v", hold), nil
	case n < 88 && model.attached != nil:
		r := model.attached
		r.ready = !r.ready
		p.c.notReady = !r.ready
		p.reader.Pump()
		model.pump()
		return fmt.Sprintf("ready %v", r.ready), nil
	case n < 91:
		l.Sweep()
		model.sweep()
		model.pump() // what the window held back may have been dropped
		return "sweep", nil
	case n < 95:
		<-time.After(time.Duration(rng.IntN(1500)) * time.Millisecond) // the clock of the bubble
		return "time goes by", nil
	case n < 97 && len(p.past) > 0: // those who were replaced have nothing to say
		r := p.past[rng.IntN(len(p.past))]
		r.Pump()
		r.Start()
		r.Detach(rng.IntN(2) == 0)
		return "an earlier reader", nil
	}
	if p.reader != nil {
		p.reader.Pump()
		model.pump()
	}
	return "pump", nil
}

func (p *pair) offer() (string, error) {
	p.n++
	payload := make([]byte, 8+p.rng.IntN(100))
	if p.rng.IntN(10) == 0 {
		payload = make([]byte, p.rng.IntN(1000)+8)
	}
	binary.BigEndian.PutUint64(payload, uint64(p.n))
	m := mqtt.Message{Topic: "ttt"[:1+p.rng.IntN(2)+p.rng.IntN(10)/9], Payload: payload, QoS: byte(p.rng.IntN(3))}
	if p.rng.IntN(5) == 0 {
		m.Expires = time.Now().Add(time.Duration(p.rng.IntN(4000)) * time.Millisecond)
	}
	var from Source = p.s
	if m.QoS == 0 && p.rng.IntN(2) == 0 {
		from = nil
	}
	did := fmt.Sprintf("offer %d: QoS %d, size %d", p.n, m.QoS, m.Size())
	got, want := p.l.Offer(m, from, mqtt.Token(p.n)), p.model.offer(m, from != nil, mqtt.Token(p.n))
	if got != want {
		return did, fmt.Errorf("it returned %v, want %v", got, want)
	}
	return did, nil
}

// done ends a message, mostly one that is in flight, on the reader of now or an earlier one.
func (p *pair) done() (string, error) {
	var sent []*modelMessage
	for _, m := range p.model.messages {
		if m.seq > 0 && (m.state != gone || p.rng.IntN(50) == 0) {
			sent = append(sent, m)
		}
	}
	if len(sent) == 0 {
		return "nothing to do", nil
	}
	m := sent[p.rng.IntN(min(3, len(sent)))]
	r := p.reader
	if len(p.past) > 0 && p.rng.IntN(4) == 0 {
		r = p.past[p.rng.IntN(len(p.past))]
	}
	did, o, reason := fmt.Sprintf("done %d", m.token), Delivered, Reason(0)
	if p.rng.IntN(6) == 0 {
		did, o, reason = fmt.Sprintf("drop %d", m.token), Dropped, TooLarge
		r.Drop(m.seq, TooLarge)
	} else {
		r.Done(m.seq)
	}
	p.model.finish(m, o, reason)
	if p.model.next() != nil {
		p.model.pump()
	}
	return did, nil
}

func (p *pair) attach() string {
	if p.reader != nil {
		p.past = append(p.past, p.reader)
	}
	r := &modelReader{ready: true, lowers: p.rng.IntN(6) == 0}
	r.window = Window{Messages: 1 + p.rng.IntN(6), Bytes: (1 + p.rng.Int64N(8)) * (base + 50)}
	p.c = new(consumer)
	if r.lowers {
		p.c.onDeliver = func(d Delivery) { p.reader.Done(d.Seq) }
	}
	p.reader = p.l.Attach(p.c, r.window)
	p.model.rewind()
	p.model.attached = r
	return fmt.Sprintf("attach, window %+v, lowers %v", r.window, r.lowers)
}

// check compares what the lane said, and says of itself, with the model.
func (p *pair) check() error {
	model := p.model
	settled, rooms := p.s.got()
	if !slices.Equal(settled, model.settled) {
		return fmt.Errorf("settled %v, want %v", settled, model.settled)
	}
	if rooms != model.rooms {
		return fmt.Errorf("%d calls of Room, want %d", rooms, model.rooms)
	}
	want := model.delivered
	model.settled, model.rooms, model.delivered = nil, 0, nil
	if err := p.checkDelivered(want); err != nil {
		return err
	}
	got := p.l.Counters()
	if err := checkLedger(got); err != nil {
		return err
	}
	counters := model.count
	counters.Queued, counters.Bytes, counters.InFlight, _ = model.sums()
	model.live(func(m *modelMessage) bool { counters.Oldest = time.Since(m.at); return false })
	if got != counters {
		return fmt.Errorf("counters %+v, want %+v", got, counters)
	}
	if p.l.Empty() != (counters.Queued == 0) {
		return errors.New("Empty is wrong")
	}
	return nil
}

func (p *pair) checkDelivered(want []*modelMessage) error {
	var got []Delivery
	if p.c != nil {
		got = p.c.got()
		if p.c.unflushed > 0 {
			return fmt.Errorf("%d deliveries are not flushed", p.c.unflushed)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d delivered, want %d", len(got), len(want))
	}
	for i, d := range got {
		m := want[i]
		n := binary.BigEndian.Uint64(d.Message.Payload)
		if n != binary.BigEndian.Uint64(m.m.Payload) || d.Dup != (m.dup && m.m.QoS > 0) || d.Message.QoS != m.m.QoS {
			return fmt.Errorf("delivered message %d (dup %v), want %d (dup %v)", n, d.Dup, m.token, m.dup)
		}
		if d.Seq == 0 || m.seq != 0 && m.seq != d.Seq {
			return fmt.Errorf("message %d has sequence number %d, and had %d", n, d.Seq, m.seq)
		}
		m.seq = d.Seq
	}
	return nil
}

// TestModel has three lanes with a common budget do random things. After every step all of them must be what the
// model says.
func TestModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 120 {
			seed := rand.Uint64()
			if err := runModel(seed); err != nil {
				t.Fatalf("seed %#x: %v", seed, err)
			}
		}
	})
}

func runModel(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	limit := 10 * (base + rng.Int64N(500))
	budget, model := NewBudget(limit), &modelBudget{limit: limit}
	pairs := make([]*pair, 3)
	for i := range pairs {
		pairs[i] = newPair(rng, budget, model)
	}
	var log []string
	for range 200 {
		i := rng.IntN(len(pairs))
		did, err := pairs[i].step()
		log = append(log, fmt.Sprintf("lane %d: %s", i, did))
		for j := 0; j < len(pairs) && err == nil; j++ {
			if err = pairs[j].check(); err != nil {
				err = fmt.Errorf("lane %d, %+v: %w", j, pairs[j].model.cfg, err)
			}
		}
		if err == nil && budget.Used() != model.used {
			err = fmt.Errorf("%d bytes are taken from the budget, want %d", budget.Used(), model.used)
		}
		if err != nil {
			return fmt.Errorf("%w\nthe last steps: %q", err, log[max(0, len(log)-12):])
		}
	}
	for i, p := range pairs {
		if p.reader != nil {
			p.reader.Detach(false)
		}
		p.l.Hold(false)
		if c := p.l.Counters(); c.Queued != 0 || c.Accepted != c.Delivered+c.DroppedTotal() {
			return fmt.Errorf("lane %d in the end: %+v", i, c)
		}
		if p.l.expiring != 0 {
			return fmt.Errorf("lane %d counts %d messages that expire, and is empty", i, p.l.expiring)
		}
		if n := len(p.l.q.buf); n > ringKeep {
			return fmt.Errorf("lane %d keeps %d places", i, n)
		}
	}
	if n := budget.Used(); n != 0 {
		return fmt.Errorf("%d bytes are taken from the budget in the end", n)
	}
	return nil
}
