package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/cloudsim"
	"bridged/internal/testdevice"
)

// SIGHUP twenty times in a row under traffic, with a configuration that changes each time: devices come and go, and
// those that are the same keep their connections, on both sides, and lose nothing.
func TestReloadUnderTraffic(t *testing.T) {
	t.Parallel()
	c, err := cloudsim.New(cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	yaml := func(others ...string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "clouds: {lab: {provider: generic, url: %q}}\ndevices:\n", c.WSURL())
		for _, name := range append([]string{"a", "b"}, others...) {
			upstream := "always"
			if name == "a" || name == "b" {
				upstream = "on_demand"
			}
			fmt.Fprintf(&b, "  - {name: %s, upstream: %s, login: {username: u, password: %s}}\n", name, upstream, secretMark)
		}
		return b.String()
	}
	conf := writeConfig(t, yaml("x"))
	head, _, _ := strings.Cut(readFile(t, conf), "clouds:")
	// replaced as a whole: half of it would be a configuration, too
	rewrite := func(others ...string) {
		writeFile(t, conf+".new", head+yaml(others...))
		if err := os.Rename(conf+".new", conf); err != nil {
			t.Fatal(err)
		}
	}
	d := runDaemon(t, conf, "faulty")
	dev := make(map[string]*testdevice.Device)
	for _, name := range []string{"a", "b"} {
		dev[name] = testdevice.Connect(t, d.addr, testdevice.Options{ClientID: name, Username: "u", Password: secretMark})
		dev[name].Subscribe(1, "down")
		if err := c.WaitSubscribed(t.Context(), name, "down"); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	sent := make(map[string]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, dev := range dev {
		wg.Go(func() {
			n := 0
			for running := true; running; n++ {
				select {
				case <-done:
					running = false
				case <-time.After(time.Millisecond):
				}
				dev.Publish("up", payload(fmt.Sprintf("%s %d", name, n)), 1)
				if err := c.Publish(name, "down", payload(fmt.Sprint(n)), 1); err != nil {
					t.Error(err)
					return
				}
				acked, got := false, false
				for !acked || !got {
					switch p := dev.Next(patience).(type) {
					case *packets.PubackPacket:
						acked = true
					case *packets.PublishPacket:
						if want := string(payload(fmt.Sprint(n))); string(p.Payload) != want {
							t.Errorf("%s got %q, want %q", name, p.Payload, want)
						}
						got = true
						dev.Ack(packets.Puback, p.MessageID)
					default:
						t.Errorf("%s got %v (%v)", name, p, dev.Err())
						return
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			sent[name] = n
		})
	}
	for i := range 20 {
		switch i % 3 {
		case 0:
			rewrite("y")
		case 1:
			writeFile(t, conf, "faulty: 1\n")
		case 2:
			rewrite("x", "y")
		}
		d.signal(syscall.SIGHUP)
		<-time.After(10 * time.Millisecond) // some come while the one before is being carried out, some do not
	}
	rewrite("x", "z")
	d.signal(syscall.SIGHUP)
	d.online("z", 1)
	until(t, "y is gone", func() bool { return !c.Online("y") })
	out := reloadCommand(t, conf, 0)
	if !strings.Contains(out, "4 unchanged") {
		t.Errorf("reload says %q", out)
	}
	writeFile(t, conf, "faulty: 1\nstate_dir: "+strings.TrimSpace(stateDir(head))+"\n")
	if out := reloadCommand(t, conf, 2); !strings.Contains(out, "error: "+conf+":1:1: faulty") {
		t.Errorf("reload says %q", out)
	}
	close(done)
	wg.Wait()
	for name, n := range sent {
		got := c.ReceivedFrom(name)
		if len(got) != n {
			t.Errorf("%s sent %d, the cloud got %d", name, n, len(got))
		}
		for i, m := range got {
			if want := string(payload(fmt.Sprintf("%s %d", name, i))); string(m.Payload) != want {
				t.Fatalf("%s: message %d is %q, want %q", name, i, m.Payload, want)
			}
		}
		if all := c.Connections(name); len(all) != 1 {
			t.Errorf("%s has connected %d times", name, len(all))
		}
		t.Logf("%s: %d messages each way", name, n)
	}
}

// reloadCommand runs "bridged reload" and returns what it printed.
func reloadCommand(t *testing.T, conf string, status int) string {
	t.Helper()
	p := start(t, command{name: bridged, args: []string{"reload", "-c", conf}, env: []string{"GORACE=atexit_sleep_ms=50"}})
	if code := p.wait(); code != status {
		t.Errorf("reload ended with status %d, want %d", code, status)
	}
	return p.output()
}

// stateDir finds the state directory in the head of a configuration.
func stateDir(head string) string {
	_, rest, _ := strings.Cut(head, "state_dir: ")
	dir, _, _ := strings.Cut(rest, "\n")
	return dir
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
