package cloudsim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/mqtt"
)

// Publish sends a message from the application to one device's session, with the lower of qos and what the session was
// granted. For a persistent session that is offline it is queued. The errors are ErrBadMessage, ErrNoSession,
// ErrNotSubscribed, ErrOffline and ErrQueueFull; with each of them the message is gone. The payload is not copied.
func (c *Cloud) Publish(device, topic string, payload []byte, qos byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkLocked(topic, payload, qos, false); err != nil {
		return err
	}
	id := c.identities[device]
	if id == nil || id.session == nil {
		return fmt.Errorf("%w: %q", ErrNoSession, device)
	}
	granted, ok := id.session.granted(topic)
	if !ok {
		return fmt.Errorf("%w: %q, %q", ErrNotSubscribed, device, topic)
	}
	return c.enqueueLocked(id.session, &message{topic, payload, qos}, granted, false)
}

// PublishAll sends a message to every session that is subscribed to its topic, and returns how many took it. With
// retain it is kept for later subscriptions, or the kept one removed if the payload is empty; only a cloud that
// allows RETAIN does that. The payload is not copied.
func (c *Cloud) PublishAll(topic string, payload []byte, qos byte, retain bool) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkLocked(topic, payload, qos, retain); err != nil {
		return 0, err
	}
	m := &message{topic, payload, qos}
	if retain {
		c.retainLocked(m)
	}
	return c.fanOutLocked(m), nil
}

// Retained returns the payload of a retained message.
func (c *Cloud) Retained(topic string) (payload []byte, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.retained[topic]
	if !ok {
		return nil, false
	}
	return m.payload, true
}

func (c *Cloud) checkLocked(topic string, payload []byte, qos byte, retain bool) error {
	r := &c.rules
	switch {
	case !validTopic(topic):
		return fmt.Errorf("%w: topic %q", ErrBadMessage, topic)
	case qos > 2:
		return fmt.Errorf("%w: QoS %d", ErrBadMessage, qos)
	case r.MaxPayload > 0 && len(payload) > r.MaxPayload:
		return fmt.Errorf("%w: payload of %d bytes, more than %d", ErrBadMessage, len(payload), r.MaxPayload)
	case retain && r.NoRetain:
		return fmt.Errorf("%w: this cloud retains nothing", ErrBadMessage)
	}
	return nil
}

// validTopic says whether s may be published to (MQTT 3.1.1, 4.7).
func validTopic(s string) bool {
	return mqtt.ValidFilter(s) && !strings.ContainsAny(s, "+#")
}

// granted returns the highest QoS granted to the filters that match a topic.
func (s *session) granted(topic string) (qos byte, ok bool) {
	for filter, q := range s.subs {
		if mqtt.Match(filter, topic) {
			qos, ok = max(qos, q), true
		}
	}
	return qos, ok
}

// routeLocked gives a device's message to the other sessions, on a cloud that does that.
func (c *Cloud) routeLocked(m *message, retain bool) {
	if !c.rules.FanOut {
		return
	}
	if retain {
		c.retainLocked(m)
	}
	c.fanOutLocked(m)
}

func (c *Cloud) retainLocked(m *message) {
	if len(m.payload) == 0 {
		delete(c.retained, m.topic)
		return
	}
	c.retained[m.topic] = m
}

// fanOutLocked sends a message to the sessions subscribed to its topic, once each, without RETAIN (MQTT 3.1.1,
// 3.3.1.3).
func (c *Cloud) fanOutLocked(m *message) int {
	n := 0
	for s, qos := range c.tree.match(m.topic) {
		if err := c.enqueueLocked(s, m, qos, false); err == nil { // counted otherwise
			n++
		}
	}
	return n
}

// sendRetainedLocked sends what a new subscription matches, in the order of topics.
func (c *Cloud) sendRetainedLocked(s *session, filter string, qos byte) {
	for _, topic := range slices.Sorted(maps.Keys(c.retained)) {
		if mqtt.Match(filter, topic) {
			_ = c.enqueueLocked(s, c.retained[topic], qos, true) // counted
		}
	}
}

// publishWillLocked publishes a last will.
func (c *Cloud) publishWillLocked(cn *conn, w *packets.ConnectPacket) {
	c.rec.receive(Received{
		Device: cn.device, ClientID: cn.clientID, Secure: cn.secure, Time: time.Now(),
		Topic: w.WillTopic, Payload: w.WillMessage, QoS: w.WillQos, Retain: w.WillRetain, Will: true,
	})
	c.routeLocked(&message{topic: w.WillTopic, payload: w.WillMessage, qos: w.WillQos}, w.WillRetain)
}
