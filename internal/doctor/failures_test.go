package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridged/internal/clock"
	"bridged/internal/cloudsim"
	"bridged/internal/failure"
	"bridged/internal/transport"
)

// short is for answers that do not come.
var short = Options{
	patience: patience{100 * time.Millisecond, 100 * time.Millisecond},
	tune: func(o *transport.Options) {
		o.Timeouts = transport.Timeouts{
			DNS: 500 * time.Millisecond, TCP: 500 * time.Millisecond, Proxy: 500 * time.Millisecond,
			TLS: 500 * time.Millisecond, Upgrade: 500 * time.Millisecond,
		}
	},
}

// fails demands that the examination fails with this kind, at this stage, and that it is explained.
func (r *rig) fails(o Options, kind failure.Kind, stage Stage) *Report {
	r.t.Helper()
	report := r.examine(o)
	f := report.Failure
	if f == nil || f.Kind != kind || f.Stage != stage {
		r.t.Fatalf("%+v, want %s at %s", f, kind, stage)
	}
	if f.Reason == "" || f.Remedy == "" || len(f.Causes) == 0 || !strings.HasPrefix(f.Error, f.Reason) {
		r.t.Errorf("%+v", f)
	}
	if report.status(stage) != Failed {
		r.t.Errorf("no failed step %s: %+v", stage, report.Steps)
	}
	return report
}

// dnsFails is a resolver that says so.
type dnsError struct{ timeout bool }

func (e dnsError) Error() string   { return "no DNS here" }
func (e dnsError) Timeout() bool   { return e.timeout }
func (e dnsError) Temporary() bool { return false }

func TestNetworkFailures(t *testing.T) {
	cloud := sim(t, nil)
	noDNS := short
	noDNS.tune = func(o *transport.Options) {
		short.tune(o)
		o.Resolver = &net.Resolver{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, dnsError{} }}
	}
	r := newRig(t, cloud, lab("ws://no-such-cloud.invalid", "", ""))
	r.fails(noDNS, failure.DNSFailed, DNS)
	noDNS.tune = func(o *transport.Options) {
		short.tune(o)
		o.Resolver = &net.Resolver{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	}
	r.fails(noDNS, failure.DNSTimeout, DNS)

	r = newRig(t, cloud, lab("$WS?token=$SECRET", "", ""))
	cloud.StallUpgrade(true)
	r.fails(short, failure.NoAnswer, Upgrade)
	cloud.Heal()
	cloud.Down()
	report := r.fails(short, failure.Refused, TCP)
	if len(report.Tries) != 1 || report.Tries[0].Error == "" || report.Session != nil {
		t.Errorf("%+v", report.Tries)
	}
}

