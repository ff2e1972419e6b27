package page

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"bridged/internal/bridge"
	"bridged/internal/clock"
	"bridged/internal/config"
	"bridged/internal/failure"
	"bridged/internal/lane"
	"bridged/internal/upstream"
)

// fake is a bridge of which only what it says matters.
type fake struct {
	mu       sync.Mutex // protects the following fields
	devices  []bridge.DeviceSummary
	overview bridge.Overview
}

func (f *fake) Stuck(time.Duration) []string { return nil }

func (f *fake) Overview() bridge.Overview {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.overview
}

func (f *fake) Summaries() []bridge.DeviceSummary {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.devices)
}

func (f *fake) EachSummary(tell func(*bridge.DeviceSummary)) {
	for _, s := range f.Summaries() {
		tell(&s)
	}
}

func (f *fake) DeviceStatus(name string) (bridge.DeviceStatus, bool) {
	for _, d := range f.Summaries() {
		if d.Name != name {
			continue
		}
		st := bridge.DeviceStatus{
			Name: d.Name, Cloud: d.Cloud, Session: upstream.Status{Summary: d.Session}, Up: d.Up, Down: d.Down,
			Queue: config.Queue{MaxMessages: 10000, MaxBytes: 16 << 20, OnFull: config.Block},
		}
		st.Session.Timeline = []upstream.Change{
			{At: d.Session.Since.Add(-time.Hour), State: upstream.Idle, Reason: "not connected"},
			{At: d.Session.Since, State: d.Session.State, Reason: d.Session.Reason},
		}
		st.Session.Subscriptions = []upstream.Subscription{
			{Filter: "a1B2c3D4e5F/" + d.Name + "/<b>f</b>", Locals: []string{"<b>local</b>"}, Verdict: upstream.VerdictGranted},
		}
		return st, true
	}
	return bridge.DeviceStatus{}, false
}

func (f *fake) change(i int, do func(*bridge.DeviceSummary)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do(&f.devices[i])
}

// fleet is a fake with devices dev-0000, dev-0001, ..., all online, in turns of the clouds north and south.
func fleet(n int) *fake {
	f := &fake{overview: bridge.Overview{
		Serving: true, Listen: []net.Addr{&net.TCPAddr{IP: net.IPv4(192, 168, 10, 1), Port: 1883}},
		Clouds: []bridge.CloudStatus{
			{Name: "north", Provider: "aliyun", Endpoint: "wss://iot-06abcdef.mqtt.iothub.aliyuncs.com:443"},
			{Name: "south", Provider: "generic", Endpoint: "wss://broker.lab:8084"},
		},
		Spool:       lane.SpoolStatus{Bytes: 3 << 20, Limit: 1 << 30},
		MemoryUsed:  1 << 20,
		MemoryLimit: 64 << 20, MaxConnections: 10000,
		Clock: clock.State{Kind: clock.Fine},
	}}
	for i := range n {
		f.devices = append(f.devices, bridge.DeviceSummary{
			Name: fmt.Sprintf("dev-%04d", i), Cloud: []string{"north", "south"}[i%2],
			Session: upstream.Summary{State: upstream.Online, Since: time.Now().Add(-time.Duration(i) * time.Minute)},
		})
	}
	return f
}

// failing has a device wait after a failure.
func failing(kind failure.Kind) func(*bridge.DeviceSummary) {
	return func(d *bridge.DeviceSummary) {
		f := failure.New(kind, failure.StageConnect, nil, "")
		since := time.Now().Add(-12 * time.Minute)
		d.Session = upstream.Summary{
			State: upstream.Waiting, Since: since, Reason: f.Reason(), Last: f, Latest: f, LatestAt: since, Failures: 3,
			Offline: since, Retry: time.Now().Add(time.Hour),
		}
	}
}

// queueing has a device with so many messages that wait.
func queueing(n uint64) func(*bridge.DeviceSummary) {
	return func(d *bridge.DeviceSummary) {
		d.Up = lane.Counters{Accepted: n + 100, Delivered: 100, Queued: int(n), Bytes: int64(n) * 200, Oldest: time.Minute}
	}
}

