package doctor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bridged/internal/failure"
)

// mosquitto runs one, which takes WebSocket connections at one address and plain ones at the other.
func mosquitto(t *testing.T) (ws, tcp string) {
	t.Helper()
	ws, tcp = freeAddress(t), freeAddress(t)
	_, wsPort, _ := strings.Cut(ws, ":")
	_, tcpPort, _ := strings.Cut(tcp, ":")
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nprotocol websockets\nlistener %s 127.0.0.1\nallow_anonymous true\n",
		wsPort, tcpPort)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, tcp, "mosquitto", "-c", conf)
	return ws, tcp
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s: make setup installs it", name)
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// Somebody else's broker keeps the device's messages, too.
func TestMosquitto(t *testing.T) {
	ws, tcp := mosquitto(t)
	_, port, _ := strings.Cut(tcp, ":")
	r := newRig(t, sim(t, nil), lab("ws://"+ws+"/mqtt", "", ", subscribe: [{filter: a, qos: 2}], doctor_topic: doctor"))
	if s := r.passes(Options{}).Session; s.Present || !s.Discarded {
		t.Errorf("%+v", s)
	}
	if s := r.passes(Options{keep: true}).Session; s.Present || s.Discarded {
		t.Errorf("%+v", s)
	}
	for i := range 5 {
		tool(t, "mosquitto_pub", "-p", port, "-t", "a", "-q", fmt.Sprint(1+i%2), "-m", fmt.Sprint(i))
	}
	for range 2 {
		if s := r.passes(Options{}).Session; !s.Present || s.Discarded || s.Kept != 5 || s.Lost != 0 {
			t.Errorf("%+v", s)
		}
	}
	newRig(t, r.cloud, lab("ws://"+tcp, "", "")).fails(short, failure.HungUp, Upgrade) // plain MQTT is there
}
