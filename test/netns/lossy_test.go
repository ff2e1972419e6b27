package netns

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"bridged/internal/testdevice"
)

// Over a link with 300 ms of delay each way and 10 % of loss sessions come up, and everything arrives in order.
func TestLossyLink(t *testing.T) {
	t.Parallel()
	const (
		delay, percent = 300 * time.Millisecond, 10
		devices        = 10
		up, down       = 100, 50
	)
	n := newNetwork(t)
	gateway, lan, far := n.space("gw"), n.space("lan"), n.space("cloud")
	toDevices, toCloud := n.link(gateway, lan), n.link(gateway, far)
	toCloud.set(delay, percent)
	c := newCloud(t, far, toCloud.b.v4)
	o := settings{
		space: gateway, lan: toDevices.a.v4,
		clouds: []string{generic("secure", c.WSSURL(), c, time.Minute), generic("plain", c.WSURL(), c, time.Minute)},
	}
	for i := range devices {
		o.devices = append(o.devices, [2]string{fmt.Sprint("dev-", i), []string{"secure", "plain"}[i%2]})
	}
	s := newSite(t, o)

	start := time.Now()
	var playing sync.WaitGroup
	for _, d := range o.devices {
		playing.Go(func() {
			p := play(lan, s.addr, testdevice.Options{ClientID: d[0], Persist: true})
			p.publish(up)
			p.received(down)
		})
	}
	for _, d := range o.devices {
		c.subscribed(d[0])
	}
	t.Logf("all sessions are up after %s", time.Since(start).Round(time.Millisecond))
	for _, d := range o.devices {
		c.send(d[0], 0, down)
	}
	for _, d := range o.devices {
		c.arrived(d[0], up)
	}
	playing.Wait()
	t.Logf("all messages have arrived after %s; the link: %s", time.Since(start).Round(time.Millisecond), toCloud)
	c.behaved()
	for _, d := range []*direction{&toCloud.toA, &toCloud.toB} {
		if lost, all := d.lost.Load(), d.lost.Load()+d.passed.Load(); lost*100 < all*percent/2 || lost == 0 {
			t.Errorf("the link lost %d of %d packets only", lost, all)
		}
	}
}
