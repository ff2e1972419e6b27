package e2e

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/testdevice"
)

// A device whose cloud is not there yet connects, subscribes and publishes. Its message is acknowledged when it is on
// disk. When the cloud comes, it arrives there, and the device has what it subscribed to.
func TestCloudComesLater(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	pub(t, login{addr: m.addr()}, "kept", 1, payload("kept"), "-r")
	m.down()
	d := startDaemon(t, devYAML(m, ""), "no session with the cloud")
	dev := testdevice.Connect(t, d.addr, d.dev().options())
	d.logged(1, "no session with the cloud")
	if codes := dev.Subscribe(1, "kept"); codes[0] != 1 {
		t.Fatalf("SUBACK %v", codes)
	}
	id := dev.Publish("up", payload("early"), 1)
	if ack := testdevice.Expect[*packets.PubackPacket](dev); ack.MessageID != id {
		t.Errorf("PUBACK %d, want %d", ack.MessageID, id)
	}

	m.up()
	p := testdevice.Expect[*packets.PublishPacket](dev)
	if p.TopicName != "kept" || !p.Retain || string(p.Payload) != string(payload("kept")) {
		t.Errorf("got %v", p)
	}
	dev.Ack(packets.Puback, p.MessageID)
	m.expect(1, "'up'")
	dev.Disconnect()
	d.gone("dev", 1)
}

// A cloud that stands still delays neither the devices of another nor the login of its own.
func TestFrozenCloud(t *testing.T) {
	t.Parallel()
	frozen, other := startMosquitto(t, cloud{}), startMosquitto(t, cloud{})
	d := startDaemon(t, fmt.Sprintf(`
shutdown_timeout: 1s
clouds:
  frozen: {provider: generic, url: "%s"}
  other: {provider: generic, url: "%s"}
defaults: {login: {username: dev-user, password: %s-lan}}
devices: [{name: early, cloud: frozen}, {name: late, cloud: frozen}, {name: dev, cloud: other}]
`, frozen.url(), other.url(), secretMark), "stopped with messages")
	early := d.dev()
	early.id = "early"
	dev := testdevice.Connect(t, d.addr, early.options())
	d.online("early", 1)
	frozen.signal(syscall.SIGSTOP)

	late := d.dev()
	late.id = "late"
	for i, dev := range []*testdevice.Device{dev, testdevice.Connect(t, d.addr, late.options())} {
		for n := range 300 {
			dev.Publish("a", payload(fmt.Sprint(n)), byte(n%3))
		}
		dev.Send(packets.NewControlPacket(packets.Pingreq))
		for answered := false; !answered; {
			switch p := dev.Next(patience).(type) {
			case *packets.PingrespPacket:
				answered = true
			case *packets.PubackPacket, *packets.PubrecPacket: // it took long enough for the disk
			default:
				t.Fatalf("device %d of the frozen cloud got %v", i, p)
			}
		}
	}
	roundTrip(t, other, d.dev())
}

// A client that pretends to be a device is refused, and the device stays connected.
func TestPretender(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	d := startDaemon(t, devYAML(m, ""), "login refused")
	dev := testdevice.Connect(t, d.addr, d.dev().options())
	for _, change := range []func(*testdevice.Options){
		func(o *testdevice.Options) { o.Password = secretMark + " of somebody else" },
		func(o *testdevice.Options) { o.Username = "somebody" },
		func(o *testdevice.Options) { o.Username, o.Password = "", "" },
		func(o *testdevice.Options) { o.ClientID = "unknown" },
	} {
		o := d.dev().options()
		change(&o)
		pretender := testdevice.Dial(t, d.addr)
		if ack := pretender.Login(o); ack.ReturnCode != 4 && ack.ReturnCode != 5 {
			t.Errorf("%s as %s: CONNACK %d", o.ClientID, o.Username, ack.ReturnCode)
		}
		pretender.Closed()
	}
	dev.Publish("a", payload("still here"), 1)
	testdevice.Expect[*packets.PubackPacket](dev)
	dev.Disconnect()
}
