package bridge

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"bridged/internal/clock"
	"bridged/internal/cloudsim"
	"bridged/internal/config"
	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/testdevice"
	"bridged/internal/transport"
	"bridged/internal/upstream"
)

// What the cloud answers to the WebSocket handshake, and what is wrong with its certificate, can be read in the status
// and in the log, with what to do.
func TestRefusals(t *testing.T) {
	ca, err := cloudsim.NewCA("plant")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(expires time.Time, host string) *cloudsim.Options {
		cert, err := ca.IssueServer(expires, host)
		if err != nil {
			t.Fatal(err)
		}
		return &cloudsim.Options{Kind: cloudsim.Generic, CA: ca, ServerCert: &cert}
	}
	plain := &cloudsim.Options{Kind: cloudsim.Generic}
	for name, tc := range map[string]struct {
		cloud  *cloudsim.Options
		status int
		kind   failure.Kind
	}{
		"401":        {plain, 401, failure.HTTP401},
		"403":        {plain, 403, failure.HTTP403},
		"404":        {plain, 404, failure.HTTP404},
		"429":        {plain, 429, failure.HTTP429},
		"503":        {plain, 503, failure.HTTP503},
		"expired":    {issue(time.Now().Add(-time.Minute), "127.0.0.1"), 0, failure.TLSExpired},
		"wrong name": {issue(time.Now().Add(time.Hour), "elsewhere.test"), 0, failure.TLSWrongName},
	} {
		t.Run(name, func(t *testing.T) {
			c := simulate(t, *tc.cloud)
			if err := c.AnswerUpgrade(tc.status, -1); err != nil && tc.status != 0 {
				t.Fatal(err)
			}
			r := run(t, secureYAML(c, ", tls: {ca_file: "+caFile(t, c)+"}", ""))
			r.connect(dev)
			f := r.failure("dev")
			if f.Kind != tc.kind || f.Info().Remedy == "" {
				t.Errorf("kind %s: %v", f.Kind, f)
			}
			told := r.logs.FilterField(zap.String("kind", string(tc.kind))).FilterField(zap.String("remedy", f.Info().Remedy))
			if told.FilterField(zap.String("class", string(f.Class()))).Len() == 0 {
				t.Error("the log does not tell")
			}
		})
	}
}

// Headers go along with the handshake; their values are in no log.
func TestHeaders(t *testing.T) {
	const secret = "hunter2-hunter2"
	var got atomic.Value
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true, CheckUpgrade: func(r *http.Request) int {
		got.Store(r.Header.Get("Authorization") + " " + r.Header.Get("X-Plant"))
		return 0
	}})
	file := filepath.Join(t.TempDir(), "header")
	if err := os.WriteFile(file, []byte("Bearer "+secret), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, strings.Replace(genericYAML(c, ""), `"}`,
		fmt.Sprintf(`", headers: {authorization: {file: "%s"}, X-Plant: "7"}}`, file), 1))
	d := r.connect(dev)
	d.Publish("t", nil, 1)
	testdevice.Expect[*packets.PubackPacket](d)
	if got.Load() != "Bearer "+secret+" 7" {
		t.Errorf("headers %q", got.Load())
	}
	for _, e := range r.logs.All() {
		if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, secret) {
			t.Errorf("the log holds a header: %s", text)
		}
	}
}

// Whom to trust: the configuration's authorities beside the system's, or alone, and pinned keys.
func TestTrust(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic})
	ca := caFile(t, c)
	for name, tc := range map[string]struct {
		tls  string
		kind failure.Kind
	}{
		"nobody":    {"{min_version: '1.3'}", failure.TLSUnknownAuthority},
		"beside":    {"{ca_file: " + ca + "}", ""},
		"alone":     {"{ca_file: " + ca + ", ca_only: true}", ""},
		"other pin": {"{ca_file: " + ca + ", pins: [" + transport.Pin{}.String() + "]}", failure.TLSPinMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, secureYAML(c, ", tls: "+tc.tls, ""))
			d := r.connect(dev)
			if tc.kind != "" {
				if f := r.failure("dev"); f.Kind != tc.kind {
					t.Errorf("kind %s: %v", f.Kind, f)
				}
				return
			}
			d.Publish("t", nil, 1)
			testdevice.Expect[*packets.PubackPacket](d)
			if left := time.Until(r.status("dev").CloudCertificate); left < 24*time.Hour {
				t.Errorf("by the status the cloud's certificate expires in %s", left)
			}
		})
	}
}

