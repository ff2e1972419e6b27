package credentials

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The providers.
const (
	ProviderAliyun  = "aliyun"
	ProviderTencent = "tencent"
	ProviderGeneric = "generic"
)

// Limits is what a cloud allows one device. A bridge that keeps to it is neither throttled nor banned. Unless said
// otherwise, 0 means that the cloud sets no limit.
type Limits struct {
	// KeepaliveMin to KeepaliveMax is the accepted range, KeepaliveDefault what to use unless told otherwise. A
	// keepalive of 0 means none; it is accepted where KeepaliveMin is 0.
	KeepaliveMin     time.Duration
	KeepaliveMax     time.Duration
	KeepaliveDefault time.Duration
	// MaxQoS is the highest quality of service that the cloud takes and gives: 0, 1 or 2.
	MaxQoS byte
	// Retain says that the cloud keeps retained messages; otherwise the flag must not be sent.
	Retain bool
	// Will says that the cloud takes a will in CONNECT; otherwise the bridge publishes it.
	Will bool
	// MaxPayload is the largest payload in bytes.
	MaxPayload int64
	// UplinkPerSecond is how many messages a device may publish in a second. What is above may be dropped silently.
	UplinkPerSecond int
	// Connects is how often a device may connect.
	Connects Rate
	// MaxInFlight is how many QoS 1 and 2 messages may be unacknowledged at once. Never 0.
	MaxInFlight int
	// FiltersPerSubscribe is how many filters one SUBSCRIBE may carry.
	FiltersPerSubscribe int
	// MaxSubscriptions is how many filters a device may have subscribed to.
	MaxSubscriptions int
	// MaxTopicBytes and MaxTopicLevels bound topics and filters.
	MaxTopicBytes  int
	MaxTopicLevels int
	// MaxClientID is the longest client id in characters, as the configuration writes it: without what a signature adds.
	MaxClientID int
}

// Rate is so many in a span of time. The zero value means that there is no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

// Unlimited says that there is no limit.
func (r Rate) Unlimited() bool { return r.Count == 0 }

// String is how the configuration writes it: "5/1m0s", or "0" for no limit.
func (r Rate) String() string {
	if r.Unlimited() {
		return "0"
	}
	return fmt.Sprintf("%d/%s", r.Count, r.Per)
}

// limits holds each provider's. Sources: Alibaba's "Limits" page of IoT Platform and Tencent's "Use limits" of IoT Hub.
var limits = map[string]Limits{
	ProviderAliyun: {
		KeepaliveMin: 30 * time.Second, KeepaliveMax: 1200 * time.Second, KeepaliveDefault: 300 * time.Second,
		MaxQoS:              1,
		MaxPayload:          256 << 10,
		UplinkPerSecond:     30,
		Connects:            Rate{5, time.Minute},
		MaxInFlight:         100,
		FiltersPerSubscribe: 8,
		MaxSubscriptions:    100,
		MaxTopicBytes:       128,
		MaxTopicLevels:      7,
		MaxClientID:         64,
	},
	ProviderTencent: {
		KeepaliveMax: 900 * time.Second, KeepaliveDefault: 300 * time.Second,
		MaxQoS:          1,
		MaxPayload:      16 << 10,
		UplinkPerSecond: 30,
		Connects:        Rate{1, 5 * time.Second},
		// No document names a window; at 30 messages a second this one is not felt.
		MaxInFlight:         100,
		FiltersPerSubscribe: 1,
		MaxTopicBytes:       255,
	},
	ProviderGeneric: {
		KeepaliveMax: 65535 * time.Second, KeepaliveDefault: 60 * time.Second,
		MaxQoS: 2,
		Retain: true,
		Will:   true,
		// Brokers bound the QoS 2 messages that wait for PUBREL and cut off who has more: EMQX at 100 by default.
		MaxInFlight: 100,
		// MQTT's own bounds (1.5.3): lengths are two bytes.
		MaxTopicBytes: 65535,
		MaxClientID:   65535,
	},
}

// LimitsOf returns the limits of a provider, and whether it is known.
func LimitsOf(provider string) (Limits, bool) {
	l, ok := limits[provider]
	return l, ok
}

// Providers lists the names of the providers in alphabetical order.
func Providers() []string {
	names := make([]string, 0, len(limits))
	for name := range limits {
		names = append(names, name)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}
