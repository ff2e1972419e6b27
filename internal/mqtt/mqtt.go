// Package mqtt holds the words that the LAN side and the cloud side share: messages, subscriptions, what a CONNECT asks
// for, topic rules, and the packet-identifier tables that make up an MQTT session's state (MQTT 3.1.1, 4.1).
//
// Its values are plain data. Nothing here does I/O or starts a goroutine; the tables are not safe for concurrent use,
// their owner guards them.
package mqtt

import "time"

// Failure is the SUBACK return code for a refused filter (MQTT 3.1.1, 3.9.3).
const Failure = 0x80

// Forever is a session expiry interval that never passes (MQTT 5, 3.1.2.11.2).
const Forever = 0xFFFFFFFF

// Message is an application message.
//
// The payload is shared, never copied: who hands a message over must not change it afterwards.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	// Expires is when the message loses its value (MQTT 5, 3.3.2.3.3), zero if never.
	Expires time.Time
}

// Size is what a message counts for in byte limits: topic, payload and a fixed share for its bookkeeping.
func (m *Message) Size() int64 {
	return int64(len(m.Topic)+len(m.Payload)) + overhead
}

// overhead is about what a queued message costs beside its own bytes.
const overhead = 128

// Subscription is a topic filter with the QoS that was asked for.
type Subscription struct {
	Filter string
	QoS    byte
}

// Connect is what a device's CONNECT asks of its session.
type Connect struct {
	// Clean says that the session ends with the connection (3.1.1: clean session; 5: session expiry interval 0).
	Clean bool
	// Reset asks to discard what an earlier session left and keep the new one: MQTT 5's Clean Start with a session
	// expiry. It is never set together with Clean, which implies it.
	Reset bool
	// Expiry is for how many seconds the session outlives the connection, or Forever. It is 0 if Clean is set, and also
	// for a connection with which an earlier, kept session ends.
	Expiry uint32
	// Will is the last will, nil if none.
	Will *Message
}
