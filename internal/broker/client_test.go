package broker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// client is a device, packet by packet, that acknowledges nothing unless told to.
type client struct {
	tb      testing.TB
	conn    net.Conn
	br      *bufio.Reader
	version byte
}

// dial connects by TCP without saying anything.
func dial(tb testing.TB, addr net.Addr) *client {
	tb.Helper()
	conn, err := net.DialTimeout("tcp", addr.String(), patience)
	if err != nil {
		tb.Fatal(err)
	}
	return newClient(tb, conn)
}

func newClient(tb testing.TB, conn net.Conn) *client {
	tb.Cleanup(func() { _ = conn.Close() }) // it may be closed already
	return &client{tb: tb, conn: conn, br: bufio.NewReader(conn), version: 4}
}

// connectPacket makes a CONNECT of a version, clean, without a keepalive.
func connectPacket(version byte, id string) *packets.Packet {
	name := "MQTT"
	if version == 3 {
		name = "MQIsdp"
	}
	return &packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Connect},
		ProtocolVersion: version,
		Connect:         packets.ConnectParams{ProtocolName: []byte(name), Clean: true, ClientIdentifier: id},
	}
}

// connect logs the device in and returns the CONNACK, which must be a yes.
func (r *rig) connect(version byte, id string, change ...func(*packets.Packet)) (*client, *packets.Packet) {
	r.tb.Helper()
	c := dial(r.tb, r.addr())
	return c, c.login(version, id, change...)
}

func (c *client) login(version byte, id string, change ...func(*packets.Packet)) *packets.Packet {
	c.tb.Helper()
	pk := connectPacket(version, id)
	for _, f := range change {
		f(pk)
	}
	c.version = version
	c.send(pk)
	ack := c.expect(packets.Connack)
	if ack.ReasonCode != 0 {
		c.tb.Fatalf("CONNACK %#x", ack.ReasonCode)
	}
	return ack
}

func persistent(pk *packets.Packet) { pk.Connect.Clean = false }

func expiry(seconds uint32) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.Connect.Clean = false
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = seconds, true
	}
}

func lastWill(topic, payload string, qos byte) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		c := &pk.Connect
		c.WillFlag, c.WillTopic, c.WillPayload, c.WillQos = true, topic, []byte(payload), qos
	}
}

func keepalive(seconds uint16) func(*packets.Packet) {
	return func(pk *packets.Packet) { pk.Connect.Keepalive = seconds }
}

func encode(tb testing.TB, pk *packets.Packet) []byte {
	tb.Helper()
	encoders := map[byte]func(*bytes.Buffer) error{
		packets.Connect: pk.ConnectEncode, packets.Publish: pk.PublishEncode, packets.Puback: pk.PubackEncode,
		packets.Pubrec: pk.PubrecEncode, packets.Pubrel: pk.PubrelEncode, packets.Pubcomp: pk.PubcompEncode,
		packets.Subscribe: pk.SubscribeEncode, packets.Unsubscribe: pk.UnsubscribeEncode, packets.Pingreq: pk.PingreqEncode,
		packets.Disconnect: pk.DisconnectEncode, packets.Auth: pk.AuthEncode, packets.Connack: pk.ConnackEncode,
	}
	var buf bytes.Buffer
	pk.Mods.AllowResponseInfo = true
	if err := encoders[pk.FixedHeader.Type](&buf); err != nil {
		tb.Fatalf("encode %s: %v", packets.PacketNames[pk.FixedHeader.Type], err)
	}
	return buf.Bytes()
}

// send writes a packet.
func (c *client) send(pk *packets.Packet) {
	c.tb.Helper()
	pk.ProtocolVersion = c.version
	c.write(encode(c.tb, pk))
}

// write writes bytes.
func (c *client) write(p []byte) {
	c.tb.Helper()
	if _, err := c.conn.Write(p); err != nil {
		c.tb.Fatalf("write: %v", err)
	}
}

// receive reads the next packet, waiting for it at most so long.
func (c *client) receive(wait time.Duration) (*packets.Packet, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	head, err := c.br.ReadByte()
	if err != nil {
		return nil, err
	}
	pk := &packets.Packet{ProtocolVersion: c.version, FixedHeader: packets.FixedHeader{
		Type: head >> 4, Dup: head&8 != 0, Qos: head >> 1 & 3, Retain: head&1 != 0,
	}}
	if pk.FixedHeader.Remaining, _, err = packets.DecodeLength(c.br); err != nil {
		return nil, err
	}
	body := make([]byte, pk.FixedHeader.Remaining)
	if _, err := io.ReadFull(c.br, body); err != nil {
		return nil, err
	}
	decoders := map[byte]func([]byte) error{
		packets.Connack: pk.ConnackDecode, packets.Publish: pk.PublishDecode, packets.Puback: pk.PubackDecode,
		packets.Pubrec: pk.PubrecDecode, packets.Pubrel: pk.PubrelDecode, packets.Pubcomp: pk.PubcompDecode,
		packets.Suback: pk.SubackDecode, packets.Unsuback: pk.UnsubackDecode, packets.Pingresp: pk.PingrespDecode,
		packets.Disconnect: pk.DisconnectDecode,
	}
	decode := decoders[pk.FixedHeader.Type]
	if decode == nil {
		return nil, fmt.Errorf("a packet of type %d", pk.FixedHeader.Type)
	}
	return pk, decode(body)
}

