package e2e

import (
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/testdevice"
)

// device5 is a raw MQTT 5 device that takes one message at a time (Receive Maximum 1) and keeps its session. The codec
// below it is one of MQTT 3.1.1, which takes the properties of a PUBLISH for the beginning of its payload.
func device5(t *testing.T, d *daemon) *testdevice.Device {
	t.Helper()
	dev := testdevice.Dial(t, d.addr)
	l := d.dev()
	write(t, dev, packet(0x10, text("MQTT")+"\x05\xc0\x00\x00"+
		"\x08\x11\x00\x00\x0e\x10\x21\x00\x01"+ // session expiry interval 3600 s, Receive Maximum 1
		text(l.id)+text(l.user)+text(l.password)))
	if ack := testdevice.Expect[*packets.ConnackPacket](dev); ack.ReturnCode != 0 {
		t.Fatalf("CONNACK %d", ack.ReturnCode)
	}
	return dev
}

func write(t *testing.T, dev *testdevice.Device, raw string) {
	t.Helper()
	if _, err := dev.Conn().Write([]byte(raw)); err != nil {
		t.Fatal(err)
	}
}

// A device that had as many messages as it takes at a time when its connection broke gets them again, and then the
// others.
func TestReceiveMaximum(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	d := startDaemon(t, devYAML(m, ""))
	dev := device5(t, d)
	write(t, dev, packet(0x82, "\x00\x01\x00"+text("down")+"\x01"))
	testdevice.Expect[*packets.SubackPacket](dev)
	app := login{addr: m.addr()}
	for _, text := range []string{"first", "second"} {
		pub(t, app, "down", 1, payload(text))
	}
	expect := func(text string, dup bool) uint16 {
		t.Helper()
		p := testdevice.Expect[*packets.PublishPacket](dev)
		if got := strings.TrimPrefix(string(p.Payload), "\x00"); got != string(payload(text)) || p.Dup != dup {
			t.Errorf("got %q, DUP %v, want %q, DUP %v", got, p.Dup, payload(text), dup)
		}
		return p.MessageID
	}
	expect("first", false)
	dev.Drop()
	dev = device5(t, d)
	dev.Ack(packets.Puback, expect("first", true))
	dev.Ack(packets.Puback, expect("second", false))
	dev.Disconnect()
	d.gone("dev", 2)
}

// A device that did not get the PUBCOMP sends its PUBREL again on the next connection. It is told that all is well:
// some libraries take anything else for a failure of a message that was delivered.
func TestPubrelAgain(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	d := startDaemon(t, devYAML(m, ""))
	dev := device5(t, d)
	write(t, dev, packet(0x34, text("up")+"\x00\x07\x00"+string(payload("once"))))
	testdevice.Expect[*packets.PubrecPacket](dev)
	for range 2 {
		dev.Ack(packets.Pubrel, 7)
		done := testdevice.Expect[*packets.PubcompPacket](dev)
		if n := done.RemainingLength; n != 2 { // what is longer has a reason code (MQTT 5, 3.7.2.1)
			t.Errorf("PUBCOMP has %d bytes, want 2", n)
		}
		dev.Drop()
		dev = device5(t, d)
	}
	dev.Disconnect()
}
