package bridge

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/zap"

	"bridged/internal/clock"
	"bridged/internal/cloudsim"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/testdevice"
	"bridged/internal/upstream"
)

// gateway is a machine's clocks, which run faster than time does.
type gateway struct {
	mu    sync.Mutex
	wall  time.Time // at start
	start time.Time
	speed time.Duration
}

func newGateway(wall time.Time, speed int) *gateway {
	return &gateway{wall: wall, start: time.Now(), speed: time.Duration(speed)}
}

func (g *gateway) mono() time.Duration { return time.Since(g.start) * g.speed }

func (g *gateway) read() (time.Time, time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	mono := g.mono()
	return g.wall.Add(mono), mono
}

// set sets the wall clock.
func (g *gateway) set(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wall = now.Add(-g.mono())
}

// right is the right time, which goes as fast as the gateway's.
func (g *gateway) right() time.Time { return g.start.Add(g.mono()) }

// options have the gateway's clocks and try again soon.
func (g *gateway) options() Options {
	o := quick
	o.Retry.Spread = time.Millisecond
	o.Clock = clock.Config{Read: g.read, Sync: func() clock.Sync { return clock.Unsynchronised }}
	return o
}

// in1970 is how long after 1970 a gateway without a battery for its clock connects.
var in1970 = time.Unix(20, 0)

func tencent(c *cloudsim.Cloud, url, more string) string {
	return fmt.Sprintf(`
clouds:
  gz: {provider: tencent, url: "%s", product_id: P%s}
devices:
  - {name: dev, cloud: gz, login: {username: u, password: p}, device_secret: c2VjcmV0}
`, url, more)
}

func tencentCloud(t *testing.T, g *gateway, date bool) *cloudsim.Cloud {
	t.Helper()
	rules := cloudsim.RulesFor(cloudsim.Tencent)
	rules.Connects = cloudsim.Rate{}
	o := cloudsim.Options{
		Kind: cloudsim.Tencent, Product: "P", Devices: []cloudsim.Device{{Name: "dev", Secret: "c2VjcmV0"}},
		Now: g.right, Rules: &rules,
	}
	if date {
		o.Date = g.right
	}
	return simulate(t, o)
}

// A refused login is put down to a clock that shows 1970, and not to the secret. When the clock is set, the device is
// online at once, although its next attempt was far away.
func TestClockIn1970(t *testing.T) {
	g := newGateway(in1970, 1)
	c := tencentCloud(t, g, false)
	o := g.options()
	o.Retry.Policies = alike(governor.Policy{Floor: time.Hour, First: time.Second, Max: time.Second, Nudge: true})
	r := runWith(t, t.TempDir(), tencent(c, c.WSURL(), ", limits: {connects: 0}"), o)
	r.connect(dev)
	f := r.failure("dev")
	if f.Kind != failure.ClockWrong || f.Class() != failure.ClassClock || !strings.Contains(f.Error(), "1970-01-01") {
		t.Errorf("kind %s: %v", f.Kind, f)
	}
	until(t, "waiting", func() bool { return r.status("dev").Session.State == upstream.Waiting })
	if st := r.status("dev").Session; !strings.Contains(st.Reason, "clock is plainly wrong") {
		t.Errorf("waiting because of %q", st.Reason)
	}
	if r.logs.FilterMessage("the cloud refused the login").Len() > 0 {
		t.Error("the log says that the login was refused")
	}
	if st := r.bridge.Clock(); st.Kind != clock.Wrong {
		t.Errorf("the clock is %s", st.Kind)
	}
	if n := r.logs.FilterMessage("the clock").FilterField(zap.String("state", string(clock.Wrong))).Len(); n != 1 {
		t.Errorf("told %d times of the clock", n)
	}
	g.set(g.right())
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
}

// With TLS the cloud's own time is believed: the first connection tells it, and its signature is good.
func TestTimeOfTheCloud(t *testing.T) {
	g := newGateway(in1970, 1)
	c := tencentCloud(t, g, true)
	ca := caFile(t, c)
	r := runWith(t, t.TempDir(), tencent(c, c.WSSURL(), ", tls: {ca_file: "+ca+"}, limits: {connects: 0}"), g.options())
	d := r.connect(dev)
	d.Publish("P/dev/event", []byte("x"), 1)
	testdevice.Expect[*packets.PubackPacket](d)
	if n := len(c.LoginFailures()); n != 0 {
		t.Errorf("%d logins were refused", n)
	}
	if st := r.bridge.Clock(); st.Kind != clock.Corrected || st.Trust != clock.Authentic {
		t.Errorf("the clock is %+v", st)
	}
	told := r.logs.FilterMessage("the clock").FilterField(zap.String("state", string(clock.Corrected)))
	if told.Len() != 1 {
		t.Errorf("told %d times", told.Len())
	}
	if n := r.logs.FilterMessage(otherTime).FilterLevelExact(zap.WarnLevel).Len(); n != 1 {
		t.Errorf("told %d times that the certificate was verified at another time", n)
	}
}

// A cloud that never says what time it is has its certificate verified at another time with each connect. That is told
// now and then.
func TestOtherTimeIsToldOnce(t *testing.T) {
	g := newGateway(in1970, 1)
	c := tencentCloud(t, g, false)
	ca := caFile(t, c)
	r := runWith(t, t.TempDir(), tencent(c, c.WSSURL(), ", tls: {ca_file: "+ca+"}, limits: {connects: 0}"), g.options())
	r.connect(dev)
	until(t, "some attempts", func() bool { return len(c.LoginFailures()) > 2 })
	if n := r.logs.FilterMessage(otherTime).Len(); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// Without TLS a time has to be heard twice; until then it is the clock that is wrong.
func TestTimeInTheClear(t *testing.T) {
	g := newGateway(in1970, 50)
	c := tencentCloud(t, g, true)
	r := runWith(t, t.TempDir(), tencent(c, c.WSURL(), ", limits: {connects: 0}"), g.options())
	r.connect(dev)
	if f := r.failure("dev"); f.Kind != failure.ClockWrong {
		t.Errorf("kind %s: %v", f.Kind, f)
	}
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	if st := r.bridge.Clock(); st.Kind != clock.Corrected || st.Trust != clock.Plain {
		t.Errorf("the clock is %+v", st)
	}
}

// A certificate that is refused for a clock in 1970 is not said to have a fault.
func TestCertificatesIn1970(t *testing.T) {
	g := newGateway(in1970, 1)
	past, err := cloudsim.NewCA("plant")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := past.IssueServer(time.Now().AddDate(-1, 0, 0), "127.0.0.1") // not valid at any time that can be
	if err != nil {
		t.Fatal(err)
	}
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, CA: past, ServerCert: &cert})
	r := runWith(t, t.TempDir(), secureYAML(c, ", tls: {ca_file: "+caFile(t, c)+"}", ""), g.options())
	r.connect(dev)
	if f := r.failure("dev"); f.Kind != failure.ClockWrong || f.Stage != failure.StageTLS {
		t.Errorf("kind %s: %v", f.Kind, f)
	}
}

// A password that does not depend on the time is wrong whatever the clock shows.
func TestPasswordIn1970(t *testing.T) {
	g := newGateway(in1970, 1)
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true, Users: map[string]string{"u": "right"}})
	r := runWith(t, t.TempDir(), genericYAML(c, "    username: u\n    password: wrong\n"), g.options())
	r.connect(dev)
	if f := r.failure("dev"); f.Class() != failure.ClassRejected {
		t.Errorf("kind %s: %v", f.Kind, f)
	}
}
