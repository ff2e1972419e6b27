package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bridged/internal/testdevice"
)

// scene is what a script is played on: a cloud, and the way to it, direct or by way of bridged.
type scene struct {
	tb     testing.TB
	cloud  *mosquitto
	addr   string  // where devices connect
	daemon *daemon // nil if that is the cloud itself
	cast   []*actor
	fences int
}

// script is played twice. Devices have to see the same both times, packet by packet, and so have those who look on.
type script struct {
	name    string
	cloud   cloud
	yaml    string   // added to the devices' defaults in bridged's configuration
	devices []string // their client ids; "dev" if empty
	play    func(s *scene)
}

// TestTransparent plays each script with devices directly at Mosquitto, and with bridged in between.
func TestTransparent(t *testing.T) {
	t.Parallel()
	for _, scripts := range [][]script{
		subscriptionScripts, retainedScripts, sessionScripts, flowScripts, willScripts, contentScripts, unusualScripts,
	} {
		for _, sc := range scripts {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				var direct []string
				t.Run("directly", func(t *testing.T) { direct = sc.run(t, false) })
				t.Run("bridged", func(t *testing.T) {
					bridged := sc.run(t, true)
					if len(direct) == 0 {
						t.Error("nobody saw anything")
					}
					if diff := cmp.Diff(direct, bridged); diff != "" {
						t.Errorf("directly at the broker (-) and by way of bridged (+):\n%s", diff)
					}
				})
			})
		}
	}
}

// run plays the script and returns what all saw.
func (sc script) run(t *testing.T, bridged bool) (transcript []string) {
	t.Helper()
	s := &scene{tb: t, cloud: startMosquitto(t, sc.cloud)}
	s.addr = s.cloud.addr()
	if bridged {
		// Some devices leave with messages that they have not acknowledged.
		s.daemon = startDaemon(t, sc.config(s.cloud), "stopped with messages")
		s.addr = s.daemon.addr
	}
	sc.play(s)
	for _, a := range s.cast {
		transcript = append(transcript, a.transcript()...)
	}
	for _, a := range s.cast {
		if a.Device != nil {
			a.Disconnect()
		}
	}
	if s.daemon != nil {
		s.daemon.end()
	}
	return transcript
}

func (sc script) config(m *mosquitto) string {
	var b strings.Builder
	fmt.Fprintf(&b, "clouds: {lab: {provider: generic, url: %q}}\n", m.url())
	fmt.Fprintf(&b, "defaults:\n  login: {password: %s}\n%s\ndevices:\n", secretMark, sc.yaml)
	devices := sc.devices
	if len(devices) == 0 {
		devices = []string{"dev"}
	}
	for _, name := range devices {
		fmt.Fprintf(&b, "  - {name: %s, username: %[1]s, login: {username: %[1]s}}\n", name)
	}
	return b.String()
}

// device is somebody who connects where devices connect.
func (s *scene) device(name string) *actor { return s.actor(name, s.addr) }

// app is somebody who connects to the cloud in any case.
func (s *scene) app(name string) *actor {
	a := s.actor(name, s.cloud.addr())
	a.connect(testdevice.Options{})
	return a
}

func (s *scene) actor(name, addr string) *actor {
	a := newActor(s.tb, name, addr)
	s.cast = append(s.cast, a)
	return a
}

// fence has everything arrive at an actor that was published before. The actor has subscribed to the topic fence.
func (s *scene) fence(from, to *actor) {
	s.tb.Helper()
	s.fences++
	text := fmt.Sprintf("fence %d", s.fences)
	from.publish("fence", text, 1)
	to.until(text)
}

// leave has a device say goodbye, and waits until whoever it is connected to has noticed.
func (s *scene) leave(a *actor) {
	s.tb.Helper()
	a.Disconnect()
	s.gone(a)
}

// lose has a device's connection end without a word, and waits until whoever it is connected to has noticed.
func (s *scene) lose(a *actor) {
	s.tb.Helper()
	a.Drop()
	s.gone(a)
}

func (s *scene) gone(a *actor) {
	s.tb.Helper()
	a.departures++
	if s.daemon != nil {
		s.daemon.gone(a.name, a.departures)
		return
	}
	if _, ok := s.cloud.find(a.departures, func(l string) bool {
		return strings.HasSuffix(l, ": Client "+a.name+" disconnected.") ||
			strings.HasSuffix(l, ": Client "+a.name+" closed its connection.") ||
			strings.HasSuffix(l, ": Bad socket read/write on client "+a.name+": Connection reset by peer")
	}); !ok {
		s.tb.Fatal("mosquitto ended")
	}
}

// online waits until a device's cloud session is up for the nth time, from 1.
func (s *scene) online(device string, n int) {
	s.tb.Helper()
	if s.daemon != nil {
		s.daemon.online(device, n)
	}
}

// ended waits until the bridge has ended a device's cloud session for the nth time, from 1.
func (s *scene) ended(device string, n int) {
	s.tb.Helper()
	if s.daemon != nil {
		s.daemon.logged(n, `"device":"`+device+`"`, `"state":"idle"`)
	}
}
