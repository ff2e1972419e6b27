package bridge

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
	"bridged/internal/pulse"
	"bridged/internal/testdevice"
)

func TestSummaryLine(t *testing.T) {
	for _, test := range []struct {
		s    Summary
		want string
	}{
		{Summary{}, "0 of 0 devices online, 0 messages stored"},
		{Summary{Devices: 1, Online: 1, Stored: 1}, "1 of 1 device online, 1 message stored"},
		{Summary{Devices: 2, Online: 1, NeedAction: 1}, "1 of 2 devices online, 1 needs action, 0 messages stored"},
		{Summary{Devices: 14, Online: 12, Stored: 3}, "12 of 14 devices online, 3 messages stored"},
		{Summary{Devices: 14, Online: 10, NeedAction: 2, Stored: 3, Fault: errors.New("write:\nno space left")},
			"10 of 14 devices online, 2 need action, 3 messages stored; the disk: write: no space left"},
	} {
		if got := test.s.String(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// A device whose failure only a person can mend is counted as such while it keeps the device offline.
func TestSummaryOfDevices(t *testing.T) {
	broken := httptest.NewServer(http.NotFoundHandler()) // no WebSocket is there
	defer broken.Close()
	r := run(t, fmt.Sprintf(`
clouds:
  wrong: {provider: generic, url: "ws://%s", proxy: none}
  away: {provider: generic, url: "ws://127.0.0.1:1", proxy: none}
defaults: {upstream: always, login: {username: u, password: p}}
devices: [{name: a, cloud: wrong}, {name: b, cloud: away}]
`, broken.Listener.Addr()))
	until(t, "both to fail", func() bool {
		for _, name := range []string{"a", "b"} {
			if st, _ := r.bridge.DeviceStatus(name); st.Session.Latest == nil {
				return false
			}
		}
		return true
	})
	if s := r.bridge.Summary(); s.NeedAction != 1 || s.Online != 0 || s.Devices != 2 {
		t.Errorf("%+v", s)
	}
}

const idle = `
clouds: {lab: {provider: generic, url: "ws://127.0.0.1:1"}}
devices: [{name: d, cloud: lab, login: {username: u, password: p}}]
`

// hanging is a source that hangs when its message is settled.
type hanging chan struct{}

func (h hanging) Settled(mqtt.Token, lane.Outcome) { <-h }
func (h hanging) Room()                            {}

// A bridge that has nothing to do comes round, all of it. When something hangs it is named.
func TestStuck(t *testing.T) {
	r := run(t, idle)
	<-r.bridge.Started()
	// While everything beats nothing is stuck for longer than a round and the time that this machine makes it wait.
	if names := r.bridge.Stuck(testdevice.Patience); len(names) > 0 {
		t.Errorf("stuck: %q", names)
	}
	beating := func() int { return len(r.bridge.Stuck(-time.Hour)) } // all that have begun and wait for nothing outside
	until(t, "everything to begin", func() bool { return beating() == 5 })

	source := make(hanging)
	release := sync.OnceFunc(func() { close(source) })
	defer release()
	r.bridge.find("d").up.Offer(mqtt.Message{Topic: "t", QoS: 1}, source, 1)
	until(t, "the writer to be stuck", func() bool {
		return slices.Contains(r.bridge.Stuck(2*pulse.Every), "the spool's writer")
	})
	release()
	until(t, "it to go on", func() bool { return len(r.bridge.Stuck(2*pulse.Every)) == 0 })
	r.stop()
	if n := beating(); n > 0 {
		t.Errorf("%d beat after the end", n)
	}
}
