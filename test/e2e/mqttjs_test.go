package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"
)

// fleetOrders are what testdata/fleet.cjs takes.
type fleetOrders struct {
	URL      string        `json:"url"`
	Mark     string        `json:"mark"`
	Messages int           `json:"messages"`
	Cut      int           `json:"cut"`
	Devices  []fleetDevice `json:"devices"`
}

type fleetDevice struct {
	ID       string `json:"id"`
	User     string `json:"user"`
	Password string `json:"password"`
	Version  int    `json:"version"` // 3 (MQTT 3.1), 4 (3.1.1) or 5
}

// fleetReport is what it says of a device.
type fleetReport struct {
	ID        string   `json:"id"`
	Errors    []string `json:"errors"`
	Connects  int      `json:"connects"`
	Published int      `json:"published"`
	Received  []struct {
		Topic   string `json:"topic"`
		Payload string `json:"payload"`
		QoS     byte   `json:"qos"`
		Retain  bool   `json:"retain"`
	} `json:"received"`
}

func fleet(tb testing.TB, o fleetOrders) *process {
	tb.Helper()
	orders, err := json.Marshal(o)
	if err != nil {
		tb.Fatal(err)
	}
	modules, err := filepath.Abs(nodeModules)
	if err != nil {
		tb.Fatal(err)
	}
	return start(tb, command{
		name: "node", args: []string{"testdata/fleet.cjs"}, env: []string{"FLEET=" + string(orders), "NODE_PATH=" + modules},
	})
}

// Many MQTT.js devices of all MQTT versions publish and receive at QoS 1 and 2 at once, lose their connections again
// and again, and come back. Nothing is lost, and MQTT.js has nothing to object to.
func TestMQTTJS(t *testing.T) {
	t.Parallel()
	const devices, messages, cut = 50, 60, 20
	m := startMosquitto(t, loadCloud)
	o := fleetOrders{Mark: payloadMark, Messages: messages, Cut: cut}
	yaml := fmt.Sprintf("clouds: {lab: {provider: generic, url: %q}}\ndevices:\n", m.url())
	for i := range devices {
		d := fleetDevice{ID: fmt.Sprintf("js-%02d", i), User: "js", Password: secretMark, Version: 3 + i%3}
		o.Devices = append(o.Devices, d)
		yaml += fmt.Sprintf("  - {name: %s, login: {username: %s, password: %s}}\n", d.ID, d.User, d.Password)
	}
	d := startDaemon(t, yaml)
	o.URL = "mqtt://" + d.addr

	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	run, ctx := errgroup.WithContext(ctx)
	observer := &peer{addr: m.addr(), id: "observer", filter: "up/#", expect: devices * messages}
	run.Go(func() error { return observer.run(ctx) })
	m.expect(1, "observer 2 up/#")
	js := fleet(t, o)
	for _, d := range o.Devices {
		js.expect(1, "SUBSCRIBED "+d.ID)
		app := &peer{addr: m.addr(), id: "to-" + d.ID, topic: "down/" + d.ID, total: messages}
		run.Go(func() error { return app.run(ctx) })
	}
	if err := run.Wait(); err != nil {
		t.Error(err)
	}
	if !js.ends(patience) {
		js.signal(syscall.SIGTERM) // it says what is missing
	}
	if code := js.wait(); code != 0 {
		t.Fatalf("node: status %d", code)
	}

	reports := js.withPrefix("REPORT ")
	if len(reports) != devices {
		t.Errorf("%d reports of %d devices", len(reports), devices)
	}
	for _, text := range reports {
		var r fleetReport
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		if len(r.Errors) > 0 || r.Published != messages {
			t.Errorf("%s published %d of %d messages, errors: %s", r.ID, r.Published, messages, strings.Join(r.Errors, "; "))
		}
		if r.Connects < messages/cut {
			t.Errorf("%s connected %d times: the test does not cut connections", r.ID, r.Connects)
		}
		var received []message
		for _, m := range r.Received {
			received = append(received, message{topic: m.Topic, payload: m.Payload, qos: m.QoS, retain: m.Retain})
		}
		for _, qos := range []string{"/1", "/2"} {
			complete(t, "up/"+r.ID+qos, observer.taken, messages/2, r.Connects*inFlight)
			complete(t, "down/"+r.ID+qos, received, messages/2, r.Connects*inFlight)
		}
	}
}
