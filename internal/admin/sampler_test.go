package admin

import (
	"testing"
	"testing/synctest"

	"time"

	"bridged/internal/bridge"
	"bridged/internal/lane"
)

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet(2)
		f.devices[0].UpBegan.Accepted, f.devices[0].Up.Accepted = 1000, 1000 // of an earlier process
		a := newAdmin(f)
		a.tick()
		if r := a.sampler.latest("dev-0"); r != (rates{}) {
			t.Errorf("at first %v", r)
		}
		<-time.After(rateWindow / 2)
		f.change(0, relay(1050, 10))
		a.tick()
		if r := a.sampler.latest("dev-0"); r != (rates{}) {
			t.Errorf("within the window %v", r)
		}
		<-time.After(rateWindow / 2)
		a.tick()
		if r := a.sampler.latest("dev-0"); r[lane.Up] != (rate{10, 2}) || r[lane.Down] != (rate{}) {
			t.Errorf("%v", r)
		}
		var st Status
		get(t, a.Handler(), "/api/v1/status", 200, &st)
		if st.Up.AcceptedMessagesPerSecond != 10 || st.Up.DeliveredMessagesPerSecond != 2 {
			t.Errorf("%+v", st.Up)
		}
		<-time.After(rateWindow)
		a.tick()
		if r := a.sampler.latest("dev-0"); r != (rates{}) {
			t.Errorf("at rest %v", r)
		}
	})
}

// The totals of a cloud count from the start of the process, and do not fall when a device goes.
func TestTotals(t *testing.T) {
	f := fleet(2)
	f.devices[0].UpBegan.Accepted = 1000
	f.change(0, relay(1005, 1005))
	f.devices[0].UpBegan.Delivered = 1000
	s := newSampler(f, time.Now())
	check := func(what, cloud string, accepted, connects uint64) {
		t.Helper()
		_, _ = s.look()
		got := s.sums()[cloud]
		if got.flows[lane.Up].Accepted != accepted || got.session.connects != connects {
			t.Errorf("%s: accepted %d, connects %d, want %d, %d", what, got.flows[lane.Up].Accepted, got.session.connects,
				accepted, connects)
		}
	}
	check("the first look", "lab", 5, 0)
	f.change(1, relay(3, 0))
	f.change(1, func(d *bridge.DeviceSummary) { d.Session.Connects = 2 })
	check("another device", "lab", 8, 2)
	f.change(1, func(d *bridge.DeviceSummary) { d.Session.Connects = 1 })
	check("counters that begin anew", "lab", 8, 3)
	f.change(0, func(d *bridge.DeviceSummary) { d.Cloud = "other" })
	f.change(0, relay(1007, 1005))
	check("the cloud before", "lab", 8, 3)
	check("a device that has moved", "other", 2, 0)
	f.mu.Lock()
	f.devices = nil
	f.mu.Unlock()
	check("no devices", "lab", 8, 3)
	if len(s.devices) != 0 {
		t.Errorf("%d devices are remembered", len(s.devices))
	}
}
