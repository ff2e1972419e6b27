package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/testdevice"
)

// Devices of each MQTT version send and receive at each QoS.
func TestVersions(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	d := startDaemon(t, fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s"}
defaults: {login: {username: device, password: %s-lan}}
devices: [{name: v31}, {name: v311}, {name: v5}]
`, m.url(), secretMark))
	large := payload(strings.Repeat("x", 256<<10-len(payload(""))))
	medium := large[:10<<10] // Mosquitto's WebSocket listener sends 4 KiB each tenth of a second
	for _, version := range []string{"31", "311", "5"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			device := login{addr: d.addr, id: "v" + version, user: "device", password: secretMark + "-lan", version: version}
			app := login{addr: m.addr()}
			down, up := device.id+"/down", device.id+"/up"
			at, from := sub(t, device, down, 2), sub(t, app, up, 2)
			for qos := range byte(3) {
				for _, p := range [][]byte{payload("small"), nil, medium} {
					pub(t, app, down, qos, p)
					if got, want := at.receive(), (message{topic: down, payload: string(p), qos: qos}); got != want {
						t.Errorf("the device got %s, want %s", got, want)
					}
				}
			}
			at.stop()
			for qos := range byte(3) {
				for _, p := range [][]byte{payload("small"), nil, large} {
					pub(t, device, up, qos, p)
					if got, want := from.receive(), (message{topic: up, payload: string(p), qos: qos}); got != want {
						t.Errorf("the cloud got %s, want %s", got, want)
					}
				}
			}
		})
	}
}

// A device that leaves with a goodbye leaves no will. One that is killed does, and so does one that falls silent.
func TestWills(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		end  func(device *subscriber)
		want []string
	}{
		{"goodbye", func(device *subscriber) { device.stop() }, nil},
		{"killed", func(device *subscriber) { device.kill() }, []string{string(payload("last"))}},
		{"silent", func(device *subscriber) { device.freeze() }, []string{string(payload("last"))}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := startMosquitto(t, cloud{})
			d := startDaemon(t, devYAML(m, "    linger: 0s"))
			app := login{addr: m.addr()}
			observer := sub(t, app, "will", 2)
			device := sub(t, d.dev(), "a", 1, "-k", "5",
				"--will-topic", "will", "--will-payload", string(payload("last")), "--will-qos", "2", "--will-retain")
			d.online("dev", 1)
			tc.end(device)
			d.logged(1, `"device":"dev"`, `"state":"idle"`)
			m.expect(1, ": Client dev ")
			pub(t, app, "will", 2, payload("end"))
			var got []string
			for {
				msg := observer.receive()
				if msg.payload == string(payload("end")) {
					break
				}
				if msg.qos != 2 {
					t.Errorf("got %s", msg)
				}
				got = append(got, msg.payload)
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("wills %q, want %q", got, tc.want)
			}
			if tc.want == nil {
				return
			}
			if msg := sub(t, app, "will", 1).receive(); !msg.retain || msg.payload != tc.want[0] {
				t.Errorf("retained is %s", msg)
			}
		})
	}
}

// The goodbye reaches a cloud that has more to say. It would be lost if the connection were closed over what the cloud
// sends meanwhile: TCP resets it then, and the cloud publishes the will of a device that has left in order.
func TestGoodbyeToABusyCloud(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	d := startDaemon(t, devYAML(m, "    linger: 0s"))
	observer := sub(t, login{addr: m.addr()}, "will", 1)
	for i := range 5 {
		o := d.dev().options()
		o.Will = packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		o.Will.TopicName, o.Will.Payload = "will", payload("of a device that said goodbye")
		dev := testdevice.Connect(t, d.addr, o)
		dev.Subscribe(1, "a", "b", "c")
		m.signal(syscall.SIGSTOP) // it answers a little later
		for n := range 20 {
			dev.Publish("d", payload(fmt.Sprint(n)), 1)
		}
		dev.Disconnect()
		d.gone("dev", i+1)
		m.signal(syscall.SIGCONT)
		d.logged(i+1, `"device":"dev"`, `"state":"idle"`)
	}
	m.expect(5, ": Client dev ")
	pub(t, login{addr: m.addr()}, "will", 0, payload("end"))
	if got := observer.receive(); got.payload != string(payload("end")) {
		t.Errorf("the cloud published %s", got)
	}
}

// The cloud sees a device while it is connected, and for as long as it lingers. It sees one that is always there
// always.
func TestPresence(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	d := startDaemon(t, fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s"}
defaults: {login: {username: device, password: %s-lan}}
devices:
  - {name: always, upstream: always}
  - {name: lingers, linger: 1s}
  - {name: never}
`, m.url(), secretMark))
	m.expect(1, " as always (")
	device := sub(t, login{addr: d.addr, id: "lingers", user: "device", password: secretMark + "-lan"}, "a", 1)
	m.expect(1, " as lingers (")
	device.stop()
	d.logged(1, `"device":"lingers"`, `"state":"draining"`)
	m.expect(1, ": Client lingers disconnected.")
	d.end()
	m.expect(1, ": Client always disconnected.")
	if out := m.output(); strings.Contains(out, " as never (") || strings.Count(out, ": New client connected") != 2 {
		t.Error("others than those two were connected")
	}
}
