package admin

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"bridged/internal/bridge"
	"bridged/internal/failure"
	"bridged/internal/lane"
)

// The names follow Prometheus's conventions, and nothing is declared that never comes.
func TestMetricNames(t *testing.T) {
	f := fleet(3)
	f.change(0, fail(failure.Refused))
	f.overview.Failures = []bridge.FailureCount{{Cloud: "lab", Kind: failure.Refused, Count: 7}}
	f.overview.ClientCertificates = []bridge.CertificateStatus{{File: "a.crt", Expires: f.devices[1].Session.Since}}
	f.overview.Clouds[0].Certificate = f.devices[1].Session.Since
	a := New(Options{Source: f, Version: "v1", DeviceMetrics: 2, Log: zap.NewNop()})
	c := &collector{admin: a}
	problems, err := testutil.CollectAndLint(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != len(descs) {
		t.Errorf("%d metrics of %d that are declared", len(families), len(descs))
	}
}

func TestMetrics(t *testing.T) {
	f := fleet(3)
	f.change(0, fail(failure.ConnackPassword))
	f.change(1, relay(5, 3))
	f.change(1, func(d *bridge.DeviceSummary) {
		d.Up.Dropped[lane.QueueFull] = 4
		d.Local.Connected = true
	})
	f.overview.Failures = []bridge.FailureCount{{Cloud: "lab", Kind: failure.ConnackPassword, Count: 7}}
	a := New(Options{Source: f, Version: "v1", DeviceMetrics: 2, Log: zap.NewNop()})
	has := func(lines ...string) {
		t.Helper()
		got := get(t, a.Handler(), "/metrics", 200, nil).Body.String()
		for _, line := range lines {
			if want, not := strings.CutPrefix(line, "!"); strings.Contains(got, "\n"+want) == not {
				t.Errorf("%s in\n%s", line, got)
			}
		}
	}
	has(`bridged_build_info{goversion="go`, "bridged_ready 1", "go_goroutines ", "process_open_fds ",
		`bridged_devices{cloud="lab",state="online"} 2`, `bridged_devices{cloud="lab",state="waiting"} 1`,
		`bridged_devices{cloud="lab",state="draining"} 0`, `bridged_devices_connected{cloud="lab"} 1`,
		`bridged_devices_failing{class="rejected",cloud="lab",kind="connack_4"} 1`,
		`bridged_cloud_failures_total{class="rejected",cloud="lab",kind="connack_4"} 7`,
		`bridged_messages_accepted_total{cloud="lab",direction="up"} 5`,
		`bridged_messages_delivered_total{cloud="lab",direction="up"} 3`,
		`bridged_messages_dropped_total{cloud="lab",direction="up",reason="queue_full"} 4`,
		`bridged_queue_messages{cloud="lab",direction="up"} 2`,
		`bridged_device_state{cloud="lab",device="dev-0",state="waiting"} 1`,
		`bridged_device_messages_accepted_total{device="dev-1",direction="up"} 5`,
		`!bridged_device_state{cloud="lab",device="dev-2"`, "bridged_device_metrics_omitted 1")
	f.mu.Lock()
	f.devices = f.devices[2:]
	f.mu.Unlock()
	has(`!bridged_device_state{cloud="lab",device="dev-1"`, `bridged_device_state{cloud="lab",device="dev-2"`,
		`bridged_messages_accepted_total{cloud="lab",direction="up"} 5`, "bridged_device_metrics_omitted 0")
	a.opts.DeviceMetrics = 0
	has("!bridged_device_")
}