// A client certificate that the cloud refuses is replaced by another one in the same files, without a restart.
func TestClientCertificateIsReplaced(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, ClientCerts: cloudsim.CertsRequired})
	other, err := cloudsim.NewCA("other")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := writeClient(t, other, dir)
	pair := fmt.Sprintf("    cert_file: %s\n    key_file: %s\n", certFile, keyFile)
	r := run(t, secureYAML(c, ", tls: {ca_file: "+caFile(t, c)+"}", pair))
	r.connect(dev)
	if f := r.failure("dev"); f.Kind != failure.TLSClientCertRefused {
		t.Errorf("kind %s: %v", f.Kind, f)
	}
	writeClient(t, c.CA(), dir)
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	if r.logs.FilterMessage("a client certificate has changed, and is in use").Len() == 0 {
		t.Error("the log does not tell of the change")
	}
	if left := time.Until(r.status("dev").ClientCertificate); left < 24*time.Hour {
		t.Errorf("by the status the certificate expires in %s", left)
	}
}

// writeClient writes a client certificate for dev.
func writeClient(t *testing.T, ca *cloudsim.CA, dir string) (certFile, keyFile string) {
	t.Helper()
	cert, err := ca.IssueClient("dev")
	if err != nil {
		t.Fatal(err)
	}
	if certFile, keyFile, err = cert.WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile
}

// The log tells of a certificate 30, 7 and 1 days ahead, and when it has expired, once each.
func TestCertificateExpires(t *testing.T) {
	ca, err := cloudsim.NewCA("plant")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := writeClient(t, ca, dir)
	wall := time.Now()
	core, logs := observer.New(zap.InfoLevel)
	start := time.Now()
	clk := clock.New(clock.Config{
		Read: func() (time.Time, time.Duration) { return wall, time.Since(start) + wall.Sub(start) },
		Sync: func() clock.Sync { return clock.Synchronised },
	})
	clouds := newClouds(clk, zap.New(core))
	pair, err := clouds.pair(config.Certificate{CertFile: certFile, KeyFile: keyFile})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := clouds.pair(config.Certificate{CertFile: certFile, KeyFile: keyFile}); again != pair || err != nil {
		t.Errorf("read twice: %v", err)
	}
	expires := pair.Expires()
	const day = 24 * time.Hour
	for _, step := range []struct {
		left time.Duration
		told int
	}{
		{31 * day, 0}, {30*day - time.Minute, 1}, {20 * day, 1}, {7*day - time.Minute, 2}, {2 * day, 2}, {time.Hour, 3},
		{time.Minute, 3}, {-time.Minute, 4}, {-day, 4},
	} {
		wall = expires.Add(-step.left)
		clouds.warnExpiry()
		clouds.warnExpiry()
		if n := logs.FilterField(zap.String("cert_file", certFile)).Len(); n != step.told {
			t.Errorf("%s before: told %d times, want %d", step.left, n, step.told)
		}
	}
	if n := logs.FilterMessage("a certificate has expired").Len(); n != 1 {
		t.Errorf("told %d times that it has expired", n)
	}
}

// Two gateways with the same device kick each other. That is found out, named, and slowed down.
func TestKickWar(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	o := quick
	o.Retry.Policies = alike(governor.Policy{First: 5 * time.Millisecond, Max: 50 * time.Millisecond})
	o.Retry.Policies[governor.ClassTakenOver] = governor.Policy{Floor: time.Hour, First: time.Second, Max: time.Second}
	yaml := genericYAML(c, "    upstream: always\n")
	both := []*rig{runWith(t, t.TempDir(), yaml, o), runWith(t, t.TempDir(), yaml, o)}
	var r *rig
	until(t, "one of them gives way", func() bool {
		for _, r = range both {
			if st := r.status("dev").Session; st.State == upstream.Waiting && st.Last != nil && st.Last.Kind == failure.KickWar {
				return true
			}
		}
		return false
	})
	st := r.status("dev").Session
	if !strings.Contains(st.Reason, "another client") || !strings.Contains(st.Reason, "sessions in a row") ||
		st.Last.Class() != failure.ClassTakenOver || st.Last.Info().Remedy == "" {
		t.Errorf("waiting because of %q", st.Reason)
	}
	told := r.logs.FilterField(zap.String("kind", string(failure.KickWar))).FilterLevelExact(zap.WarnLevel).All()
	if len(told) != 1 {
		t.Fatalf("told %d times", len(told))
	}
	if backoff, ok := told[0].ContextMap()["backoff"].(time.Duration); !ok || backoff < time.Hour {
		t.Errorf("backoff %v", told[0].ContextMap()["backoff"])
	}
}