// expect reads the next packet, which must be of this type.
func (c *client) expect(kind byte) *packets.Packet {
	c.tb.Helper()
	pk, err := c.receive(patience)
	if err != nil {
		c.tb.Fatalf("waiting for %s: %v", packets.PacketNames[kind], err)
	}
	if pk.FixedHeader.Type != kind {
		c.tb.Fatalf("got %s %d %q, want %s", packets.PacketNames[pk.FixedHeader.Type], pk.PacketID, pk.Payload,
			packets.PacketNames[kind])
	}
	return pk
}

// message reads the next packet, which must be a PUBLISH with this payload.
func (c *client) message(payload string) *packets.Packet {
	c.tb.Helper()
	pk := c.expect(packets.Publish)
	if string(pk.Payload) != payload {
		c.tb.Fatalf("got message %q, want %q", pk.Payload, payload)
	}
	return pk
}

// acked reads the next packet, which must be this acknowledgement.
func (c *client) acked(kind byte, id uint16) *packets.Packet {
	c.tb.Helper()
	pk := c.expect(kind)
	if pk.PacketID != id {
		c.tb.Fatalf("got %s %d, want %d", packets.PacketNames[kind], pk.PacketID, id)
	}
	return pk
}

// quiet checks that everything sent so far has been answered: the next packet is the answer to a PINGREQ.
func (c *client) quiet() {
	c.tb.Helper()
	c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.expect(packets.Pingresp)
}

// silent checks that nothing comes for a short time.
func (c *client) silent() {
	c.tb.Helper()
	if pk, err := c.receive(30 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.tb.Fatalf("unexpected: %+v, %v", pk, err)
	}
}

// closed waits until the broker has closed the connection, without another packet.
func (c *client) closed() {
	c.tb.Helper()
	pk, err := c.receive(patience)
	if err == nil {
		c.tb.Fatalf("got %s, reason %#x, want the end", packets.PacketNames[pk.FixedHeader.Type], pk.ReasonCode)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.tb.Fatal("the connection is still open")
	}
}

// cut waits for the end of the connection; an MQTT 5 device is told this reason before, others nothing.
func (c *client) cut(reason packets.Code) *packets.Packet {
	c.tb.Helper()
	var pk *packets.Packet
	if c.version == 5 {
		if pk = c.expect(packets.Disconnect); pk.ReasonCode != reason.Code {
			c.tb.Fatalf("DISCONNECT %#x (%s), want %#x", pk.ReasonCode, pk.Properties.ReasonString, reason.Code)
		}
	}
	c.closed()
	return pk
}

// publish sends a PUBLISH.
func (c *client) publish(topic, payload string, qos byte, id uint16, change ...func(*packets.Packet)) {
	c.tb.Helper()
	pk := &packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos},
		TopicName:   topic, Payload: []byte(payload), PacketID: id,
	}
	for _, f := range change {
		f(pk)
	}
	c.send(pk)
}

func dup(pk *packets.Packet) { pk.FixedHeader.Dup = true }

// ack sends PUBACK, PUBREC, PUBREL or PUBCOMP.
func (c *client) ack(kind byte, id uint16) {
	c.tb.Helper()
	pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, PacketID: id}
	if kind == packets.Pubrel {
		pk.FixedHeader.Qos = 1
	}
	c.send(pk)
}

// subscribe sends a SUBSCRIBE.
func (c *client) subscribe(id uint16, filters ...packets.Subscription) {
	c.tb.Helper()
	c.send(&packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: id, Filters: filters,
	})
}

// disconnect says goodbye.
func (c *client) disconnect() {
	c.tb.Helper()
	c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
	c.closed()
}

// reset ends the connection with a TCP reset.
func (c *client) reset() {
	c.tb.Helper()
	if err := c.conn.(*net.TCPConn).SetLinger(0); err != nil {
		c.tb.Fatal(err)
	}
	c.drop()
}

// drop closes the connection without a word.
func (c *client) drop() {
	c.tb.Helper()
	if err := c.conn.Close(); err != nil {
		c.tb.Fatal(err)
	}
}
