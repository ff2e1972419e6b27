package broker

import (
	"bytes"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/mqtt"
)

// subscribe passes a SUBSCRIBE on. The SUBACK follows when the cloud side has answered.
func (l *link) subscribe(pk *packets.Packet) error {
	if code := pk.SubscribeValidate(); code != packets.CodeSuccess {
		return l.violation(code)
	}
	ack := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Suback},
		PacketID:    pk.PacketID,
		ReasonCodes: make([]byte, len(pk.Filters)),
	}
	var subs []mqtt.Subscription
	var places []int // of subs in the packet
	for i := range pk.Filters {
		f := &pk.Filters[i]
		if !mqtt.ValidFilter(f.Filter) {
			return l.violation(packets.ErrTopicFilterInvalid)
		}
		if l.req.version == 5 {
			if f.RetainHandling > 2 || f.NoLocal && shared(f.Filter) { // MQTT 5, 3.8.3-4 and 3.8.3.1
				return l.violation(packets.ErrProtocolViolation)
			}
			if code, reason := unsupported(pk, f); code != 0 {
				ack.ReasonCodes[i], ack.Properties.ReasonString = code, reason
				continue
			}
		}
		subs = append(subs, mqtt.Subscription{Filter: f.Filter, QoS: f.Qos})
		places = append(places, i)
	}
	if len(subs) == 0 {
		return l.answer(ack)
	}
	l.device.setup().Upstream.Subscribe(subs, func(codes []byte) {
		for i, place := range places {
			code := byte(mqtt.Failure)
			if i < len(codes) && codes[i] <= 2 {
				code = codes[i]
				l.session.subscribed(subs[i].Filter)
			}
			ack.ReasonCodes[place] = code
		}
		_ = l.answer(ack) // the reader notices
	})
	return nil
}

// unsubscribe passes an UNSUBSCRIBE on. The UNSUBACK follows when the cloud side has answered.
func (l *link) unsubscribe(pk *packets.Packet) error {
	if code := pk.UnsubscribeValidate(); code != packets.CodeSuccess {
		return l.violation(code)
	}
	ack := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Unsuback},
		PacketID:    pk.PacketID,
		ReasonCodes: make([]byte, len(pk.Filters)),
	}
	filters := make([]string, len(pk.Filters))
	for i := range pk.Filters {
		filters[i] = pk.Filters[i].Filter
		if !mqtt.ValidFilter(filters[i]) {
			return l.violation(packets.ErrTopicFilterInvalid)
		}
	}
	for i, f := range filters {
		if !l.session.unsubscribed(f) {
			ack.ReasonCodes[i] = packets.CodeNoSubscriptionExisted.Code
		}
	}
	l.device.setup().Upstream.Unsubscribe(filters, func() {
		_ = l.answer(ack) // the reader notices
	})
	return nil
}

// answer sends a SUBACK or UNSUBACK, unless it is too large for the device (MQTT 5, 3.1.2-25).
func (l *link) answer(ack packets.Packet) error {
	ack.ProtocolVersion = l.req.version
	ack.Mods = packets.Mods{
		MaxSize: uint32(l.req.maxPacket), DisallowProblemInfo: l.req.quiet, AllowResponseInfo: true,
	}
	var buf bytes.Buffer
	encode := ack.SubackEncode
	if ack.FixedHeader.Type == packets.Unsuback {
		encode = ack.UnsubackEncode
	}
	if err := encode(&buf); err != nil {
		return err
	}
	if l.req.maxPacket > 0 && buf.Len() > l.req.maxPacket {
		return packets.ErrPacketTooLarge
	}
	_, err := l.Write(buf.Bytes())
	return err
}

// shared says whether a filter is one of a shared subscription (MQTT 5, 4.8.2). In MQTT 3 it is like any other.
func shared(filter string) bool { return strings.HasPrefix(filter, "$share/") }
