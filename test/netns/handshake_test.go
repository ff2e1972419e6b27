package netns

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"bridged/internal/testdevice"
)

// crowd is how many devices are stuck: more than connect to one cloud at a time.
const crowd = 40

// Nobody answers SYN at one cloud's address.
func TestConnectingStuck(t *testing.T) {
	t.Parallel()
	handshakeStuck(t, func(_ *cloud, l *link, on bool) { l.swallow(on) })
}

// The cloud accepts TCP connections and does not begin the TLS handshake.
func TestTLSHandshakeStuck(t *testing.T) {
	t.Parallel()
	handshakeStuck(t, func(c *cloud, _ *link, on bool) { c.StallTLS(on) })
}

// handshakeStuck has a crowd of devices whose handshakes with their cloud are stuck. Neither their own logins and
// publishes are delayed by that, nor anything of devices of another cloud, nor the session that one of them has
// already. When the handshakes work again they all come up.
func handshakeStuck(t *testing.T, stick func(c *cloud, l *link, on bool)) {
	n := newNetwork(t)
	gateway, lan, far := n.space("gw"), n.space("lan"), n.space("cloud")
	toDevices, toStuck, toWell := n.link(gateway, lan), n.link(gateway, far), n.link(gateway, far)
	stuck, well := newCloud(t, far, toStuck.b.v4), newCloud(t, far, toWell.b.v4)
	o := settings{
		space: gateway, lan: toDevices.a.v4,
		clouds: []string{
			generic("stuck", stuck.WSSURL(), stuck, keepalive), generic("well", well.WSSURL(), well, keepalive),
		},
		devices: [][2]string{{"first", "well"}, {"second", "well"}},
	}
	var names []string
	for i := range crowd {
		names = append(names, fmt.Sprint("stuck-", i))
		o.devices = append(o.devices, [2]string{names[i], "stuck"})
	}
	s := newSite(t, o)
	first := play(lan, s.addr, testdevice.Options{ClientID: "first"})
	first.acknowledged()

	stick(stuck, toStuck, true)
	var playing sync.WaitGroup
	players := make([]*player, crowd)
	for i, name := range names {
		playing.Go(func() {
			p := arrive(lan, s.addr, testdevice.Options{ClientID: name, Persist: true})
			p.acknowledged()
			players[i] = p
		})
	}
	playing.Wait()
	if t.Failed() {
		return
	}
	second := play(lan, s.addr, testdevice.Options{ClientID: "second"})
	for range 10 {
		first.acknowledged()
		second.acknowledged()
	}
	well.send("second", 0, 10)
	second.received(10)
	well.arrived("first", first.sent)
	well.arrived("second", second.sent)
	if got := len(stuck.Connections("")); got > 0 {
		t.Errorf("%d handshakes went well", got)
	}

	start := time.Now()
	stick(stuck, toStuck, false)
	for i, name := range names {
		players[i].publish(1)
		players[i].received(0)
		stuck.arrived(name, 2)
	}
	slowest := max(first.slowest, second.slowest)
	for _, p := range players {
		slowest = max(slowest, p.slowest)
	}
	t.Logf("the slowest answer on the LAN took %s; all is well after %s",
		slowest, time.Since(start).Round(time.Millisecond))
}