func TestTLSFailures(t *testing.T) {
	ca, err := cloudsim.NewCA("plant")
	if err != nil {
		t.Fatal(err)
	}
	cloud := sim(t, func(o *cloudsim.Options) { o.CA = ca })
	report := newRig(t, cloud, lab("$WSS", "", "")).fails(short, failure.TLSUnknownAuthority, TLS)
	if c := report.TLS; c == nil || len(c.Chain) != 1 || c.Chain[0].Issuer != "CN=plant" || c.Version != "" {
		t.Errorf("the chain is not shown: %+v", c)
	}
	name := `, tls: {ca_file: $CA, server_name: other.test}`
	newRig(t, cloud, lab("$WSS", name, "")).fails(short, failure.TLSWrongName, TLS)
	pin := `, tls: {ca_file: $CA, pins: ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]}`
	if newRig(t, cloud, lab("$WSS", pin, "")).fails(short, failure.TLSPinMismatch, TLS).TLS.Pinned {
		t.Error("pinned")
	}
	wss := strings.Replace(cloud.WSURL(), "ws:", "wss:", 1)
	newRig(t, cloud, lab(wss, trusted, "")).fails(short, failure.TLSNotTLS, TLS)
	ws := strings.Replace(cloud.WSSURL(), "wss:", "ws:", 1)
	newRig(t, cloud, lab(ws, "", "")).fails(short, failure.HTTPOther, Upgrade)
	cloud.StallTLS(true)
	newRig(t, cloud, lab("$WSS", trusted, "")).fails(short, failure.NoAnswer, TLS)
	cloud.StallTLS(false)

	early := short
	wall := time.Now().AddDate(0, 0, -2)
	early.Clock = clock.New(clock.Config{
		Read:  func() (time.Time, time.Duration) { return wall, 0 },
		Sync:  func() clock.Sync { return clock.Synchronised },
		Built: wall.AddDate(0, -1, 0),
	})
	newRig(t, cloud, lab("$WSS", trusted, "")).fails(early, failure.TLSNotYetValid, TLS)

	old, err := ca.IssueServer(time.Now().Add(-24*time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	expired := sim(t, func(o *cloudsim.Options) { o.CA, o.ServerCert = ca, &old })
	report = newRig(t, expired, lab("$WSS", trusted, "")).fails(short, failure.TLSExpired, TLS)
	if !strings.Contains(report.text(TLS), "has expired") || report.TLS.Chain[0].DaysLeft >= 0 {
		t.Error(report.text(TLS))
	}
}

func TestTLSVersion(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	url := strings.Replace(srv.URL, "https:", "wss:", 1)
	newRig(t, sim(t, nil), lab(url, `, tls: {min_version: "1.3"}`, "")).fails(short, failure.TLSVersion, TLS)
}

func TestClientCertificates(t *testing.T) {
	cloud := sim(t, func(o *cloudsim.Options) { o.ClientCerts = cloudsim.CertsRequired })
	report := newRig(t, cloud, lab("$WSS", trusted, "")).examine(short)
	if f := report.Failure; f == nil || f.Kind != failure.TLSClientCertRequired || !report.TLS.CertificateAsked {
		t.Errorf("%+v", f)
	}
	other, err := cloudsim.NewCA("other")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pair := func(ca *cloudsim.CA) (device string) {
		c, err := ca.IssueClient("press")
		if err != nil {
			t.Fatal(err)
		}
		certFile, keyFile, err := c.WriteFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(", cert_file: %s, key_file: %s", certFile, keyFile)
	}
	report = newRig(t, cloud, lab("$WSS", trusted, pair(other))).examine(short)
	if f := report.Failure; f == nil || f.Kind != failure.TLSClientCertRefused || !report.TLS.CertificateShown {
		t.Errorf("%+v", f)
	}
	r := newRig(t, cloud, lab("$WSS", trusted, pair(cloud.CA())))
	report = r.passes(Options{})
	if !strings.Contains(report.text(Configuration), "days left") ||
		!strings.Contains(report.text(Secrets), "key_file: ") || !strings.Contains(report.text(TLS), "was shown one") {
		t.Errorf("%+v", report.Steps)
	}
	if err := os.Remove(filepath.Join(dir, "client.key")); err != nil {
		t.Fatal(err)
	}
	r.fails(short, failure.TLSClientCertUnusable, Configuration)
}

func TestSettingsThatAreGone(t *testing.T) {
	r := newRig(t, sim(t, nil), lab("$WSS", trusted, ""))
	if err := os.Remove(filepath.Join(r.dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	r.fails(short, failure.Settings, Configuration)
}

func TestUpgradeFailures(t *testing.T) {
	cloud := sim(t, nil)
	r := newRig(t, cloud, lab("$WS", "", ""))
	for status, kind := range map[int]failure.Kind{
		200: failure.NotWebSocket, 302: failure.HTTPRedirect, 400: failure.HTTPOther, 401: failure.HTTP401,
		403: failure.HTTP403, 404: failure.HTTP404, 429: failure.HTTP429, 500: failure.HTTP5xx, 503: failure.HTTP503,
	} {
		if err := cloud.AnswerUpgrade(status, 1); err != nil {
			t.Fatal(err)
		}
		if report := r.fails(short, kind, Upgrade); report.HTTPStatus != status {
			t.Errorf("%d: the report says %d", status, report.HTTPStatus)
		}
	}
}

// broker answers a WebSocket handshake with a subprotocol, and what is sent then with some bytes.
func broker(t *testing.T, subprotocol string, answer []byte) (url string) {
	t.Helper()
	var wg sync.WaitGroup
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		r.Header.Set("Sec-Websocket-Protocol", subprotocol) // whatever was asked for
		up := websocket.Upgrader{Subprotocols: []string{subprotocol}}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = ws.Close() }() // the client closes
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				return
			}
			if ws.WriteMessage(websocket.BinaryMessage, answer) != nil {
				return
			}
		}
	}))
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
	})
	return strings.Replace(srv.URL, "http:", "ws:", 1)
}

func TestProtocolFailures(t *testing.T) {
	cloud := sim(t, nil)
	for _, tc := range []struct {
		name        string
		subprotocol string
		answer      string
		kind        failure.Kind
		stage       Stage
	}{
		{"another subprotocol", "amqp", "", failure.Subprotocol, Upgrade},
		{"no CONNACK", "mqtt", "\xd0\x00", failure.NoConnack, Connect},
		{"no MQTT", "mqtt", "\xf0\x00", failure.ProtocolError, Connect},
		{"an unknown code", "mqtt", "\x20\x02\x00\x87", failure.ConnackUnknown, Connect},
		// CONNACK each time: it is not the SUBACK.
		{"no SUBACK", "mqtt", "\x20\x02\x01\x00", failure.NoAnswer, Subscribe},
		// CONNACK, then what would be the SUBACK of the first SUBSCRIBE, with too many codes.
		{"a wrong SUBACK", "mqtt", "\x20\x02\x01\x00\x90\x04\xfd\xe9\x00\x00", failure.ProtocolError, Subscribe},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url := broker(t, tc.subprotocol, []byte(tc.answer))
			newRig(t, cloud, lab(url, "", ", subscribe: [{filter: a}]")).fails(short, tc.kind, tc.stage)
		})
	}
}

