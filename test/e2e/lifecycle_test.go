package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/testdevice"
)

// refusesToStart runs bridged, which has to end with status 1 and one line each that says what is wrong and what to do.
func refusesToStart(t *testing.T, conf string, says ...string) {
	t.Helper()
	p := start(t, command{name: bridged, args: []string{"run", "-c", conf}})
	if code := p.wait(); code != 1 {
		t.Errorf("status %d, want 1", code)
	}
	var errors, hints []string
	for _, l := range p.said() {
		switch {
		case strings.HasPrefix(l.text, "error: "):
			errors = append(errors, l.text)
		case strings.HasPrefix(l.text, "hint: "):
			hints = append(hints, l.text)
		case !strings.HasPrefix(l.text, "{") || !l.stderr:
			t.Errorf("neither a log line nor an error on stderr: %q", l.text)
		}
	}
	if len(errors) != 1 || len(hints) > 1 {
		t.Fatalf("errors %q, hints %q", errors, hints)
	}
	for _, text := range says {
		if !strings.Contains(errors[0], text) {
			t.Errorf("%q does not say %q", errors[0], text)
		}
	}
}

// A second bridged on the same state directory is refused, and does not disturb the first.
func TestOneProcessPerStateDir(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	conf := writeConfig(t, devYAML(m, ""))
	d := runDaemon(t, conf)
	dev := testdevice.Connect(t, d.addr, d.dev().options())
	refusesToStart(t, conf, "state_dir", fmt.Sprint(d.cmd.Process.Pid))
	dev.Publish("a", payload("undisturbed"), 1)
	testdevice.Expect[*packets.PubackPacket](dev)

	d.end()
	next := runDaemon(t, conf)
	roundTrip(t, m, next.dev())
}

// A port that is taken is named.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conf := writeConfig(t, fmt.Sprintf(
		"listen: [{url: 'tcp://%s'}]\nclouds: {lab: {provider: generic, url: 'ws://127.0.0.1:1'}}\n"+
			"devices: [{name: dev, login: {password: %s}}]", l.Addr(), secretMark))
	refusesToStart(t, conf, l.Addr().String(), "in use")
}

// A state directory that cannot be made is named.
func TestStateDirCannotBeMade(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/file"
	writeFile(t, file, "")
	conf := t.TempDir() + "/bridged.yaml"
	writeFile(t, conf, "listen: [{url: 'tcp://127.0.0.1:0'}]\nadmin: {listen: ''}\nstate_dir: "+file+"/state\n"+
		"clouds: {lab: {provider: generic, url: 'ws://127.0.0.1:1'}}\ndevices: [{name: dev, login: {password: x}}]")
	refusesToStart(t, conf, "state_dir", file)
}

// SIGTERM delivers what devices have sent, lets them go, and says goodbye to the cloud; no wills are published.
func TestStop(t *testing.T) {
	t.Parallel()
	will := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	will.TopicName, will.Payload = "will", payload("will")
	for _, tc := range []struct {
		name   string
		signal syscall.Signal
		will   *packets.PublishPacket
		qos    byte
	}{
		{"SIGTERM", syscall.SIGTERM, nil, 1},
		{"SIGINT", syscall.SIGINT, nil, 1},
		{"QoS 0", syscall.SIGTERM, nil, 0},
		{"with a will", syscall.SIGTERM, will, 1},
		{"with a will, QoS 0", syscall.SIGTERM, will, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := startMosquitto(t, loadCloud)
			d := startDaemon(t, devYAML(m, ""))
			o := d.dev().options()
			o.Will = tc.will
			dev := testdevice.Connect(t, d.addr, o)
			d.online("dev", 1)
			const n = 200
			observer := sub(t, login{addr: m.addr()}, "#", 1)
			m.signal(syscall.SIGSTOP) // so that there is something to drain
			for i := range n {
				dev.Publish("a", payload(fmt.Sprint(i)), tc.qos)
			}
			dev.Send(packets.NewControlPacket(packets.Pingreq)) // its answer says that the messages have been read
			testdevice.Expect[*packets.PingrespPacket](dev)
			d.signal(tc.signal)
			dev.Closed()
			m.signal(syscall.SIGCONT)
			d.goodEnd()
			m.expect(1, "Received DISCONNECT from dev")
			pub(t, login{addr: m.addr()}, "end", 1, nil)
			for i := 0; ; i++ {
				got := observer.receive()
				if got.topic == "end" {
					if i != n {
						t.Errorf("%d of %d messages arrived", i, n)
					}
					break
				}
				if got.topic != "a" || got.payload != string(payload(fmt.Sprint(i))) {
					t.Fatalf("message %d is %s", i, got)
				}
			}
		})
	}
}

// A cloud that is not there does not keep bridged from stopping, and what is left is on disk, acknowledged and
// reported.
func TestStopWithoutCloud(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, fmt.Sprintf(`
shutdown_timeout: 2s
clouds: {lab: {provider: generic, url: 'ws://%s'}}
devices: [{name: dev, login: {username: dev-user, password: %s-lan}}]`, address(freePort(t)), secretMark),
		"no session with the cloud")
	dev := testdevice.Connect(t, d.addr, d.dev().options())
	for i := range 10 {
		dev.Publish("a", payload(fmt.Sprint(i)), 1)
	}
	for range 10 {
		testdevice.Expect[*packets.PubackPacket](dev)
	}
	d.logged(1, "no session with the cloud", `"class":"network"`)
	d.end()
	if p := dev.Next(patience); p != nil {
		t.Errorf("the device got %v", p)
	}
	d.logged(1, `"msg":"stopped"`, `"stored_up":10`)
}

// What stands in the state directory is for the owner only.
func TestStateIsPrivate(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	conf := writeConfig(t, devYAML(m, ""))
	d := runDaemon(t, conf)
	roundTrip(t, m, d.dev())
	state := strings.TrimSuffix(conf, "bridged.yaml") + "state"
	entries, err := os.ReadDir(state)
	if err != nil || len(entries) == 0 {
		t.Fatalf("the state directory: %v, %d entries", err, len(entries))
	}
	for _, path := range append([]string{""}, names(entries)...) {
		info, err := os.Stat(state + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("state/%s can be read by others: %s", path, info.Mode())
		}
	}
}

func names(entries []os.DirEntry) (all []string) {
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
