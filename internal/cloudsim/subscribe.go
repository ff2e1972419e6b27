package cloudsim

import (
	"fmt"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/mqtt"
)

// codeFailure in SUBACK refuses a filter (MQTT 3.1.1, 3.9.3).
const codeFailure = 0x80

// subscribeLocked grants filters and sends the retained messages that match.
func (c *Cloud) subscribeLocked(cn *conn, p *packets.SubscribePacket) error {
	if err := c.checkFiltersLocked(p.Topics); err != nil {
		return err
	}
	for _, qos := range p.Qoss {
		if qos > 2 {
			return breachf(RuleProtocol, "SUBSCRIBE with QoS %d", qos)
		}
	}
	codes := make([]byte, len(p.Topics))
	for i, filter := range p.Topics {
		codes[i] = c.grantLocked(cn, filter, p.Qoss[i])
	}
	suback := &packets.SubackPacket{
		FixedHeader: packets.FixedHeader{MessageType: packets.Suback}, MessageID: p.MessageID, ReturnCodes: codes,
	}
	cn.sendSubackLocked(encode(suback))
	for i, filter := range p.Topics {
		if codes[i] != codeFailure {
			c.sendRetainedLocked(cn.session, filter, codes[i])
		}
	}
	c.wakeLocked()
	return nil
}

func (c *Cloud) checkFiltersLocked(filters []string) error {
	if len(filters) == 0 {
		return breachf(RuleProtocol, "no filter (MQTT 3.1.1, 3.8.3 and 3.10.3)")
	}
	for _, f := range filters {
		if !mqtt.ValidFilter(f) {
			return breachf(RuleProtocol, "filter %q (MQTT 3.1.1, 4.7)", f)
		}
	}
	if limit := c.rules.MaxFilters; limit > 0 && len(filters) > limit {
		return breachf(RuleFilters, "%d filters in one packet, more than %d", len(filters), limit)
	}
	return nil
}

// grantLocked subscribes a session to a filter and returns the code for SUBACK.
func (c *Cloud) grantLocked(cn *conn, filter string, qos byte) byte {
	s, r := cn.session, &c.rules
	_, has := s.subs[filter]
	bad := func(rule Rule, detail string) byte {
		c.violationLocked(cn.device, cn.clientID, rule, detail)
		return codeFailure
	}
	switch {
	case c.faults.refuses(cn.device, filter):
		return codeFailure
	case qos > r.MaxQoS:
		return bad(RuleQoS, fmt.Sprintf("SUBSCRIBE with QoS %d to %q", qos, filter))
	case r.badTopic(filter):
		return bad(RuleTopic, fmt.Sprintf("filter %q is %s", filter, r.topicLimit()))
	case !has && r.MaxSubscriptions > 0 && len(s.subs) >= r.MaxSubscriptions:
		return bad(RuleSubscriptions, fmt.Sprintf("more than %d subscriptions", r.MaxSubscriptions))
	}
	s.subs[filter] = qos
	c.tree.add(filter, s, qos)
	return qos
}

func (c *Cloud) unsubscribeLocked(cn *conn, p *packets.UnsubscribePacket) error {
	if len(p.Topics) == 0 {
		return breachf(RuleProtocol, "UNSUBSCRIBE without a filter (MQTT 3.1.1, 3.10.3)")
	}
	for _, filter := range p.Topics {
		if !mqtt.ValidFilter(filter) {
			return breachf(RuleProtocol, "UNSUBSCRIBE from %q (MQTT 3.1.1, 4.7)", filter)
		}
		delete(cn.session.subs, filter)
		c.tree.remove(filter, cn.session)
	}
	cn.sendSubackLocked(encodeID(typeUnsuback, p.MessageID))
	c.wakeLocked()
	return nil
}

// sendSubackLocked sends SUBACK or UNSUBACK, or withholds it.
func (cn *conn) sendSubackLocked(b []byte) {
	if cn.cloud.faults.of(cn.device).subacks {
		cn.heldSubacks = append(cn.heldSubacks, b...)
		return
	}
	cn.sendLocked(b)
}
