package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
	"unsafe"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// Reader reads MQTT packets from a WebSocket connection. Packets may span frames and frames hold several packets
// (MQTT 3.1.1, 6.0.0-4). It answers WebSocket pings, and a close frame. It holds a buffer only while it reads or
// something is in it.
type Reader struct {
	in  frames
	max *atomic.Int64 // bytes of the largest packet

	// A packet that is larger than the buffer, or the beginning of an Oversize: its header, and memory of the size of
	// what follows, of which so many bytes are there. body is nil if there is none.
	header packets.FixedHeader
	body   []byte
	got    int
	// over is the Oversize that is being read, skip how many bytes of it follow body, or are yet to be read past.
	over *Oversize
	skip int

	// The packets of each message, to be used again.
	publish packets.PublishPacket
	puback  packets.PubackPacket
}

// NewReader reads from ws, on which nobody else may read. limit is how many bytes the largest packet may have; it may
// change meanwhile.
func NewReader(ws *websocket.Conn, limit *atomic.Int64) *Reader {
	return &Reader{in: frames{ws: ws, conn: ws.NetConn()}, max: limit}
}

// Next returns the next packet, which is valid until it is called again; what a PUBLISH holds stays. It fails with a
// *failure.Failure if what it reads is not WebSocket or MQTT, with a *websocket.CloseError after a close frame, with
// io.ErrUnexpectedEOF if the connection ends within a packet or a frame, and otherwise with what reading from the
// connection returned. After such an error that is temporary it may be called again: nothing is lost.
func (r *Reader) Next() (packets.ControlPacket, error) {
	p, err := r.next()
	r.in.release()
	return p, err
}

// Buffered says whether something has been read that Next has not returned yet.
func (r *Reader) Buffered() bool { return r.in.buf != nil }