// A session that the network or a restart of the cloud ends is no kick war, however often.
func TestRestartsAreNoKickWar(t *testing.T) {
	r, c := generic(t, "    upstream: always\n")
	for n := range uint64(8) {
		until(t, "a session", func() bool { return r.status("dev").Session.Connects > n && c.Online("dev") })
		c.Drop("dev", cloudsim.CutReset)
	}
	until(t, "a session", func() bool { return r.status("dev").Session.Connects > 8 })
	if n := r.logs.FilterField(zap.String("kind", string(failure.KickWar))).Len(); n > 0 {
		t.Error("taken for a kick war")
	}
}

// What a device publishes while its next attempt is far away, after a failure of the network, has it come soon; and
// the other devices of the cloud hear that it works again.
func TestNudge(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	c.Down()
	o := quick
	o.Retry.Policies = alike(governor.Policy{Floor: time.Hour, First: time.Second, Max: time.Second, Nudge: true})
	o.Retry.NudgeAfter, o.Retry.Spread = time.Millisecond, time.Millisecond
	yaml := new(strings.Builder)
	fmt.Fprintf(yaml, "clouds:\n  lab: {provider: generic, url: '%s'}\ndevices:\n", c.WSURL())
	names := []string{"a", "b", "c"}
	for _, n := range names {
		fmt.Fprintf(yaml, "  - {name: %s, cloud: lab, login: {anonymous: true, client_id: %s}}\n", n, n)
	}
	r := runWith(t, t.TempDir(), yaml.String(), o)
	devices := make([]*testdevice.Device, len(names))
	for i, n := range names {
		devices[i] = r.connect(testdevice.Options{ClientID: n})
		until(t, "waiting", func() bool { return r.status(n).Session.State == upstream.Waiting })
	}
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	<-time.After(100 * time.Millisecond)
	for _, n := range names {
		if c.Online(n) {
			t.Errorf("%s is online: the test says nothing", n)
		}
	}
	devices[1].Publish("t", []byte("x"), 1)
	testdevice.Expect[*packets.PubackPacket](devices[1]) // which may be the disk's
	for _, n := range names {
		if err := c.WaitOnline(within(t), n); err != nil {
			t.Errorf("%s: %v", n, err)
		}
	}
}

// Nothing is tried sooner after a login that was refused.
func TestNoNudgeForALoginThatWasRefused(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	c.RefuseLogins("dev", 5)
	o := quick
	o.Retry.Policies = governor.DefaultPolicies()
	o.Retry.NudgeAfter = time.Millisecond
	r := runWith(t, t.TempDir(), genericYAML(c, ""), o)
	d := r.connect(dev)
	if f := r.failure("dev"); f.Kind != failure.ConnackNotAuthorized {
		t.Errorf("kind %s: %v", f.Kind, f)
	}
	c.RefuseLogins("dev", 0)
	for range 20 {
		<-time.After(5 * time.Millisecond)
		d.Publish("t", []byte("x"), 0)
	}
	if c.Online("dev") || r.status("dev").Session.Failures != 1 {
		t.Error("tried again at once")
	}
}

// A cloud that takes messages and acknowledges none has its session ended and begun anew; on that the message arrives.
func TestStalledCloud(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	r := run(t, strings.Replace(genericYAML(c, ""), `"}`, `", stall_timeout: 1s}`, 1))
	d := r.connect(dev)
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	c.WithholdAcks("dev")
	d.Publish("t", []byte("x"), 2) // so that a repetition shows
	f := r.failure("dev")
	if f.Kind != failure.Stalled || f.Class() != failure.ClassNetwork {
		t.Errorf("kind %s: %v", f.Kind, f)
	}
	until(t, "another session", func() bool { return r.status("dev").Session.Connects > 1 })
	c.ReleaseAcks("dev")
	until(t, "delivery", func() bool { return r.status("dev").Up.Delivered == 1 })
}

