package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"unsafe"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// AppendPublish appends an encoded PUBLISH (MQTT 3.1.1, 3.3). id is not used for QoS 0.
func AppendPublish(b []byte, topic string, payload []byte, qos byte, retain, dup bool, id uint16) []byte {
	n := 2 + len(topic) + len(payload)
	if qos > 0 {
		n += 2
	}
	head := byte(packets.Publish<<4) | qos<<1
	if dup {
		head |= 0x08
	}
	if retain {
		head |= 0x01
	}
	b = append(b, head)
	b = appendLength(b, n)
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	b = append(b, topic...)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return append(b, payload...)
}

// appendLength appends a remaining length (MQTT 3.1.1, 2.2.3).
func appendLength(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

// AppendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP.
func AppendAck(b []byte, kind byte, id uint16) []byte {
	head := kind << 4
	if kind == packets.Pubrel {
		head |= 0x02 // MQTT 3.1.1, 3.6.1
	}
	return append(b, head, 2, byte(id>>8), byte(id))
}

// AppendPacket appends any other packet by way of paho's encoder.
func AppendPacket(b []byte, p packets.ControlPacket) []byte {
	var buf bytes.Buffer
	_ = p.Write(&buf) // a buffer takes everything
	return append(b, buf.Bytes()...)
}

// FrameHead is how many bytes WriteFrame needs before what it sends.
const FrameHead = 14

// WriteFrame sends b but for its first FrameHead bytes as a binary message of one frame, with one Write (RFC 6455,
// 5.2). It uses up b. gorilla's control frames, which are one Write each too, may be sent at the same time.
func WriteFrame(ws *websocket.Conn, b []byte) error {
	payload, at := b[FrameHead:], FrameHead-4
	key := rand.Uint64()
	key = key<<32 | key&math.MaxUint32
	binary.LittleEndian.PutUint32(b[at:], uint32(key))
	switch n := len(payload); {
	case n < 126:
		at--
		b[at] = 0x80 | byte(n)
	case n <= math.MaxUint16:
		at -= 3
		b[at] = 0x80 | 126
		binary.BigEndian.PutUint16(b[at+1:], uint16(n))
	default:
		at -= 9
		b[at] = 0x80 | 127
		binary.BigEndian.PutUint64(b[at+1:], uint64(n))
	}
	at--
	b[at] = 0x80 | websocket.BinaryMessage
	i := 0
	for ; i+8 <= len(payload); i += 8 {
		binary.LittleEndian.PutUint64(payload[i:], binary.LittleEndian.Uint64(payload[i:])^key)
	}
	for ; i < len(payload); i++ {
		payload[i] ^= byte(key >> (8 * (i & 3)))
	}
	_, err := ws.NetConn().Write(b[at:])
	return err
}

// Reader reads MQTT packets from a WebSocket connection. Packets may span frames and frames hold several packets
// (MQTT 3.1.1, 6.0.0-4).
type Reader struct {
	br  *bufio.Reader
	max *atomic.Int64 // bytes of the largest packet

	// The packets of each message, to be used again.
	publish packets.PublishPacket
	puback  packets.PubackPacket
}

// NewReader reads from ws. limit is how many bytes the largest packet may have; it may change meanwhile.
func NewReader(ws *websocket.Conn, limit *atomic.Int64) *Reader {
	// Small: gorilla has a buffer below, and a large read passes this one by.
	return &Reader{br: bufio.NewReaderSize(&frames{ws: ws}, 512), max: limit}
}

// Next returns the next packet, which is valid until it is called again; what a PUBLISH holds stays. It fails with a
// *failure.Failure if what it reads is not MQTT.
func (r *Reader) Next() (packets.ControlPacket, error) {
	head, err := r.br.ReadByte()
	if err != nil {
		return nil, err
	}
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	fh := packets.FixedHeader{
		MessageType: head >> 4, Dup: head&0x08 != 0, Qos: head >> 1 & 0x03, Retain: head&0x01 != 0, RemainingLength: n,
	}
	if int64(n) > r.max.Load() {
		if fh.MessageType == packets.Publish {
			return r.skip(fh)
		}
		return nil, ProtocolError(nil, "a packet of type %d with %d bytes", head>>4, n)
	}
	switch {
	case fh.MessageType == packets.Puback && n == 2:
		return r.ack(fh)
	case fh.MessageType == packets.Publish:
		return r.message(fh)
	}
	p, err := packets.NewControlPacketWithHeader(fh)
	if err != nil {
		return nil, ProtocolError(err, "something that is not MQTT")
	}
	if least := shortest[head>>4]; n < least { // paho's decoder does not look
		return nil, ProtocolError(nil, "a truncated packet of type %d", head>>4)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r.br, body); err != nil {
		return nil, err
	}
	if err := p.Unpack(bytes.NewBuffer(body)); err != nil {
		return nil, ProtocolError(err, "a malformed packet of type %d", head>>4)
	}
	return p, nil
}

func (r *Reader) ack(fh packets.FixedHeader) (packets.ControlPacket, error) {
	two, err := r.br.Peek(2)
	if err != nil {
		if errors.Is(err, io.EOF) && len(two) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	r.puback = packets.PubackPacket{FixedHeader: fh, MessageID: binary.BigEndian.Uint16(two)}
	_, err = r.br.Discard(2)
	return &r.puback, err
}

// message reads a PUBLISH into a piece of memory that holds both topic and payload.
func (r *Reader) message(fh packets.FixedHeader) (packets.ControlPacket, error) {
	b := make([]byte, fh.RemainingLength)
	if _, err := io.ReadFull(r.br, b); err != nil {
		return nil, err
	}
	head := 2 // what is before the payload
	if fh.Qos > 0 {
		head += 2
	}
	n := 0
	if len(b) >= 2 {
		n = int(binary.BigEndian.Uint16(b))
	}
	if len(b) < head+n {
		return nil, ProtocolError(nil, "a truncated packet of type %d", packets.Publish)
	}
	p := &r.publish
	*p = packets.PublishPacket{FixedHeader: fh, Payload: b[head+n:]}
	if n > 0 {
		p.TopicName = unsafe.String(&b[2], n) // nobody writes there
	}
	if fh.Qos > 0 {
		p.MessageID = binary.BigEndian.Uint16(b[2+n:])
	}
	return p, nil
}

// Oversize is what is read of a PUBLISH that is too large: all but its payload.
type Oversize struct{ packets.PublishPacket }

// skip reads past a PUBLISH that is too large.
func (r *Reader) skip(fh packets.FixedHeader) (packets.ControlPacket, error) {
	p := &Oversize{packets.PublishPacket{FixedHeader: fh}}
	var two [2]byte
	if _, err := io.ReadFull(r.br, two[:]); err != nil {
		return nil, err
	}
	topic := make([]byte, binary.BigEndian.Uint16(two[:]))
	if _, err := io.ReadFull(r.br, topic); err != nil {
		return nil, err
	}
	p.TopicName = string(topic)
	rest := fh.RemainingLength - 2 - len(topic)
	if fh.Qos > 0 {
		if _, err := io.ReadFull(r.br, two[:]); err != nil {
			return nil, err
		}
		p.MessageID = binary.BigEndian.Uint16(two[:])
		rest -= 2
	}
	if rest < 0 || fh.Qos > 2 || fh.Qos > 0 && p.MessageID == 0 {
		return nil, ProtocolError(nil, "a malformed PUBLISH")
	}
	_, err := io.CopyN(io.Discard, r.br, int64(rest))
	return p, err
}

// shortest is the least remaining length of the packets that a server sends, by type.
var shortest = [16]int{
	packets.Connack: 2, packets.Publish: 2, packets.Puback: 2, packets.Pubrec: 2, packets.Pubrel: 2, packets.Pubcomp: 2,
	packets.Suback: 3, packets.Unsuback: 2,
}

func (r *Reader) length() (n int, err error) {
	for shift := 0; shift < 28; shift += 7 {
		b, err := r.br.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			return n, nil
		}
	}
	return 0, ProtocolError(nil, "a packet with a malformed length")
}

// frames makes a stream of bytes out of WebSocket messages.
type frames struct {
	ws  *websocket.Conn
	cur io.Reader
}

func (f *frames) Read(p []byte) (int, error) {
	for {
		if f.cur == nil {
			kind, r, err := f.ws.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage { // MQTT 3.1.1, 6.0.0-1
				return 0, ProtocolError(nil, "a text frame")
			}
			f.cur = r
		}
		n, err := f.cur.Read(p)
		if errors.Is(err, io.EOF) {
			f.cur, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}