func (r *Reader) next() (packets.ControlPacket, error) {
	for {
		if p, err := r.buffered(); p != nil || err != nil {
			return p, err
		}
		var err error
		if rest := r.body[r.got:]; len(rest) >= bufferSize {
			var n int
			n, err = r.in.read(rest)
			r.got += n
		} else {
			err = r.in.more()
		}
		switch {
		case errors.Is(err, io.EOF) && (r.in.within() || r.body != nil || r.over != nil):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
	}
}

// maxInPlace is how large a packet may be to be put together in the buffer. A control frame has room beside it.
const maxInPlace = bufferSize - 2 - maxControl

// buffered returns the next packet if all of it is there, and otherwise nil.
func (r *Reader) buffered() (packets.ControlPacket, error) {
	switch {
	case r.body != nil:
		return r.gather()
	case r.over != nil:
		return r.pass()
	}
	b := r.in.payload()
	if len(b) < 2 {
		return nil, nil
	}
	length, k := binary.Uvarint(b[1:min(len(b), 5)]) // MQTT 3.1.1, 2.2.3
	if k == 0 && len(b) >= 5 {
		return nil, ProtocolError(nil, "a packet with a malformed length")
	} else if k == 0 {
		return nil, nil
	}
	n, kind := int(length), b[0]>>4
	fh := packets.FixedHeader{
		MessageType: kind, Dup: b[0]&0x08 != 0, Qos: b[0] >> 1 & 0x03, Retain: b[0]&0x01 != 0, RemainingLength: n,
	}
	body := b[1+k:]
	switch {
	case int64(n) > r.max.Load() && kind == packets.Publish:
		return r.oversize(fh, body, 1+k)
	case int64(n) > r.max.Load():
		return nil, ProtocolError(nil, "a packet of type %d with %d bytes", kind, n)
	case kind < packets.Connect || kind > packets.Disconnect:
		return nil, ProtocolError(nil, "something that is not MQTT")
	case n < shortest[kind]: // paho's decoder does not look
		return nil, truncated(kind)
	case 1+k+n > maxInPlace:
		r.in.take(1 + k)
		return r.begin(fh, n)
	case len(body) < n:
		return nil, nil
	}
	r.in.take(1 + k + n)
	body = body[:n]
	switch {
	case kind == packets.Publish:
		return r.message(fh, bytes.Clone(body))
	case kind == packets.Puback && n == 2:
		r.puback = packets.PubackPacket{FixedHeader: fh, MessageID: binary.BigEndian.Uint16(body)}
		return &r.puback, nil
	}
	return decode(fh, body)
}

// shortest is the least remaining length of the packets that a server sends, by type.
var shortest = [16]int{
	packets.Connack: 2, packets.Publish: 2, packets.Puback: 2, packets.Pubrec: 2, packets.Pubrel: 2, packets.Pubcomp: 2,
	packets.Suback: 3, packets.Unsuback: 2,
}

func truncated(kind byte) error { return ProtocolError(nil, "a truncated packet of type %d", kind) }

// decode makes a packet by way of paho's decoder, which copies what it keeps.
func decode(fh packets.FixedHeader, body []byte) (packets.ControlPacket, error) {
	p, err := packets.NewControlPacketWithHeader(fh)
	if err == nil {
		err = p.Unpack(bytes.NewBuffer(body))
	}
	if err != nil {
		return nil, ProtocolError(err, "a malformed packet of type %d", fh.MessageType)
	}
	return p, nil
}

// message makes a PUBLISH of memory that holds both topic and payload.
func (r *Reader) message(fh packets.FixedHeader, b []byte) (packets.ControlPacket, error) {
	topic := int(binary.BigEndian.Uint16(b))
	head := beforePayload(fh, topic)
	if len(b) < head {
		return nil, truncated(packets.Publish)
	}
	p := &r.publish
	*p = packets.PublishPacket{FixedHeader: fh, Payload: b[head:]}
	if topic > 0 {
		p.TopicName = unsafe.String(&b[2], topic) // nobody writes there
	}
	if fh.Qos > 0 {
		p.MessageID = binary.BigEndian.Uint16(b[2+topic:])
	}
	return p, nil
}

// beforePayload is the size of what precedes a PUBLISH's payload: the topic with its length, and the identifier.
func beforePayload(fh packets.FixedHeader, topic int) int {
	if fh.Qos > 0 {
		return 4 + topic
	}
	return 2 + topic
}

// begin gives a packet its own memory, for n bytes that follow.
func (r *Reader) begin(fh packets.FixedHeader, n int) (packets.ControlPacket, error) {
	r.header, r.body = fh, make([]byte, n)
	return r.gather()
}

// gather moves what there is to the packet that has its own memory. It returns the packet when it is complete.
func (r *Reader) gather() (packets.ControlPacket, error) {
	n := copy(r.body[r.got:], r.in.payload())
	r.in.take(n)
	if r.got += n; r.got < len(r.body) {
		return nil, nil
	}
	fh, body := r.header, r.body
	r.body, r.got = nil, 0
	if fh.MessageType != packets.Publish {
		return decode(fh, body)
	}
	p, err := r.message(fh, body)
	if err != nil || r.over == nil {
		return p, err
	}
	if fh.Qos > 2 || fh.Qos > 0 && r.publish.MessageID == 0 {
		return nil, malformedPublish()
	}
	r.over.PublishPacket = r.publish
	return r.pass()
}

func malformedPublish() error { return ProtocolError(nil, "a malformed PUBLISH") }

// Oversize is what is read of a PUBLISH that is too large: all but its payload.
type Oversize struct{ packets.PublishPacket }

// oversize begins to read a PUBLISH that is too large. b is what there is of it behind its header of so many bytes.
func (r *Reader) oversize(fh packets.FixedHeader, b []byte, header int) (packets.ControlPacket, error) {
	if fh.RemainingLength < 2 {
		return nil, malformedPublish()
	}
	if len(b) < 2 {
		return nil, nil
	}
	head := beforePayload(fh, int(binary.BigEndian.Uint16(b)))
	if head > fh.RemainingLength {
		return nil, malformedPublish()
	}
	r.in.take(header)
	r.over, r.skip = &Oversize{}, fh.RemainingLength-head
	return r.begin(fh, head)
}

// pass reads past the payload of a PUBLISH that is too large. It returns what was read before when it is through.
func (r *Reader) pass() (packets.ControlPacket, error) {
	n := min(r.skip, len(r.in.payload()))
	r.in.take(n)
	if r.skip -= n; r.skip > 0 {
		return nil, nil
	}
	p := r.over
	r.over = nil
	return p, nil
}
