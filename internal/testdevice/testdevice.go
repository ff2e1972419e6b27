// Package testdevice is a device for tests: MQTT 3.1.1 over plain TCP, packet by packet, acknowledging nothing unless
// told to. It is somebody else's codec (paho's) and no client library, so that a test sees exactly what a device
// would.
//
// A Device belongs to one goroutine. Failures end the test, or that goroutine of it.
package testdevice

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Patience is how long a packet that must come may take.
const Patience = time.Minute

// Options are what CONNECT says.
type Options struct {
	ClientID  string
	Username  string
	Password  string
	Persist   bool // clean session = 0
	Keepalive uint16
	Will      *packets.PublishPacket
}

// Device is one connection.
type Device struct {
	tb   testing.TB
	conn net.Conn
	in   chan packets.ControlPacket
	wg   sync.WaitGroup
	next uint16

	mu  sync.Mutex
	err error // why reading ended
}

// Dial connects by TCP, without saying anything.
func Dial(tb testing.TB, addr string) *Device {
	tb.Helper()
	conn, err := net.DialTimeout("tcp", addr, Patience)
	if err != nil {
		tb.Fatalf("dial: %v", err)
	}
	d := &Device{tb: tb, conn: conn, in: make(chan packets.ControlPacket, 4096)}
	d.wg.Go(d.read)
	tb.Cleanup(d.Drop)
	return d
}

// Connect dials and logs in; a refusal ends the test.
func Connect(tb testing.TB, addr string, o Options) *Device {
	tb.Helper()
	d := Dial(tb, addr)
	if ack := d.Login(o); ack.ReturnCode != 0 {
		tb.Fatalf("%s: CONNACK %d", o.ClientID, ack.ReturnCode)
	}
	return d
}

func (d *Device) read() {
	defer close(d.in)
	for {
		p, err := packets.ReadPacket(d.conn)
		if err != nil {
			d.mu.Lock()
			d.err = err
			d.mu.Unlock()
			return
		}
		d.in <- p
	}
}

// Login sends CONNECT and returns the CONNACK.
func (d *Device) Login(o Options) *packets.ConnackPacket {
	d.tb.Helper()
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion = "MQTT", 4
	p.ClientIdentifier, p.CleanSession, p.Keepalive = o.ClientID, !o.Persist, o.Keepalive
	p.UsernameFlag, p.Username = o.Username != "", o.Username
	p.PasswordFlag, p.Password = o.Password != "", []byte(o.Password)
	if w := o.Will; w != nil {
		p.WillFlag, p.WillTopic, p.WillMessage, p.WillQos, p.WillRetain = true, w.TopicName, w.Payload, w.Qos, w.Retain
	}
	d.Send(p)
	return Expect[*packets.ConnackPacket](d)
}

// Send writes a packet.
func (d *Device) Send(p packets.ControlPacket) {
	d.tb.Helper()
	if err := d.TrySend(p); err != nil {
		d.tb.Fatalf("send %T: %v", p, err)
	}
}

// TrySend writes a packet and returns the error.
func (d *Device) TrySend(p packets.ControlPacket) error { return p.Write(d.conn) }

// Publish sends a PUBLISH and returns its packet identifier, 0 for QoS 0.
func (d *Device) Publish(topic string, payload []byte, qos byte) uint16 {
	d.tb.Helper()
	p := d.NewPublish(topic, payload, qos)
	d.Send(p)
	return p.MessageID
}

// NewPublish makes a PUBLISH with the next packet identifier.
func (d *Device) NewPublish(topic string, payload []byte, qos byte) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos = topic, payload, qos
	if qos > 0 {
		p.MessageID = d.ID()
	}
	return p
}

// ID returns the next packet identifier; as with most devices it starts at 1.
func (d *Device) ID() uint16 {
	d.next++
	return d.next
}

// Subscribe subscribes to filters at a QoS and returns the SUBACK's codes.
func (d *Device) Subscribe(qos byte, filters ...string) []byte {
	d.tb.Helper()
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID = d.ID()
	for _, f := range filters {
		p.Topics, p.Qoss = append(p.Topics, f), append(p.Qoss, qos)
	}
	d.Send(p)
	ack := Expect[*packets.SubackPacket](d)
	if ack.MessageID != p.MessageID {
		d.tb.Fatalf("SUBACK %d, want %d", ack.MessageID, p.MessageID)
	}
	return ack.ReturnCodes
}

// Unsubscribe unsubscribes and waits for UNSUBACK.
func (d *Device) Unsubscribe(filters ...string) {
	d.tb.Helper()
	p := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
	p.MessageID, p.Topics = d.ID(), filters
	d.Send(p)
	Expect[*packets.UnsubackPacket](d)
}

// Ack sends a PUBACK, PUBREC, PUBREL or PUBCOMP.
func (d *Device) Ack(kind byte, id uint16) {
	d.tb.Helper()
	p := packets.NewControlPacket(kind)
	switch p := p.(type) {
	case *packets.PubackPacket:
		p.MessageID = id
	case *packets.PubrecPacket:
		p.MessageID = id
	case *packets.PubrelPacket:
		p.MessageID = id
	case *packets.PubcompPacket:
		p.MessageID = id
	default:
		d.tb.Fatalf("Ack: %d is no acknowledgement", kind)
	}
	d.Send(p)
}

// Next returns the next packet, within a time; nil if none came or the connection ended.
func (d *Device) Next(within time.Duration) packets.ControlPacket {
	select {
	case p := <-d.in:
		return p
	case <-time.After(within):
		return nil
	}
}

// Quiet ends the test if a packet comes within a time.
func (d *Device) Quiet(within time.Duration) {
	d.tb.Helper()
	if p := d.Next(within); p != nil {
		d.tb.Fatalf("unexpected packet: %v", p)
	}
}

// Closed waits until the other side has closed the connection, discarding what it sent before.
func (d *Device) Closed() {
	d.tb.Helper()
	timeout := time.After(Patience)
	for {
		select {
		case _, open := <-d.in:
			if !open {
				return
			}
		case <-timeout:
			d.tb.Fatal("the connection is still open")
		}
	}
}

// Err is why reading ended.
func (d *Device) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Disconnect says DISCONNECT and closes.
func (d *Device) Disconnect() {
	_ = d.TrySend(packets.NewControlPacket(packets.Disconnect)) // it may be closed already
	d.Drop()
}

// Drop closes the connection without a word.
func (d *Device) Drop() {
	if err := d.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		d.tb.Errorf("close: %v", err)
	}
	go func() {
		for range d.in { // let the reader end
		}
	}()
	d.wg.Wait()
}

// Fatalf ends the test, or the goroutine of it that plays the device.
func (d *Device) Fatalf(format string, args ...any) {
	d.tb.Helper()
	d.tb.Fatalf(format, args...)
}

// Conn is the connection below, for tests that write bytes of their own.
func (d *Device) Conn() net.Conn { return d.conn }

// Expect returns the next packet, which must be of type P.
func Expect[P packets.ControlPacket](d *Device) P {
	d.tb.Helper()
	got := d.Next(Patience)
	p, ok := got.(P)
	if !ok {
		d.tb.Fatalf("got %v (connection: %v), want %s", got, d.Err(), typeName[P]())
	}
	return p
}

func typeName[P any]() string {
	var p P
	return fmt.Sprintf("%T", p)
}
