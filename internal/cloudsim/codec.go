package cloudsim

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// First bytes of packets that are a header and a packet identifier.
const (
	typePuback   = packets.Puback << 4
	typePubrec   = packets.Pubrec << 4
	typePubrel   = packets.Pubrel<<4 | 2
	typePubcomp  = packets.Pubcomp << 4
	typeUnsuback = packets.Unsuback << 4
)

// version is the protocol level of MQTT 3.1.1.
const version = 4

// breach ends a connection: its client did what it must not.
type breach struct {
	rule   Rule
	detail string
}

func (b *breach) Error() string { return string(b.rule) + ": " + b.detail }

func breachf(rule Rule, format string, args ...any) error {
	return &breach{rule, fmt.Sprintf(format, args...)}
}

// frameReader makes one stream of a connection's binary messages: packets may span them, and they may hold several
// (MQTT 3.1.1, 6).
type frameReader struct {
	ws    *websocket.Conn
	frame io.Reader
}

func (f *frameReader) Read(p []byte) (int, error) {
	for {
		if f.frame == nil {
			kind, r, err := f.ws.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, breachf(RuleProtocol, "a text frame (MQTT 3.1.1, 6)")
			}
			f.frame = r
		}
		n, err := f.frame.Read(p)
		if errors.Is(err, io.EOF) {
			f.frame, err = nil, nil
			if n == 0 {
				continue
			}
		}
		return n, err
	}
}

// packetReader reads packets of at most limit bytes, and strictly: the codec takes truncated fields for zeros and
// ignores what is left over.
type packetReader struct {
	r     io.Reader
	limit int
	body  []byte // reused, the codec copies
}

// keptBody is the largest body buffer that stays with a connection.
const keptBody = 4 << 10

func (p *packetReader) next() (packets.ControlPacket, error) {
	fh, flags, err := p.header()
	if err != nil {
		return nil, err
	}
	if fh.RemainingLength > p.limit {
		return nil, breachf(RuleProtocol, "a packet of %d bytes, more than %d", fh.RemainingLength, p.limit)
	}
	if cap(p.body) < fh.RemainingLength {
		p.body = make([]byte, fh.RemainingLength)
	}
	body := p.body[:fh.RemainingLength]
	if cap(p.body) > keptBody {
		p.body = nil
	}
	if _, err := io.ReadFull(p.r, body); err != nil {
		return nil, err
	}
	pkt, err := packets.NewControlPacketWithHeader(fh)
	if err != nil {
		return nil, breachf(RuleProtocol, "packet type %d", fh.MessageType)
	}
	rest := bytes.NewBuffer(body)
	err = pkt.Unpack(rest)
	if c, ok := pkt.(*packets.ConnectPacket); ok && c.ProtocolVersion != version {
		return pkt, nil // what follows may look different there; it is refused anyway
	}
	if name := packets.PacketNames[fh.MessageType]; err != nil || rest.Len() > 0 || size(pkt) != len(body) {
		return nil, breachf(RuleProtocol, "a malformed %s", name)
	}
	return pkt, checkHeader(fh, flags, pkt.Details().MessageID)
}

func (p *packetReader) header() (fh packets.FixedHeader, flags byte, err error) {
	var b [1]byte
	if _, err := io.ReadFull(p.r, b[:]); err != nil {
		return fh, 0, err
	}
	flags = b[0] & 0x0f
	fh.MessageType = b[0] >> 4
	fh.Dup, fh.Qos, fh.Retain = flags&8 != 0, flags>>1&3, flags&1 != 0
	for shift := 0; shift < 28; shift += 7 {
		if _, err := io.ReadFull(p.r, b[:]); err != nil {
			return fh, 0, unexpected(err)
		}
		fh.RemainingLength |= int(b[0]&0x7f) << shift
		if b[0]&0x80 == 0 {
			return fh, flags, nil
		}
	}
	return fh, flags, breachf(RuleProtocol, "a remaining length of more than four bytes (MQTT 3.1.1, 2.2.3)")
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// checkHeader checks flags and packet identifiers (MQTT 3.1.1, 2.2.2, 2.3.1 and 3.3.1).
func checkHeader(fh packets.FixedHeader, flags byte, id uint16) error {
	name, want := packets.PacketNames[fh.MessageType], byte(0)
	withID := true
	switch fh.MessageType {
	case packets.Publish:
		if fh.Qos == 3 || fh.Qos == 0 && fh.Dup {
			return breachf(RuleProtocol, "PUBLISH with QoS %d and DUP %t", fh.Qos, fh.Dup)
		}
		want, withID = flags, fh.Qos > 0
	case packets.Pubrel, packets.Subscribe, packets.Unsubscribe:
		want = 2
	case packets.Connect, packets.Pingreq, packets.Disconnect:
		withID = false
	}
	switch {
	case flags != want:
		return breachf(RuleProtocol, "%s with flags %#x", name, flags)
	case withID && id == 0:
		return breachf(RuleProtocol, "%s with packet identifier 0", name)
	}
	return nil
}

// size is the remaining length that a packet from a client should have had, -1 for a packet that only servers send.
func size(p packets.ControlPacket) int {
	switch p := p.(type) {
	case *packets.ConnectPacket:
		n := 2 + len(p.ProtocolName) + 4 + 2 + len(p.ClientIdentifier)
		if p.WillFlag {
			n += 2 + len(p.WillTopic) + 2 + len(p.WillMessage)
		}
		if p.UsernameFlag {
			n += 2 + len(p.Username)
		}
		if p.PasswordFlag {
			n += 2 + len(p.Password)
		}
		return n
	case *packets.PublishPacket:
		n := 2 + len(p.TopicName) + len(p.Payload)
		if p.Qos > 0 {
			n += 2
		}
		return n
	case *packets.SubscribePacket:
		return 2 + stringsSize(p.Topics) + len(p.Qoss)
	case *packets.UnsubscribePacket:
		return 2 + stringsSize(p.Topics)
	case *packets.PubackPacket, *packets.PubrecPacket, *packets.PubrelPacket, *packets.PubcompPacket:
		return 2
	case *packets.PingreqPacket, *packets.DisconnectPacket:
		return 0
	}
	return -1
}

func stringsSize(list []string) int {
	n := 0
	for _, s := range list {
		n += 2 + len(s)
	}
	return n
}

// encode is a packet as bytes.
func encode(p packets.ControlPacket) []byte {
	var b bytes.Buffer
	_ = p.Write(&b) // a Buffer takes everything
	return b.Bytes()
}

// encodeID is a packet that consists of a packet identifier.
func encodeID(first byte, id uint16) []byte {
	return []byte{first, 2, byte(id >> 8), byte(id)}
}
