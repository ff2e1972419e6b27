package broker

import (
	"github.com/mochi-mqtt/server/v2/packets"
)

// What MQTT 5 has and the cloud's MQTT 3.1.1 has not is decided here; docs/mqtt5.md tells users.

// connack completes the CONNACK that mochi is about to send.
func (l *link) connack(pk *packets.Packet) {
	pk.SessionPresent = l.req.resumed && l.req.version != 3 // MQTT 3.1 has a reserved byte there
	if l.req.version != 5 {
		return
	}
	d, p := l.device, &pk.Properties
	p.AssignedClientID = ""
	if l.req.clientID == "" {
		p.AssignedClientID = l.assigned
	}
	p.MaximumQos, p.MaximumQosFlag = d.setup().MaxQoS, d.setup().MaxQoS < 2
	p.RetainAvailable, p.RetainAvailableFlag = 0, !d.setup().Retain
	p.MaximumPacketSize = uint32(l.b.cfg.MaxPacketSize)
	p.SessionExpiryInterval, p.SessionExpiryIntervalFlag = l.req.expiry, l.req.expiry > 0
	p.SubIDAvailable, p.SubIDAvailableFlag = 0, true
	p.SharedSubAvailable, p.SharedSubAvailableFlag = 0, true
}

// stripped says whether a message has properties that are not carried to the cloud. Its expiry is not among them: it is
// honoured here.
func stripped(p *packets.Properties) bool {
	return p.PayloadFormatFlag || p.ContentType != "" || p.ResponseTopic != "" || len(p.CorrelationData) > 0 ||
		len(p.User) > 0
}

// unsupported returns the reason code for a filter of a SUBSCRIBE that asks for what the cloud cannot do, and says what
// that is.
func unsupported(pk *packets.Packet, f *packets.Subscription) (code byte, reason string) {
	switch {
	case len(pk.Properties.SubscriptionIdentifier) > 0:
		return packets.ErrSubscriptionIdentifiersNotSupported.Code, "subscription identifiers are not supported"
	case shared(f.Filter):
		return packets.ErrSharedSubscriptionsNotSupported.Code, "shared subscriptions are not supported"
	case f.NoLocal:
		return packets.ErrImplementationSpecificError.Code, "the cloud's MQTT 3.1.1 does not know No Local"
	case f.RetainAsPublished:
		return packets.ErrImplementationSpecificError.Code, "the cloud's MQTT 3.1.1 does not know Retain As Published"
	case f.RetainHandling != 0:
		return packets.ErrImplementationSpecificError.Code, "the cloud's MQTT 3.1.1 does not know Retain Handling"
	}
	return 0, ""
}
