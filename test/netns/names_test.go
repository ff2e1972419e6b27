package netns

import (
	"regexp"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"bridged/internal/testdevice"
)

// town is a gateway with a device, a DNS server that it reaches, and two ways to where clouds are.
type town struct {
	gateway, lan, far *space
	toDevices         *link
	first, second     *link // to far
	dns               *dns
}

func newTown(t *testing.T, options string) *town {
	t.Helper()
	n := newNetwork(t)
	w := &town{gateway: n.space("gw"), lan: n.space("lan"), far: n.space("cloud")}
	w.toDevices = n.link(w.gateway, w.lan)
	w.dns = newDNS(t, n.link(w.gateway, w.far).b, options)
	w.first, w.second = n.link(w.gateway, w.far), n.link(w.gateway, w.far)
	return w
}

// run starts bridged with a device whose cloud is known by name.
func (w *town) run(t *testing.T, c *cloud) *site {
	t.Helper()
	return newSite(t, settings{
		space: w.gateway, lan: w.toDevices.a.v4, resolv: w.dns.conf,
		clouds:  []string{generic("cloud", "wss://"+cloudName+"/", c, keepalive)},
		devices: [][2]string{{"dev", "cloud"}},
	})
}

// The DNS server does not know the cloud's name, then it cannot tell, then it answers nothing. Each is logged, with its
// reason. When it does know, the device comes online by itself, with what it published meanwhile.
func TestNameNotResolved(t *testing.T) {
	t.Parallel()
	w := newTown(t, "timeout:1 attempts:1")
	c := newCloud(t, w.far, w.first.b.v4)
	s := w.run(t, c)
	start := time.Now()
	dev := play(w.lan, s.addr, testdevice.Options{ClientID: "dev", Persist: true})
	for _, step := range []struct {
		what   string
		says   says
		reason string
	}{
		{"unknown", unknown, `does not exist|no such host`},
		{"failing", says{code: dnsmessage.RCodeServerFailure}, `cannot resolve|server misbehaving`},
		{"silent", says{silent: true}, `no DNS server answers|i/o timeout`},
	} {
		if step.says != unknown { // what it says from the beginning
			start = time.Now()
			w.dns.set(step.says)
		}
		reason := regexp.MustCompile(step.reason)
		e := s.saidSince(start, "why the name is not resolved: "+step.what, func(e entry) bool {
			return e.Device == "dev" && e.Level == "warn" && reason.MatchString(e.Reason+": "+e.Err)
		})
		t.Logf("%s: logged after %s: %s: %s", step.what, e.Time.Sub(start), e.Reason, e.Err)
		dev.acknowledged()
	}
	start = time.Now()
	w.dns.set(says{a: w.first.b.v4})
	dev.publish(10)
	dev.received(0)
	c.arrived("dev", dev.sent)
	t.Logf("online %s after the name could be resolved", time.Since(start).Round(time.Millisecond))
}

// The cloud moves to another address, and the way to the old one is cut. The session comes back at the new one.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	w := newTown(t, "timeout:1 attempts:2")
	old, moved := newCloud(t, w.far, w.first.b.v4), newCloud(t, w.far, w.second.b.v4)
	w.dns.set(says{a: w.first.b.v4})
	s := newSite(t, settings{
		space: w.gateway, lan: w.toDevices.a.v4, resolv: w.dns.conf,
		clouds:  []string{generic("cloud", "ws://"+cloudName+"/", old, keepalive)},
		devices: [][2]string{{"dev", "cloud"}},
	})
	dev := play(w.lan, s.addr, testdevice.Options{ClientID: "dev", Persist: true})
	dev.acknowledged()
	old.arrived("dev", 1)

	start := time.Now()
	w.dns.set(says{a: w.second.b.v4})
	w.first.cut()
	dev.publish(10)
	dev.received(0) // stored, at least
	moved.subscribed("dev")
	moved.send("dev", 0, 10)
	dev.received(10)
	t.Logf("at the new address after %s", time.Since(start).Round(time.Millisecond))
	until(t, "all is at the new address", func() bool { return len(moved.ReceivedFrom("dev")) >= 10 }, nil)
}

// soon is how long it may take to connect to a cloud of whose addresses one does not answer: far less than the kernel
// takes to give up, or than the usual 5 s until a DNS query is repeated.
const soon = 4 * time.Second

// The cloud has an IPv6 address that nobody can reach, and an IPv4 address that works.
func TestOneFamilyWorks(t *testing.T) {
	t.Parallel()
	w := newTown(t, "timeout:5 attempts:2")
	c := newCloud(t, w.far, "")
	w.dns.set(says{a: w.first.b.v4, aaaa: w.second.b.v6})
	w.second.swallow(true)
	w.comesUp(t, c)
	if w.second.toB.swallowed.Load() == 0 {
		t.Error("nobody tried the IPv6 address")
	}
}

// The DNS server answers nothing when it is asked for IPv6 addresses.
func TestDeafToIPv6(t *testing.T) {
	t.Parallel()
	w := newTown(t, "timeout:5 attempts:2")
	w.dns.set(says{a: w.first.b.v4, deaf6: true})
	w.comesUp(t, newCloud(t, w.far, w.first.b.v4))
}

// The cloud has an IPv6 address only.
func TestIPv6Only(t *testing.T) {
	t.Parallel()
	w := newTown(t, "timeout:5 attempts:2")
	w.dns.set(says{aaaa: w.first.b.v6})
	w.comesUp(t, newCloud(t, w.far, "["+w.first.b.v6+"]"))
}

// comesUp checks that a session is there soon.
func (w *town) comesUp(t *testing.T, c *cloud) {
	t.Helper()
	s := w.run(t, c)
	start := time.Now()
	dev := arrive(w.lan, s.addr, testdevice.Options{ClientID: "dev"})
	if took := s.online("dev", start).Sub(start); took > soon {
		t.Errorf("the session took %s", took)
	} else {
		t.Logf("the session took %s", took)
	}
	dev.acknowledged()
	c.arrived("dev", 1)
}
