package upstream

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
	"bridged/internal/wire"
)

// gathering is a device that counts in how many pieces things come.
type gathering struct {
	device
	flushes, runs int
}

func (g *gathering) Flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flushes++
}

func (g *gathering) SettledAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.runs++
}

// framed is a cloud that is shown, and sends, WebSocket frames.
type framed struct {
	t      *testing.T
	ws     *websocket.Conn
	frames chan []byte
}

// startFramed connects a worker to one.
func startFramed(t *testing.T, change func(*Config)) (*rig, *framed) {
	t.Helper()
	f := &framed{t: t, frames: make(chan []byte, 1000)}
	accepted := make(chan *websocket.Conn, 100)
	cfg := base(serveMQTT(t, func(ws *websocket.Conn) {
		if err := accept(ws); err != nil {
			return // a later connection, which the end of the test cut off
		}
		accepted <- ws
		for {
			_, b, err := ws.ReadMessage()
			if err != nil {
				return
			}
			f.frames <- b
		}
	}))
	if change != nil {
		change(&cfg)
	}
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	f.ws = <-accepted
	return r, f
}

func (f *framed) send(b []byte) {
	f.t.Helper()
	if err := f.ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
		f.t.Fatal(err)
	}
}

// packets waits for a frame and returns the identifiers of the packets in it, which are of one type.
func (f *framed) packets(kind byte) (ids []uint16) {
	f.t.Helper()
	r := bytes.NewReader(<-f.frames)
	for r.Len() > 0 {
		p, err := packets.ReadPacket(r)
		if err != nil {
			f.t.Fatal(err)
		}
		if p, ok := p.(*packets.PublishPacket); ok != (kind == packets.Publish) {
			f.t.Fatalf("got %v", p)
		}
		ids = append(ids, p.Details().MessageID)
	}
	return ids
}

func publishes(from, to int) (b []byte) {
	for id := from; id <= to; id++ {
		b = wire.AppendPublish(b, "d", []byte{'x'}, 1, false, false, uint16(id))
	}
	return b
}

func pubacks(ids ...uint16) (b []byte) {
	for _, id := range ids {
		b = wire.AppendAck(b, packets.Puback, id)
	}
	return b
}

// What is ready together goes in one piece, in all directions.
func TestGathers(t *testing.T) {
	const n = 5
	r, f := startFramed(t, nil)
	g := new(gathering)
	g.reader = r.down.Attach(g, lane.Window{})
	g.reader.Start()

	r.w.Cork()
	for i := range n {
		r.w.Offer(mqtt.Message{Topic: "u", QoS: 1}, g, mqtt.Token(i+1))
	}
	r.w.Uncork()
	ids := f.packets(packets.Publish)
	if len(ids) != n {
		t.Errorf("%d messages in the first frame, want %d", len(ids), n)
	}

	f.send(pubacks(ids...))
	until(t, "settled", func() bool { settled, _ := g.counts(); return settled == n })
	until(t, "a run's end", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.runs > 0 })
	if g.runs != 1 {
		t.Errorf("settled in %d runs, want 1", g.runs)
	}

	f.send(publishes(1, n))
	until(t, "delivery", func() bool { _, delivered := g.counts(); return delivered == n })
	g.mu.Lock()
	if g.flushes > 1 {
		t.Errorf("Flush was called %d times, want once", g.flushes)
	}
	g.mu.Unlock()

	g.reader.Cork()
	for _, d := range g.delivered {
		g.reader.Done(d.Seq)
	}
	g.reader.Uncork()
	if ids := f.packets(packets.Puback); fmt.Sprint(ids) != "[1 2 3 4 5]" {
		t.Errorf("the first frame acknowledges %v", ids)
	}
}

// What is whole is not kept back by what is not, or is wrong.
func TestGathersWhatIsWhole(t *testing.T) {
	half := publishes(7, 7)
	rest := half[3:]
	half = half[:3]
	for name, behind := range map[string][]byte{"half a packet": half, "a wrong packet": {packets.Connack << 4, 2, 0, 0}} {
		t.Run(name, func(t *testing.T) {
			r, f := startFramed(t, nil)
			r.deliver()
			r.offer("u", "1", 1, 1)
			ids := f.packets(packets.Publish)
			r.offer("u", "2", 1, 2)
			ids = append(ids, f.packets(packets.Publish)...)
			f.send(append(append(pubacks(ids...), publishes(6, 6)...), behind...))
			r.settled(2)
			until(t, "delivery", func() bool { _, n := r.dev.counts(); return n == 1 })
			if &behind[0] == &half[0] {
				f.send(rest)
				until(t, "delivery", func() bool { _, n := r.dev.counts(); return n == 2 })
			}
		})
	}
}

// A session that waits for room in the down lane does not keep the lane from making some.
func TestGathersAndWaits(t *testing.T) {
	const n = 3 * parkMessages
	down := lane.New(lane.Config{Hold: true, MaxMessages: 1})
	r, f := startFramed(t, func(cfg *Config) { cfg.Down = down })
	f.send(publishes(1, n))
	until(t, "the session waits", func() bool {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		return r.w.live.waiting.Load()
	})
	r.down = down
	r.deliver()
	for i := range n {
		until(t, "delivery", func() bool { _, got := r.dev.counts(); return got > i })
		r.dev.mu.Lock()
		d := r.dev.delivered[i]
		r.dev.mu.Unlock()
		r.dev.reader.Done(d.Seq)
	}
}

// ordered is a device that notes what comes, in order.
type ordered struct {
	device
	log string
}

func (o *ordered) note(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.log += what
}

func (o *ordered) Settled(t mqtt.Token, _ lane.Outcome) { o.note(fmt.Sprint("ack", t, " ")) }
func (o *ordered) Deliver(d lane.Delivery)              { o.note(string(d.Message.Payload) + " ") }
func (o *ordered) noted() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.log
}

// Messages and acknowledgements reach the device in the order in which the cloud sent them.
func TestGathersInOrder(t *testing.T) {
	r, f := startFramed(t, nil)
	o := new(ordered)
	o.reader = r.down.Attach(o, lane.Window{})
	o.reader.Start()
	r.w.Cork()
	for i := range 3 {
		r.w.Offer(mqtt.Message{Topic: "u", QoS: 1}, o, mqtt.Token(i+1))
	}
	r.w.Uncork()
	ids := f.packets(packets.Publish)
	message := func(id uint16, text string) []byte {
		return wire.AppendPublish(nil, "d", []byte(text), 1, false, false, id)
	}
	f.send(bytes.Join([][]byte{message(1, "a"), message(2, "b"), pubacks(ids[0]), message(3, "c"), pubacks(ids[1:]...),
		message(4, "d")}, nil))
	const want = "a b ack1 c ack2 ack3 d "
	until(t, "everything", func() bool { return len(o.noted()) >= len(want) })
	if got := o.noted(); got != want {
		t.Errorf("got %s", got)
	}
}
