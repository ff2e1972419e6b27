package doctor

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"bridged/internal/cloudsim"
	"bridged/internal/mqtt"
)

func TestAllIsWell(t *testing.T) {
	r := newRig(t, sim(t, nil), lab("$WSS", trusted, `, doctor_topic: "lab/${name}/doctor",
     subscribe: [{filter: a/+}, {filter: b, qos: 2}]`))
	report := r.passes(Options{})
	var stages []Stage
	for _, s := range report.Steps {
		stages = append(stages, s.Stage)
		if s.Status != OK {
			t.Errorf("%+v", s)
		}
	}
	want := []Stage{Configuration, Secrets, Clock, Daemon, DNS, TCP, TLS, Upgrade, Connect, Subscribe, Publish, Goodbye}
	if !slices.Equal(stages, want) {
		t.Errorf("stages %v", stages)
	}
	if text := report.text(Secrets); !strings.Contains(text, "password: "+r.dir+"/secret, mode 0600") {
		t.Error(text)
	}
	if text := report.text(Upgrade); !strings.Contains(text, "the gateway's clock is right") {
		t.Error(text)
	}
	if c := report.TLS; c == nil || c.Version != "TLS 1.3" || len(c.Chain) != 1 || c.Chain[0].DaysLeft < 300 {
		t.Errorf("%+v", c)
	}
	if len(report.Filters) != 2 || *report.Filters[1].Granted != 2 || report.HTTPStatus != 101 || len(report.Tries) != 1 {
		t.Errorf("%+v", report)
	}
	if o := report.Clock.Offset; o == nil || *o < -2 || *o > 2 {
		t.Errorf("%+v", report.Clock)
	}
	got := r.cloud.Received()
	if len(got) != 1 || got[0].Topic != "lab/press/doctor" || got[0].QoS != 1 || got[0].Retain || got[0].Will {
		t.Errorf("received %+v", got)
	}
	waitOffline(t, r.cloud, "press")
	for _, c := range r.cloud.Connections("press") {
		if c.Reason != cloudsim.EndDisconnect {
			t.Errorf("ended by %s", c.Reason)
		}
	}
	if v := r.cloud.Violations(); len(v) > 0 {
		t.Error(v)
	}
}

// A session that was not there before is not there afterwards.
func TestLeavesNoSession(t *testing.T) {
	r := newRig(t, sim(t, nil), lab("$WS", "", `, subscribe: [{filter: a}]`))
	for _, takeOver := range []bool{false, true} { // which makes no difference if no bridged runs
		report := r.passes(Options{TakeOver: takeOver})
		if report.Session.Present || !report.Session.Discarded {
			t.Errorf("%+v", report.Session)
		}
		waitOffline(t, r.cloud, "press")
		if s, ok := r.cloud.Session("press"); ok {
			t.Errorf("left %+v", s)
		}
	}
}

// A session that is there is not touched, nor what is queued in it, but for QoS 0.
func TestKeepsTheSession(t *testing.T) {
	r := newRig(t, sim(t, nil), lab("$WS", "", `, subscribe: [{filter: a, qos: 1}]`))
	dev := r.cfg.Devices[0]
	r.cfg.Devices[0].Subscribe = []mqtt.Subscription{{Filter: "a", QoS: 1}, {Filter: "own", QoS: 2}}
	// Somebody else's session: as the device's worker has it.
	w := newWalk(New(r.cfg, Options{keep: true}), dev, nil)
	w.run(t.Context())
	waitOffline(t, r.cloud, "press")
	r.cfg.Devices[0].Subscribe = r.cfg.Devices[0].Subscribe[:1]
	for _, topic := range []string{"a", "own"} {
		for range 3 {
			if n, err := r.cloud.PublishAll(topic, []byte("x"), 2, false); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	for range 2 {
		report := r.passes(Options{})
		if s := report.Session; !s.Present || s.Discarded || s.Kept != 6 || s.Lost != 0 {
			t.Errorf("%+v", s)
		}
		waitOffline(t, r.cloud, "press")
		s, ok := r.cloud.Session("press")
		if !ok || s.Queued+len(s.Unacked) != 6 || s.Subs["own"] != 2 || s.Subs["a"] != 1 || len(s.Subs) != 2 {
			t.Errorf("the session is %+v", s)
		}
	}
	if acked := r.cloud.Acked(); len(acked) > 0 {
		t.Errorf("acknowledged %+v", acked)
	}
}

func TestVendors(t *testing.T) {
	for kind, yaml := range map[cloudsim.Kind]string{
		cloudsim.Aliyun: `
clouds:
  c: {provider: aliyun, url: "$WSS", product_key: pk, proxy: none, tls: {ca_file: $CA}}
devices:
  - {name: d, device_secret: {file: secret}, login: {anonymous: true, client_id: d},
     doctor_topic: "/${product_key}/d/user/x",
     subscribe: [{filter: 1}, {filter: 2}, {filter: 3}, {filter: 4}, {filter: 5}, {filter: 6}, {filter: 7}, {filter: 8},
       {filter: 9}]}
`,
		cloudsim.Tencent: `
clouds:
  c: {provider: tencent, url: "$WSS", product_id: pk, proxy: none, tls: {ca_file: $CA}, limits: {connects: 1/100ms}}
devices:
  - {name: d, device_secret: "c2VjcmV0", login: {anonymous: true, client_id: d}, doctor_topic: pk/d/event,
     subscribe: [{filter: pk/d/control}, {filter: pk/d/x}]}
`} {
		t.Run(string(kind), func(t *testing.T) {
			device := cloudsim.Device{Name: "d", Secret: secret}
			rules := cloudsim.RulesFor(kind)
			if kind == cloudsim.Tencent {
				device.Secret = "c2VjcmV0"
				rules.Connects = cloudsim.Rate{Count: 1, Per: 100 * time.Millisecond}
			}
			r := newRig(t, sim(t, func(o *cloudsim.Options) {
				o.Kind, o.Product, o.Users, o.Devices, o.Rules = kind, "pk", nil, []cloudsim.Device{device}, &rules
			}), yaml)
			report := r.passes(Options{})
			if report.Session.Discarded != (kind == cloudsim.Tencent) {
				t.Errorf("%+v", report.Session)
			}
			if v := r.cloud.Violations(); len(v) > 0 {
				t.Error(v)
			}
			if len(r.cloud.Received()) != 1 {
				t.Error(r.cloud.Received())
			}
		})
	}
}

func TestExamineAll(t *testing.T) {
	cloud := sim(t, nil)
	yaml := lab("$WS", "", "")
	for _, name := range []string{"b", "c", "d"} {
		yaml += "  - {name: " + name + ", cloud: lab, username: u, password: wrong, login: {password: p}}\n"
	}
	yaml += "limits: {dials_at_once: 2}\n"
	r := newRig(t, cloud, yaml)
	told := 0
	reports := New(r.cfg, Options{}).ExamineAll(t.Context(), func(*Report) { told++ })
	if told != 4 || len(reports) != 4 {
		t.Fatalf("%d told, %d reports", told, len(reports))
	}
	for i, report := range reports {
		check(t, report)
		if report.Device != r.cfg.Devices[i].Name || (report.Result == Passed) != (i == 0) {
			t.Errorf("%+v", report)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, report := range New(r.cfg, Options{}).ExamineAll(ctx, nil) {
		if report != nil {
			t.Errorf("%+v", report)
		}
	}
}