func TestLoginFailures(t *testing.T) {
	cloud := sim(t, nil)
	r := newRig(t, cloud, lab("$WS", "", ""))
	for code, kind := range map[byte]failure.Kind{
		1: failure.ConnackVersion, 2: failure.ConnackIdentifier, 3: failure.ConnackUnavailable, 4: failure.ConnackPassword,
		5: failure.ConnackNotAuthorized,
	} {
		cloud.RefuseLogins(cloudsim.All, code)
		r.fails(short, kind, Connect)
	}
	cloud.RefuseLogins(cloudsim.All, 3)
	limited := newRig(t, cloud, lab("$WS", ", limits: {connects: 5/1m}", ""))
	if f := limited.fails(short, failure.ConnackUnavailable, Connect).Failure; !strings.Contains(f.Reason, "5 times in") {
		t.Error(f.Reason)
	}
	cloud.Heal()
	cloud.StallConnack(cloudsim.All, true)
	r.fails(short, failure.NoAnswer, Connect)
	cloud.Heal()
	newRig(t, cloud, strings.Replace(lab("$WS", "", ""), "{file: secret}", "wrong", 1)).
		fails(short, failure.ConnackNotAuthorized, Connect)
}

// A refused login that depends on the time is the clock's fault if that is plainly wrong.
func TestClockWrong(t *testing.T) {
	cloud := sim(t, func(o *cloudsim.Options) {
		o.Kind, o.Users, o.Product, o.Date = cloudsim.Aliyun, nil, "pk", nil
		o.Devices = []cloudsim.Device{{Name: "d", Secret: "another"}}
	})
	o := short
	o.Clock = clock.New(clock.Config{
		Read: func() (time.Time, time.Duration) { return time.Unix(1000, 0), 0 },
		Sync: func() clock.Sync { return clock.Unsynchronised },
	})
	r := newRig(t, cloud, `
clouds: {c: {provider: aliyun, url: "$WS", product_key: pk, proxy: none}}
devices: [{name: d, device_secret: {file: secret}, login: {anonymous: true, client_id: d}}]
`)
	report := r.fails(o, failure.ClockWrong, Connect)
	if report.status(Clock) != Warning || report.Clock.State != string(clock.Wrong) {
		t.Errorf("%+v", report.Clock)
	}
	r.fails(short, failure.ConnackNotAuthorized, Connect)
}

func TestSessionFailures(t *testing.T) {
	cloud := sim(t, nil)
	plain := newRig(t, cloud, lab("$WS", "", ""))
	sub := newRig(t, cloud, lab("$WS", "", ", subscribe: [{filter: a}, {filter: b}, {filter: c}], doctor_topic: x"))
	pub := newRig(t, cloud, lab("$WS", "", ", doctor_topic: x"))

	cloud.RefuseFilter(cloudsim.All, "b")
	report := sub.fails(short, failure.SubackRefused, Subscribe)
	if report.status(Publish) != OK || report.status(Goodbye) != OK || report.Filters[1].Granted != nil ||
		report.Failure.Reason != "the cloud refuses a subscription: b" {
		t.Errorf("%+v", report)
	}
	cloud.Heal()
	cloud.WithholdSubacks(cloudsim.All)
	sub.fails(short, failure.NoAnswer, Subscribe)
	cloud.Heal()
	cloud.DropAfter(cloudsim.All, 1, 1, cloudsim.CutClose)
	sub.fails(short, failure.ClosedByCloud, Subscribe)
	cloud.DropAfter(cloudsim.All, 1, 1, cloudsim.CutReset)
	sub.fails(short, failure.ConnectionLost, Subscribe)
	cloud.Heal()
	cloud.WithholdAcks(cloudsim.All)
	pub.fails(short, failure.Stalled, Publish)
	cloud.Heal()
	cloud.DropAfter(cloudsim.All, 1, 1, cloudsim.CutCloseFrame)
	report = pub.fails(short, failure.ClosedByCloud, Publish)
	if !strings.Contains(report.Failure.Reason, "after a message to x") {
		t.Error(report.Failure.Reason)
	}
	cloud.Heal()
	plain.passes(short)
}

func TestCancelled(t *testing.T) {
	r := newRig(t, sim(t, nil), lab("$WS", "", ""))
	for _, at := range []Stage{Daemon, TCP, Upgrade, Connect} {
		ctx, cancel := context.WithCancel(t.Context())
		report := New(r.cfg, Options{}).Examine(ctx, r.cfg.Devices[0], func(s Step) {
			if s.Stage == at {
				cancel()
			}
		})
		check(t, report)
		if f := report.Failure; f == nil || f.Kind != failure.Cancelled {
			t.Errorf("cancelled at %s: %+v", at, f)
		}
	}
}