// troubled is a fleet where much is wrong.
func troubled(n int) *fake {
	f := fleet(n)
	for i := range n {
		switch i % 50 {
		case 3:
			f.change(i, failing(failure.ProxyAuthRequired))
			f.change(i, queueing(uint64(i)))
		case 8:
			f.change(i, failing(failure.ProxyUnreachable))
		case 13, 14:
			f.change(i, func(d *bridge.DeviceSummary) { d.Session.State, d.Session.Reason = upstream.Idle, "not connected" })
		case 20:
			f.change(i, func(d *bridge.DeviceSummary) { d.Session.State = upstream.Dialing })
		}
	}
	o := &f.overview
	o.Spool.Bytes = 1000 << 20
	o.Spool.Fault = &lane.Fault{Since: time.Now().Add(-time.Hour), Err: errors.New("no space left on device")}
	o.Clock = clock.State{
		Kind: clock.Unset, System: time.Now(), Now: time.Now(), Reason: "nothing has set the system's clock yet",
		Remedy: "start a time service, such as systemd-timesyncd",
	}
	o.Clouds[0].Certificate = time.Now().Add(5 * 24 * time.Hour)
	o.Unclaimed = []bridge.Leftover{{Device: "old-1", Up: 3}}
	return f
}

// Five thousand devices are found, filtered and sorted, and few of them are in the document.
func TestManyDevices(t *testing.T) {
	f := troubled(5000)
	p := open(t, serve(t, f, "").url())
	p.says(".count", "5,000 devices")
	bounded := func() {
		t.Helper()
		if n := eval[int](p, "document.querySelectorAll('.devices tr').length"); n > 51 {
			t.Errorf("%d rows are in the document", n)
		}
		if n := eval[int](p, "document.querySelectorAll('*').length"); n > 2000 {
			t.Errorf("%d elements are in the document", n)
		}
	}
	shown := func(want ...string) {
		t.Helper()
		got := p.names()
		if len(got) > len(want) {
			got = got[:len(want)]
		}
		if !slices.Equal(got, want) {
			t.Errorf("the table begins with %v, want %v", got, want)
		}
	}
	t.Log("to load them took", eval[string](p, `(() => {
		const all = performance.getEntriesByType("resource").filter((e) => e.name.includes("/api/v1/devices?"));
		const size = all.reduce((sum, e) => sum + e.decodedBodySize, 0);
		return (size / 1024).toFixed() + " KiB, " + (all.at(-1).responseEnd - all[0].startTime).toFixed() +
			" ms; shown after " + performance.now().toFixed() + " ms";
	})()`))
	bounded()
	shown("dev-0003", "dev-0053", "dev-0103") // those that need somebody
	p.says(".pager", "1–50 of 5,000")
	p.shot("many")

	for _, tc := range []struct {
		q, state, cloud, sort string
		count                 string
		first                 []string
	}{
		{q: "4321", count: "1 of 5,000 devices", first: []string{"dev-4321"}},
		{q: "DEV-432", count: "10 of 5,000 devices", first: []string{"dev-4320", "dev-4321"}},
		{q: "proxy password north", count: "0 of 5,000 devices"},
		{q: "proxy password south", count: "100 of 5,000 devices", first: []string{"dev-0003"}},
		{state: "action", count: "100 of 5,000 devices", first: []string{"dev-0003"}},
		{state: "offline", count: "100 of 5,000 devices", first: []string{"dev-0008"}},
		{state: "idle", cloud: "north", count: "100 of 5,000 devices", first: []string{"dev-0014", "dev-0064"}},
		{state: "connecting", q: "dev-00", count: "2 of 5,000 devices", first: []string{"dev-0020", "dev-0070"}},
		{cloud: "south", sort: "-name", count: "2,500 of 5,000 devices", first: []string{"dev-4999", "dev-4997"}},
		{sort: "-queued", count: "5,000 devices", first: []string{"dev-4953", "dev-4903"}},
		{q: "nothing is called this", count: "0 of 5,000 devices"},
	} {
		p.set("search", tc.q)
		p.set("state", tc.state)
		p.set("cloud", tc.cloud)
		if tc.sort == "" {
			tc.sort = "state"
		}
		p.set("sort", tc.sort)
		p.says(".count", tc.count)
		shown(tc.first...)
		bounded()
	}
	p.says(".empty", "No device is like that.")
	p.click(".clear")
	p.says(".count", "5,000 devices")

	// What is shown is in the address.
	p.set("search", "dev-01")
	p.set("cloud", "north")
	p.do(chromedp.Reload())
	p.until("document.querySelector('.count')?.innerText === '50 of 5,000 devices'")
	if v := eval[string](p, "document.getElementById('search').value"); v != "dev-01" {
		t.Errorf("the search is %q", v)
	}
	p.click(".clear")

	// Heads sort, pages turn.
	p.click(".devices thead th:nth-child(1) button")
	shown("dev-0000", "dev-0001")
	p.until("document.querySelector('.devices th[aria-sort]').getAttribute('aria-sort') === 'ascending'")
	p.click(".devices thead th:nth-child(1) button")
	shown("dev-4999")
	p.until("document.querySelector('.devices th[aria-sort]').getAttribute('aria-sort') === 'descending'")
	p.click(".pager button:last-child")
	shown("dev-4949")
	p.says(".pager", "51–100 of 5,000")
	bounded()

	// Live, also what is on none of the pages seen so far.
	p.set("state", "action")
	p.says(".count", "100 of 5,000 devices")
	f.change(4444, failing(failure.ProxyAuthRequired))
	p.says(".count", "101 of 5,000 devices")
	f.change(4444, func(d *bridge.DeviceSummary) { d.Session = upstream.Summary{State: upstream.Online} })
	p.says(".count", "100 of 5,000 devices")

	t.Log("a search takes", eval[string](p, `(async () => {
		const field = document.getElementById("search");
		const times = [];
		for (const q of ["d", "de", "dev-", "dev-1", "proxy", "", "9", "99"]) {
			const began = performance.now();
			field.value = q;
			field.dispatchEvent(new Event("input"));
			document.body.offsetHeight;
			times.push((performance.now() - began).toFixed(1));
			await new Promise(requestAnimationFrame);
		}
		return times.join(" ") + " ms";
	})()`))
}

