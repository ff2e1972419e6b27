package broker

import (
	"encoding/binary"

	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/mqtt"
)

// The first byte of acknowledgements (MQTT 3.1.1, 3.4 to 3.7), and their size in bytes with a reason code.
const (
	puback  = packets.Puback << 4
	pubrec  = packets.Pubrec << 4
	pubrel  = packets.Pubrel<<4 | 0x02
	pubcomp = packets.Pubcomp << 4

	ackSize = 4
)

// appendAck appends an acknowledgement. For MQTT 5 it means success (3.4.2.1).
func appendAck(b []byte, kind byte, id uint16) []byte {
	return append(b, kind, 2, byte(id>>8), byte(id))
}

// publishLength is the remaining length of a PUBLISH.
func publishLength(version byte, m *mqtt.Message) int {
	n := 2 + len(m.Topic) + len(m.Payload)
	if m.QoS > 0 {
		n += 2
	}
	if version == 5 {
		n++ // no properties
	}
	return n
}

// publishSize is the size of a whole PUBLISH.
func publishSize(version byte, m *mqtt.Message) int {
	n := publishLength(version, m)
	size := 2 + n
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// appendPublish appends a PUBLISH (MQTT 3.1.1, 3.3; MQTT 5, 3.3). id is not used for QoS 0.
func appendPublish(b []byte, version byte, m *mqtt.Message, dup bool, id uint16) []byte {
	head := packets.Publish<<4 | m.QoS<<1
	if dup {
		head |= 0x08
	}
	if m.Retain {
		head |= 0x01
	}
	b = append(b, head)
	n := publishLength(version, m)
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	b = append(b, byte(n))
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Topic)))
	b = append(b, m.Topic...)
	if m.QoS > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	if version == 5 {
		b = append(b, 0)
	}
	return append(b, m.Payload...)
}
