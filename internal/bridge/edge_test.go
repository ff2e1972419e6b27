package bridge

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/cloudsim"
	"bridged/internal/testdevice"
)

// the cloud took CONNECT with the will, CONNACK was lost, then the device drops: two wills.
func TestWillWhenConnackIsLost(t *testing.T) {
	r, c := generic(t, "    linger: 0s\n")
	c.Delay("dev", time.Second)
	withWill := dev
	withWill.Will = will(true)
	d := r.connect(withWill)
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	c.Down() // CONNACK is lost; the cloud publishes the will
	until(t, "a failure", func() bool { return r.status("dev").Session.Failures > 0 })
	d.Drop()
	pause(100 * time.Millisecond)
	c.Heal()
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	pause(time.Second)
	if n := wills(c); n != 1 {
		t.Errorf("%d wills", n)
	}
}

// the uplink rate is configured and not kept: an aliyun cloud drops the excess silently.
func TestUplinkRate(t *testing.T) {
	c := simulate(t, cloudsim.Options{
		Kind: cloudsim.Aliyun, NoWSS: true, Product: "pk", Devices: []cloudsim.Device{{Name: "dev", Secret: "s"}},
	})
	rules := c.Rules()
	rules.DropExcess = true
	c.SetRules(rules)
	r := run(t, fmt.Sprintf(`
clouds:
  sh: {provider: aliyun, url: "%s", product_key: pk}
devices:
  - {name: dev, cloud: sh, login: {username: u, password: p}, device_secret: s}
`, c.WSURL()))
	d := r.connect(dev)
	for i := range 200 {
		d.Publish("t", []byte(fmt.Sprint(i)), 1)
	}
	for range 200 {
		testdevice.Expect[*packets.PubackPacket](d)
	}
	until(t, "an empty queue", func() bool { return r.status("dev").Up.Queued == 0 })
	if n := len(c.Received()); n != 200 {
		t.Errorf("%d of 200 messages taken by the cloud; violations %d", n, len(c.Violations()))
	}
}

// bigger window than identifiers: stuck after a reconnect.
func TestWindowAboveIdentifiers(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	r := run(t, fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s", limits: {max_in_flight: 2000}}
devices:
  - {name: dev, cloud: lab, login: {username: u, password: p}}
`, c.WSURL()))
	persist := dev
	persist.Persist = true
	d := r.connect(persist)
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	c.WithholdAcks("dev")
	for i := range 1500 {
		d.Publish("t", []byte(fmt.Sprint(i)), 1)
	}
	until(t, "all in flight", func() bool { return r.status("dev").Up.InFlight == 1500 })
	c.Down()
	c.Heal()
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	until(t, "back", func() bool { return r.status("dev").Session.Connects == 2 })
	until(t, "everything delivered", func() bool { return r.status("dev").Up.Delivered == 1500 })
}

// QoS 2, clean session, a broker that forwards on PUBREL (mosquitto): PUBREC, then the connection breaks.
func TestQoS2OverACleanSession(t *testing.T) {
	bin, err := exec.LookPath("mosquitto")
	if err != nil {
		t.Fatal(err)
	}
	port := func() string {
		l, _ := net.Listen("tcp", "127.0.0.1:0")
		defer l.Close()
		_, p, _ := net.SplitHostPort(l.Addr().String())
		return p
	}
	ws, tcp := port(), port()
	conf := filepath.Join(t.TempDir(), "m.conf")
	lines := "allow_anonymous true\nlistener " + tcp + " 127.0.0.1\nlistener " + ws + " 127.0.0.1\nprotocol websockets\n"
	if err := os.WriteFile(conf, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	until(t, "mosquitto", func() bool {
		x, err := net.Dial("tcp", "127.0.0.1:"+ws)
		if err == nil {
			x.Close()
		}
		return err == nil
	})
	proxy, _ := net.Listen("tcp", "127.0.0.1:0")
	defer proxy.Close()
	var armed atomic.Bool
	armed.Store(true)
	go func() {
		for {
			a, err := proxy.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", "127.0.0.1:"+ws)
			if err != nil {
				a.Close()
				continue
			}
			var gate atomic.Bool // PUBREC has passed: nothing more to the broker
			go func() {
				buf := make([]byte, 4096)
				for {
					n, err := a.Read(buf)
					if err != nil || gate.Load() {
						b.Close()
						return
					}
					_, _ = b.Write(buf[:n])
				}
			}()
			go func() {
				buf := make([]byte, 4096)
				for {
					n, err := b.Read(buf)
					if err != nil {
						a.Close()
						return
					}
					cut := strings.Contains(string(buf[:n]), "\x50\x02") && armed.CompareAndSwap(true, false)
					if cut {
						gate.Store(true)
					}
					_, _ = a.Write(buf[:n])
					if cut {
						pause(100 * time.Millisecond)
						a.Close()
						b.Close()
						return
					}
				}
			}()
		}
	}()
	r := run(t, fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "ws://%s/"}
devices:
  - {name: dev, cloud: lab, login: {username: u, password: p}}
`, proxy.Addr()))
	watcher := testdevice.Connect(t, "127.0.0.1:"+tcp, testdevice.Options{ClientID: "watcher"})
	watcher.Subscribe(0, "t")
	d := r.connect(dev)
	until(t, "online", func() bool { return r.status("dev").Session.State == "online" })
	id := d.Publish("t", []byte("x"), 2)
	testdevice.Expect[*packets.PubrecPacket](d)
	d.Ack(packets.Pubrel, id)
	testdevice.Expect[*packets.PubcompPacket](d)
	until(t, "reconnected", func() bool { return r.status("dev").Session.Connects == 2 })
	if p := watcher.Next(2 * time.Second); p == nil {
		t.Errorf("QoS 2 message was acknowledged to the device (PUBREC, PUBCOMP) and is lost; up %+v", r.status("dev").Up)
	}
}

// SIGTERM: backlog of a device with a will.
func TestStopDrainsWithAWill(t *testing.T) {
	for _, with := range []bool{false, true} {
		t.Run(fmt.Sprint("will ", with), func(t *testing.T) {
			r, c := generic(t, "")
			o := dev
			if with {
				o.Will = will(false)
			}
			d := r.connect(o)
			if err := c.WaitOnline(within(t), "dev"); err != nil {
				t.Fatal(err)
			}
			c.Delay("dev", 300*time.Millisecond)
			for i := range 5 {
				d.Publish("t", []byte(fmt.Sprint(i)), 1)
			}
			until(t, "5", func() bool { return r.status("dev").Up.Accepted == 5 })
			r.stop()
			if q := r.status("dev").Up.Queued; q != 0 {
				t.Errorf("%d left", q)
			}
		})
	}
}

// pause gives something time to happen that must not.
func pause(d time.Duration) { <-time.After(d) }