// What is called like markup is shown as it is called.
func TestNamesAreText(t *testing.T) {
	const evil = `<img src=x onerror=alert(1)>"'&/?#%41 ü`
	f := fleet(2)
	f.devices[0].Name = evil
	f.devices[0].Cloud = "<script>alert(2)</script>"
	f.overview.Clouds[0].Name = "<script>alert(2)</script>"
	f.change(0, failing(failure.ProxyAuthRequired))
	p := open(t, serve(t, f, "").url())
	p.until("document.querySelectorAll('.devices tbody tr').length === 2")
	if names := p.names(); names[0] != evil {
		t.Errorf("it is called %s", names[0])
	}
	p.says(".banner", evil)
	p.says(".clouds", "<script>alert(2)</script>")
	p.click(".devices tbody a")
	p.says("h1", evil)
	p.says(".device .headline", "the proxy asks for a user name and a password")
	p.says(".device", evil+"/<b>f</b>")
	if n := eval[int](p, "document.querySelectorAll('main img, main script, main b').length"); n != 0 {
		t.Errorf("%d elements are made of names", n)
	}
	p.do(chromedp.Reload())
	p.says(".device .headline", "the proxy asks for a user name and a password")
}

// Everything that is wrong with the bridge as a whole is said, with what to do.
func TestProblems(t *testing.T) {
	p := open(t, serve(t, troubled(200), "").url())
	p.says(".fleet .headline", "8 devices are offline, 180 of 200 online. 4 need action.")
	p.click(".rest summary")
	p.until("document.querySelectorAll('.banner').length > 5")
	all := eval[string](p, "[...document.querySelectorAll('.banner')].map((b) => b.innerText).join('\\n')")
	for _, want := range []string{
		"messages cannot be stored on disk since", "no space left on device",
		"4 devices of south offline: the proxy asks for a user name and a password",
		"4 devices of north offline: the proxy cannot be reached",
		"clock: nothing has set the system's clock yet", "start a time service",
		"the spool is 98 % full", "the certificate of north expires in 4 d 23 h", "3 messages are kept of devices", "old-1",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("not said: %s\n%s", want, all)
		}
	}
	if n, remedies := strings.Count(all, "Needs action:")+strings.Count(all, "Warning:")+strings.Count(all, "Note:"),
		strings.Count(all, "What to do: "); n != remedies {
		t.Errorf("%d problems and %d remedies:\n%s", n, remedies, all)
	}
}

// A fleet without failures is not well when its messages cannot be stored.
func TestNotAllIsWell(t *testing.T) {
	f := fleet(3)
	s := serve(t, f, "")
	p := open(t, s.url())
	p.says(".fleet .headline", "All is well: 3 of 3 devices online, none failing.")
	f.mu.Lock()
	f.overview.Spool.Fault = &lane.Fault{Since: time.Now(), Err: errors.New("no space left on device")}
	f.mu.Unlock()
	p.says(".banner", "no space left on device")
	p.until("document.querySelector('.headline').innerText === '3 of 3 devices online, none failing.'")
}
