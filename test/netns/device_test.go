package netns

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/testdevice"
)

// player is a device that publishes numbered messages of QoS 1 to up/NAME and takes those to down/NAME. It belongs to
// one goroutine.
type player struct {
	*testdevice.Device
	tb   testing.TB
	name string

	sent    int
	acked   int // the acknowledgements come in order, too
	first   uint16
	got     order
	granted bool
	pong    bool
	slowest time.Duration // of what it measured
}

// text is the payload of a device's message: its number, and some more.
func text(device string, n int) []byte {
	return fmt.Appendf(nil, "%d %s %s", n, device, strings.Repeat("x", n*37%100))
}

// play connects a device that is in a namespace and subscribes, which the cloud has to answer while it can be reached.
func play(s *space, addr string, o testdevice.Options) *player {
	s.tb.Helper()
	p := arrive(s, addr, o)
	q := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	q.MessageID, q.Topics, q.Qoss = p.ID(), []string{"down/" + p.name}, []byte{1}
	p.first = p.ID() + 1
	p.Send(q)
	p.until("SUBACK", func() bool { return p.granted })
	return p
}

// arrive connects a device.
func arrive(s *space, addr string, o testdevice.Options) *player {
	s.tb.Helper()
	p := &player{tb: s.tb, name: o.ClientID, first: 1}
	o.Username, o.Password = lanUser, lanPassword
	start := time.Now()
	s.do(func() { p.Device = testdevice.Connect(s.tb, addr, o) })
	p.measured("CONNACK", start)
	return p
}

// prompt is how long the LAN side may take for what it does itself, on a busy machine. What waits for a cloud takes
// 15 s and more.
const prompt = 5 * time.Second

func (p *player) measured(what string, start time.Time) {
	p.tb.Helper()
	took := time.Since(start)
	p.slowest = max(p.slowest, took)
	if took > prompt {
		p.tb.Errorf("%s: %s came after %s", p.name, what, took)
	}
}

func (p *player) publish(n int) {
	p.tb.Helper()
	for range n {
		p.Publish("up/"+p.name, text(p.name, p.sent), 1)
		p.sent++
	}
}

// acknowledged publishes a message and waits for the acknowledgement, which has to be prompt.
func (p *player) acknowledged() {
	p.tb.Helper()
	p.publish(1)
	start := time.Now()
	p.until("PUBACK", func() bool { return p.acked == p.sent })
	p.measured("PUBACK", start)
}

// ping has the broker answer, which has to be prompt.
func (p *player) ping() {
	p.tb.Helper()
	p.pong = false
	start := time.Now()
	p.Send(packets.NewControlPacket(packets.Pingreq))
	p.until("PINGRESP", func() bool { return p.pong })
	p.measured("PINGRESP", start)
}

// until takes packets until a condition holds.
func (p *player) until(what string, cond func() bool) {
	p.tb.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		switch got := p.Next(time.Until(deadline)).(type) {
		case *packets.PubackPacket:
			if want := p.first + uint16(p.acked); got.MessageID != want {
				p.Fatalf("%s: PUBACK %d, want %d", p.name, got.MessageID, want)
			}
			p.acked++
		case *packets.PublishPacket:
			p.got.take(p.tb, p.name, got.Payload)
			p.Ack(packets.Puback, got.MessageID)
		case *packets.SubackPacket:
			if p.granted = got.ReturnCodes[0] == 1; !p.granted {
				p.Fatalf("%s: SUBACK %v", p.name, got.ReturnCodes)
			}
		case *packets.PingrespPacket:
			p.pong = true
		case nil:
			p.Fatalf("%s: no %s: %d of %d acknowledged, %s received (connection: %v)",
				p.name, what, p.acked, p.sent, &p.got, p.Err())
		default:
			p.Fatalf("%s: an unexpected %v", p.name, got)
		}
	}
}

// received waits until the device has so many messages, and all that it sent is acknowledged.
func (p *player) received(n int) {
	p.tb.Helper()
	p.until("messages", func() bool { return p.acked == p.sent && p.got.next >= n })
	p.got.check(p.tb, "the cloud to "+p.name, n)
}

// order is what arrived of numbered messages. One that came again is counted only.
type order struct {
	next     int
	repeated int
	wrong    []string
}

func (o *order) take(tb testing.TB, device string, payload []byte) {
	tb.Helper()
	head, _, _ := strings.Cut(string(payload), " ")
	n, err := strconv.Atoi(head)
	if err != nil || string(payload) != string(text(device, n)) {
		tb.Errorf("%s: not one of its messages: %.80q", device, payload)
		return
	}
	switch {
	case n == o.next:
		o.next++
	case n < o.next:
		o.repeated++
	default:
		o.wrong = append(o.wrong, fmt.Sprintf("%d came when %d was next", n, o.next))
		o.next = n + 1
	}
}

func (o *order) check(tb testing.TB, what string, n int) {
	tb.Helper()
	if o.next != n || len(o.wrong) > 0 {
		tb.Errorf("%s: %s, want %d in order", what, o, n)
	}
}

func (o *order) String() string {
	return fmt.Sprintf("%d, %d of them again, %v", o.next, o.repeated, o.wrong)
}
