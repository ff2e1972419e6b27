package cloudsim

import "time"

// Rate is at most Count per Per. The zero value is no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

// Rules are a cloud's limits. A number that is zero means no limit, except where noted. Breaking one is recorded as a
// [Violation].
type Rules struct {
	// MaxQoS is the highest QoS. A publish above it ends the connection, a subscription is refused with 0x80.
	MaxQoS byte
	// NoRetain ends the connection on a publish with the RETAIN flag, NoWill on a CONNECT with a will.
	NoRetain, NoWill bool
	// MaxPayload in bytes, MaxTopicBytes and MaxTopicLevels: a publish above ends the connection, a subscription is
	// refused. An empty level before a leading slash does not count.
	MaxPayload, MaxTopicBytes, MaxTopicLevels int
	// MaxFilters is how many filters a SUBSCRIBE may have; more end the connection.
	MaxFilters int
	// MaxSubscriptions of a session; what is above is refused with 0x80.
	MaxSubscriptions int
	// MaxClientID is the length of the client id proper, without aliyun's parameters.
	MaxClientID int
	// MinKeepalive and MaxKeepalive in seconds; MaxKeepalive 0 is no limit.
	MinKeepalive, MaxKeepalive uint16
	// Connects limits the logins of one identity; one above is refused with code 3.
	Connects Rate
	// Uplink limits a device's publishes, measured with a bucket that holds Count. Excess is recorded, once for each
	// time the limit is passed.
	Uplink Rate
	// DropExcess loses what is above Uplink: it is acknowledged like any other, and never arrives.
	DropExcess bool
	// MaxQueued is how many messages are kept for a persistent session that is offline; 0 is 100,000. An online session
	// always has 100,000.
	MaxQueued int
	// FanOut delivers what a device publishes to every session subscribed to it.
	FanOut bool
}

// RulesFor returns the limits of a kind of cloud, as its vendor publishes them.
func RulesFor(k Kind) Rules {
	switch k {
	case Aliyun:
		return Rules{
			MaxQoS: 1, NoRetain: true, NoWill: true,
			MaxPayload: 256 << 10, MaxTopicBytes: 128, MaxTopicLevels: 7,
			MaxFilters: 8, MaxSubscriptions: 100, MaxClientID: 64,
			MinKeepalive: 30, MaxKeepalive: 1200,
			Connects: Rate{5, time.Minute}, Uplink: Rate{30, time.Second},
		}
	case Tencent:
		return Rules{
			MaxQoS: 1, NoRetain: true, NoWill: true,
			MaxPayload: 16 << 10, MaxTopicBytes: 255, MaxFilters: 1,
			MaxKeepalive: 900,
			Connects:     Rate{1, 5 * time.Second}, Uplink: Rate{30, time.Second},
			MaxQueued: 150,
		}
	default:
		return Rules{MaxQoS: 2, FanOut: true}
	}
}

// Rule names what a violation broke.
type Rule string

// The rules that a client can break.
const (
	RuleProtocol      Rule = "protocol"      // the MQTT or WebSocket standard
	RuleQoS           Rule = "qos"           // QoS above MaxQoS
	RuleRetain        Rule = "retain"        // RETAIN where NoRetain
	RuleWill          Rule = "will"          // a will where NoWill
	RulePayload       Rule = "payload"       // payload above MaxPayload
	RuleTopic         Rule = "topic"         // topic or filter too long or too deep
	RuleFilters       Rule = "filters"       // too many filters in one SUBSCRIBE
	RuleSubscriptions Rule = "subscriptions" // too many subscriptions in all
	RuleClientID      Rule = "client_id"     // client id too long
	RuleKeepalive     Rule = "keepalive"     // keepalive out of range
	RuleConnectRate   Rule = "connect_rate"  // too many logins
	RuleUplinkRate    Rule = "uplink_rate"   // too many publishes
	RuleUnknownAck    Rule = "unknown_ack"   // an acknowledgement for nothing that is in flight
	RuleAckOrder      Rule = "ack_order"     // PUBACKs or PUBRECs out of order (MQTT 3.1.1, 4.6)
	RulePacketID      Rule = "packet_id"     // a packet identifier that is in use (MQTT 3.1.1, 2.3.1)
)
