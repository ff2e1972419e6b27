package netns

import (
	"testing"
	"time"

	"bridged/internal/testdevice"
)

// noticed is how soon a session over a link that swallows packets has to be given up: a keepalive, and what a busy
// machine and timers that go off once a second add.
const noticed = keepalive + 3*time.Second

// A link begins to swallow packets, in both directions, or the cloud's only, so that messages still arrive and
// acknowledgements do not. The sessions on it end within a keepalive, whether there is traffic or not. What devices
// publish meanwhile is acknowledged as soon as it is stored. When the link is well again everything arrives in order.
// Nothing of that can be felt on the LAN, or by devices of another cloud.
func TestSilentLink(t *testing.T) {
	t.Parallel()
	t.Run("both ways", func(t *testing.T) {
		t.Parallel()
		silentLink(t, func(l *link, on bool) { l.swallow(on) })
	})
	t.Run("back", func(t *testing.T) {
		t.Parallel()
		silentLink(t, func(l *link, on bool) { l.toA.hole.Store(on) })
	})
}

func silentLink(t *testing.T, swallow func(l *link, on bool)) {
	n := newNetwork(t)
	gateway, lan, far := n.space("gw"), n.space("lan"), n.space("cloud")
	toDevices, toBad, toWell := n.link(gateway, lan), n.link(gateway, far), n.link(gateway, far)
	bad, well := newCloud(t, far, toBad.b.v4), newCloud(t, far, toWell.b.v4)
	s := newSite(t, settings{
		space: gateway, lan: toDevices.a.v4,
		clouds:  []string{generic("bad", bad.WSSURL(), bad, keepalive), generic("well", well.WSSURL(), well, keepalive)},
		devices: [][2]string{{"busy", "bad"}, {"idle", "bad"}, {"late", "bad"}, {"other", "well"}, {"new", "well"}},
	})
	busy := play(lan, s.addr, testdevice.Options{ClientID: "busy", Persist: true})
	idle := play(lan, s.addr, testdevice.Options{ClientID: "idle", Persist: true})
	other := play(lan, s.addr, testdevice.Options{ClientID: "other", Persist: true})
	bad.subscribed("busy", "idle")
	for _, p := range []*player{busy, idle, other} {
		p.acknowledged()
	}

	start := time.Now()
	swallow(toBad, true)
	bad.send("busy", 0, 5)
	bad.send("idle", 0, 5)
	late := arrive(lan, s.addr, testdevice.Options{ClientID: "late", Persist: true})
	pace := time.NewTicker(200 * time.Millisecond)
	defer pace.Stop()
	for gone := map[string]bool{}; len(gone) < 2; {
		<-pace.C
		busy.acknowledged()
		other.acknowledged()
		idle.ping()
		for _, name := range []string{"busy", "idle"} {
			at, lost := s.lost(name, start)
			took := at.Sub(start)
			switch {
			case !lost && time.Since(start) > patience:
				t.Fatalf("%s: still not noticed", name)
			case !lost || gone[name]:
				continue
			case took > noticed:
				t.Errorf("%s was online for %s although its link swallowed everything", name, took)
			default:
				t.Logf("%s: noticed after %s", name, took)
			}
			gone[name] = true
		}
	}
	late.acknowledged()
	idle.acknowledged()
	another := play(lan, s.addr, testdevice.Options{ClientID: "new"})
	another.acknowledged()
	if toBad.toA.swallowed.Load() == 0 {
		t.Error("the link swallowed nothing")
	}

	healed := time.Now()
	swallow(toBad, false)
	bad.send("busy", 5, 10)
	bad.send("idle", 5, 10)
	for _, p := range []*player{busy, idle, late, other, another} {
		p.publish(10)
	}
	busy.received(10)
	idle.received(10)
	for _, p := range []*player{late, other, another} {
		p.received(0)
	}
	for _, p := range []*player{busy, idle, late} {
		bad.arrived(p.name, p.sent)
	}
	for _, p := range []*player{other, another} {
		well.arrived(p.name, p.sent)
	}
	t.Logf("all is well %s after the link; the slowest answers on the LAN: %s, %s, %s, %s, %s",
		time.Since(healed).Round(time.Millisecond),
		busy.slowest, idle.slowest, late.slowest, other.slowest, another.slowest)
	for _, e := range s.entries() {
		if e.Msg == "device disconnected" {
			t.Errorf("a device lost its connection: %s", e.text)
		}
	}
	bad.behaved()
	well.behaved()
}
