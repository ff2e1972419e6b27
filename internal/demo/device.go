package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// device is a virtual device: MQTT 3.1.1 over plain TCP, with a persistent session, as simple as firmware is.
type device struct {
	*deviceSpec
	label   string // of its cloud
	addr    string // of the bridge
	acct    *account
	up      *book
	down    *book
	upEpoch epoch // of the cloud's connection, which carries what goes up

	ready  chan struct{} // closed when it has subscribed for the first time
	once   sync.Once
	orders chan int // numbers of commands that are to be answered

	mu       sync.Mutex // protects the following fields, and writing
	conn     net.Conn   // nil while not connected
	left     bool
	lan      int64 // epoch of conn
	lastID   uint16
	inFlight []*packets.PublishPacket // not acknowledged, oldest first
	numbers  map[uint16]int           // of those in flight, by packet identifier
}

// epoch tells the identity of a connection.
type epoch func() int64

const (
	retryAfter  = time.Second
	lanTimeout  = 10 * time.Second
	answerAfter = 100 * time.Millisecond
)

// run keeps the device connected until ctx ends or it has left.
func (d *device) run(ctx context.Context) {
	for {
		err := d.session(ctx)
		d.mu.Lock()
		d.conn = nil
		left := d.left
		d.mu.Unlock()
		if left || ctx.Err() != nil {
			return
		}
		d.tell(offline, alarm, fmt.Sprintf("lost its connection to the bridge: %v", err))
		if !pause(ctx, retryAfter) {
			return
		}
	}
}

// pause reports whether it lasted until its end.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *device) tell(m mark, t tone, text string) {
	d.acct.print(line{device: d.name, mark: m, cloud: "bridge", text: text, tone: t})
}

// handle takes a packet from the bridge.
func (d *device) handle(p packets.ControlPacket) error {
	switch p := p.(type) {
	case *packets.SubackPacket:
		if p.ReturnCodes[0] != 1 {
			return fmt.Errorf("the subscription was answered with %#x", p.ReturnCodes[0])
		}
		d.once.Do(func() { close(d.ready) })
	case *packets.PubackPacket:
		d.acknowledged(p.MessageID)
	case *packets.PublishPacket:
		return d.commanded(p)
	}
	return nil
}

// acknowledged is the end of a message on its way up.
func (d *device) acknowledged(id uint16) {
	d.mu.Lock()
	n, known := d.numbers[id]
	inOrder := known && d.inFlight[0].MessageID == id
	var payload []byte
	for i, p := range d.inFlight {
		if p.MessageID == id {
			payload = p.Payload
			d.inFlight = append(d.inFlight[:i], d.inFlight[i+1:]...)
			break
		}
	}
	delete(d.numbers, id)
	d.mu.Unlock()
	switch {
	case !known:
		d.up.report(fmt.Sprintf("PUBACK %d came for nothing that was sent", id))
		return
	case !inOrder:
		d.up.report(fmt.Sprintf("message %d was acknowledged before older ones", n))
	}
	after, _ := d.up.ack(n, time.Now())
	d.acct.acknowledged(d.name, up, d.label, kindOf(payload), payload, after)
}

// commanded takes a message from the cloud, acknowledges it, and answers it the first time.
func (d *device) commanded(p *packets.PublishPacket) error {
	n := numberOf(p.Payload)
	d.mu.Lock()
	lan := d.lan
	d.mu.Unlock()
	if n == 0 || p.TopicName != d.command || p.Qos != 1 {
		d.down.report(fmt.Sprintf("something that was never sent arrived at %s: %q", p.TopicName, p.Payload))
	} else {
		d.down.arrive(n, p.Payload, p.Dup, d.upEpoch(), lan)
	}
	ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = p.MessageID
	d.mu.Lock()
	err := d.writeLocked(ack)
	d.mu.Unlock()
	if err != nil || p.Dup {
		return err
	}
	select {
	case d.orders <- n:
	default: // too many at once: this one gets no answer
	}
	return nil
}

// obey answers commands until ctx ends, as soon as a device may be thought to have done what it was told.
func (d *device) obey(ctx context.Context) {
	for {
		select {
		case n := <-d.orders:
			if !pause(ctx, answerAfter) {
				return
			}
			err := d.publish(d.answer, func(m int) []byte { return fmt.Appendf(nil, `{"n":%d,"re":%d}`, m, n) })
			if err != nil {
				d.hangUp()
			}
		case <-ctx.Done():
			return
		}
	}
}

// publish sends a message at QoS 1. Without a connection it is kept for the next one.
func (d *device) publish(topic string, write func(n int) []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, payload := d.up.send(time.Now(), d.lan, write)
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID = topic, payload, 1, d.nextIDLocked()
	d.inFlight = append(d.inFlight, p)
	d.numbers[p.MessageID] = n
	if d.conn == nil {
		return nil
	}
	return d.transmitLocked(p)
}

// transmitLocked writes a PUBLISH. From the second time on it carries DUP.
func (d *device) transmitLocked(p *packets.PublishPacket) error {
	if p.Dup {
		d.up.resent(d.numbers[p.MessageID])
	}
	err := d.writeLocked(p)
	p.Dup = true
	return err
}

// measure publishes telemetry at an interval until ctx ends. It begins after a while, once the device has subscribed.
func (d *device) measure(ctx context.Context, every, after time.Duration) {
	select {
	case <-d.ready:
	case <-ctx.Done():
		return
	}
	if !pause(ctx, after) {
		return
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for n := 0; ; n++ {
		err := d.publish(d.telemetry, func(m int) []byte { return fmt.Appendf(nil, `{"n":%d,%s}`, m, d.reading(n)) })
		if err != nil {
			d.hangUp()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// hangUp ends a connection that cannot be written to. The reader finds out, and connects anew.
func (d *device) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close() // it has failed already
	}
}

// leave says goodbye; run ends.
func (d *device) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = true
	if d.conn != nil {
		_ = d.writeLocked(packets.NewControlPacket(packets.Disconnect)) // a courtesy
		_ = d.conn.Close()                                              // nothing is lost by it
	}
}

// numberOf is the number of a message, 0 if it has none.
func numberOf(payload []byte) int {
	var m struct {
		N int `json:"n"`
	}
	if err := json.Unmarshal(payload, &m); err != nil {
		return 0
	}
	return m.N
}

// kindOf tells telemetry from answers.
func kindOf(payload []byte) string {
	var m struct {
		Re *int `json:"re"`
	}
	if err := json.Unmarshal(payload, &m); err == nil && m.Re != nil {
		return "answer"
	}
	return "telemetry"
}
