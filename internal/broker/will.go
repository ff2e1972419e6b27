package broker

import (
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// will is a device's last will. The cloud side delivers it, unless it is one that only MQTT 5 has: with a delay or
// with a message expiry, which counts from its delivery. Those are held here.
type will struct {
	message  mqtt.Message
	delay    uint32 // seconds
	expiry   uint32 // seconds after which the message loses its value, 0: never
	held     bool
	stripped bool // it has properties that are not carried
}

func newWill(version byte, sessionExpiry uint32, c *packets.ConnectParams) *will {
	w := &will{message: mqtt.Message{Topic: c.WillTopic, Payload: c.WillPayload, QoS: c.WillQos, Retain: c.WillRetain}}
	if version == 5 {
		p := &c.WillProperties
		w.expiry = p.MessageExpiryInterval
		if sessionExpiry > 0 { // otherwise the session ends with the connection, and the will is due then
			w.delay = p.WillDelayInterval
		}
		w.held = w.delay > 0 || w.expiry > 0
		w.stripped = stripped(p)
	}
	return w
}

// delayed is a will that waits for its time.
type delayed struct {
	will  *will
	timer *time.Timer
}

// holdWillLocked delivers a held will after its delay, or with the end of the session if that is sooner (MQTT 5,
// 3.1.3.2.2).
func (d *device) holdWillLocked(w *will, sessionExpiry uint32) {
	delay := min(w.delay, sessionExpiry)
	d.will = &delayed{will: w}
	if delay == 0 {
		d.settleWillLocked(true)
		return
	}
	waiting := d.will
	waiting.timer = d.b.after(time.Duration(delay)*time.Second, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.will == waiting {
			d.settleWillLocked(true)
		}
	})
}

// settleWillLocked delivers the will that waits, or forgets it.
func (d *device) settleWillLocked(due bool) {
	w := d.will.will
	d.b.cancel(d.will.timer)
	d.will = nil
	if !due {
		return
	}
	m := w.message
	if w.expiry > 0 {
		m.Expires = time.Now().Add(time.Duration(w.expiry) * time.Second)
	}
	d.b.log.Info("publishing the device's will", zap.String("device", d.name), zap.String("topic", m.Topic))
	(&willSource{up: d.setup().Up, message: m}).Room()
}

// willSource offers a will until there is room for it.
type willSource struct {
	up      Uplink
	message mqtt.Message
}

// Settled implements lane.Source: nobody waits for it.
func (*willSource) Settled(mqtt.Token, lane.Outcome) {}

// Room implements lane.Source.
func (w *willSource) Room() { w.up.Offer(w.message, w, 0) }
