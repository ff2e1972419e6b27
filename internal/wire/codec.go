package wire

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"

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