// A link that loses everything is noticed within the keepalive, and so is a cloud that hangs.
func TestSilentCloud(t *testing.T) {
	r, c := genericWith(t, ", keepalive: 6s", "")
	r.connect(dev)
	if err := c.WaitOnline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
	c.StallReads("dev", true)
	began := time.Now()
	var lost []observer.LoggedEntry // the session is back before somebody who looks at the status sees that
	until(t, "the loss is noticed", func() bool {
		lost = r.logs.FilterMessage("no session with the cloud").All()
		return len(lost) > 0
	})
	if kind := lost[0].ContextMap()["kind"]; kind != string(failure.KeepaliveLost) {
		t.Errorf("kind %v", kind)
	}
	if took := lost[0].Time.Sub(began); took > 7*time.Second {
		t.Errorf("it took %s", took)
	}
}

func genericWith(t *testing.T, cloud, device string) (*rig, *cloudsim.Cloud) {
	t.Helper()
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	return run(t, strings.Replace(genericYAML(c, device), `"}`, `"`+cloud+`}`, 1)), c
}

// The cloud's connect limit holds over a restart, whether the process ended in order or not.
func TestConnectLimitOverARestart(t *testing.T) {
	rules := cloudsim.RulesFor(cloudsim.Generic)
	rules.Connects = cloudsim.Rate{Count: 1, Per: 3 * time.Second}
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true, Rules: &rules})
	yaml := strings.Replace(genericYAML(c, "    upstream: always\n"), `"}`, `", limits: {connects: 1/3s}}`, 1)
	dir := t.TempDir()
	online := func() *rig {
		r := runIn(t, dir, yaml)
		if err := c.WaitOnline(within(t), "dev"); err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := online()
	address := strings.TrimSuffix(strings.TrimPrefix(c.WSURL(), "ws://"), "/")
	if used := first.bridge.governor.Used(); len(used) != 1 || used[0].Identity != "generic/"+address+"/dev" {
		t.Errorf("used %+v", used)
	}
	first.stop()
	online().stop()
	// As if that one had crashed: what it has left is not of the process that had the lock last.
	if err := os.WriteFile(filepath.Join(dir, "state", "lock"), []byte("1 "+bootID()+" 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	online().stop()
	if v := c.Violations(); len(v) > 0 {
		t.Errorf("violations: %v", v)
	}
	if n := len(c.Connections("dev")); n != 3 {
		t.Errorf("%d connections", n)
	}
}

// What is believed about earlier processes.
func TestEarlierDials(t *testing.T) {
	dir := t.TempDir()
	lock := func() *dirLock {
		l, err := lockDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		l.release()
		return l
	}
	first := lock()
	if used, until := first.earlierDials(nil, zap.NewNop()); used != nil || !until.IsZero() {
		t.Errorf("of none: %v, %s", used, until)
	}
	second := lock()
	if second.before.run != first.run || second.run == first.run {
		t.Errorf("%q after %q", second.run, second.before.run)
	}
	note := []byte(fmt.Sprintf(`{"version": 1, "run": "%s", "used": [{"identity": "x", "for": 1}]}`, first.run))
	if used, until := second.earlierDials(note, zap.NewNop()); len(used) != 1 || !until.IsZero() {
		t.Errorf("of one that ended in order: %v, %s", used, until)
	}
	for _, bad := range []string{
		"", "{", `{"version": 2}`, `{"version": 1, "run": "another", "used": [{"identity": "x"}]}`,
	} {
		if used, until := second.earlierDials([]byte(bad), zap.NewNop()); used != nil || time.Since(until) > time.Minute {
			t.Errorf("%q: %v, %s", bad, used, until)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lock"), []byte("1 another-boot 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, until := lock().earlierDials(nil, zap.NewNop()); time.Since(until) < uptime()-time.Minute {
		t.Errorf("before the machine was started anew: %s", until)
	}
}

// The key for connect limits is the device's at the cloud.
func TestKey(t *testing.T) {
	cloud := &config.Cloud{Name: "lab", Provider: "generic"}
	seen := make(map[string]bool)
	for _, id := range []credentials.Identity{
		credentials.Aliyun{ProductKey: "p", DeviceName: "d"}, credentials.Aliyun{ProductKey: "p", DeviceName: "e"},
		credentials.Tencent{ProductID: "p", DeviceName: "d"}, credentials.Tencent{ProductID: "q", DeviceName: "d"},
	} {
		k := ConnectKey(&config.Device{Name: "local", Cloud: cloud, Identity: id})
		if seen[k] || strings.Contains(k, "local") {
			t.Errorf("%+v: %q", id, k)
		}
		seen[k] = true
	}
}
