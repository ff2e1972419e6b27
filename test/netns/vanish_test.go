package netns

import (
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/testdevice"
)

// Devices vanish without a word: their interface goes down. A device with a keepalive is let go after one and a half
// of it; one without is when it takes nothing of what is sent to it, or by TCP's own keepalive. Then its will is
// published, by the cloud, or by bridged where the cloud knows no wills. A device on another interface notices nothing.
func TestDeviceVanishes(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	gateway, gone, lan, far := n.space("gw"), n.space("gone"), n.space("lan"), n.space("cloud")
	toGone, toLAN, toCloud := n.link(gateway, gone), n.link(gateway, lan), n.link(gateway, far)
	c := newCloud(t, far, toCloud.b.v4)
	willing := generic("willing", c.WSURL(), c, keepalive)
	unwilling := willing[len("willing"):]
	unwilling = "unwilling" + unwilling[:len(unwilling)-1] + ", limits: {will: false}}"
	s := newSite(t, settings{
		space: gateway, lan: "0.0.0.0", clouds: []string{willing, unwilling},
		devices: [][2]string{
			{"ticking", "willing"}, {"emulated", "unwilling"}, {"taker", "willing"}, {"quiet", "willing"}, {"other", "willing"},
		},
	})
	const seconds = 4 // the keepalive
	other := play(lan, toLAN.a.v4+":1883", testdevice.Options{ClientID: "other"})
	devices := []struct {
		name      string
		keepalive uint16
		down      bool          // something is sent to it
		from, to  time.Duration // when its will may come
	}{
		// bridged looks at the time for an eighth of the keepalive only.
		{name: "ticking", keepalive: seconds, from: 1.5 * seconds * time.Second, to: 1.75 * seconds * time.Second},
		{name: "emulated", keepalive: seconds, from: 1.5 * seconds * time.Second, to: 1.75 * seconds * time.Second},
		{name: "taker", down: true, from: 30 * time.Second, to: 38 * time.Second},
		{name: "quiet", from: 50 * time.Second, to: 60 * time.Second},
	}
	players := make(map[string]*player)
	for _, d := range devices {
		will := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		will.TopicName, will.Payload, will.Qos = "will/"+d.name, []byte("gone"), 1
		p := play(gone, toGone.a.v4+":1883", testdevice.Options{ClientID: d.name, Keepalive: d.keepalive, Will: will})
		players[d.name] = p
		p.acknowledged()
	}
	other.acknowledged()
	for _, d := range devices {
		if d.keepalive > 0 {
			players[d.name].ping()
		}
	}
	toGone.settle()
	start := time.Now()
	toGone.b.down()
	for _, d := range devices {
		if d.down {
			c.send(d.name, 0, 1)
		}
	}
	for _, d := range devices {
		took := c.willOf(d.name, "will/"+d.name).Sub(start)
		// The timers may have been set a little before the interface went down, and go off a little later.
		const before, after = time.Second, 4 * time.Second
		if took < d.from-before || took > d.to+after {
			t.Errorf("%s: its will came after %s, want %s to %s", d.name, took, d.from, d.to)
		} else {
			t.Logf("%s: its will came after %s", d.name, took.Round(time.Millisecond))
		}
		other.acknowledged()
	}
	c.send("other", 0, 1)
	other.received(1)
	for _, e := range s.entries() {
		if e.Device == "other" && e.Msg == "device disconnected" {
			t.Errorf("%s", e.text)
		}
	}
	c.behaved()
}
