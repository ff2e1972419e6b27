package upstream

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"

	"bridged/internal/cloudsim"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/mqtt"
	"bridged/internal/transport"
)

// Each failure is made for real and told apart.
func TestFailures(t *testing.T) {
	type setup func(t *testing.T, c *cloudsim.Cloud, cfg *Config)
	cases := []struct {
		name string
		do   setup
		kind failure.Kind
		says string
	}{
		{"refused port", func(t *testing.T, _ *cloudsim.Cloud, cfg *Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			cfg.Target.URL.Host = l.Addr().String()
			_ = l.Close()
		}, failure.Refused, "refuses connections"},
		{"unknown name", func(_ *testing.T, _ *cloudsim.Cloud, cfg *Config) { cfg.Target.URL.Host = "no-such-host.invalid" },
			failure.DNSNotFound, "does not exist"},
		{"unknown authority", func(_ *testing.T, c *cloudsim.Cloud, cfg *Config) { wss(c, cfg, transport.TLS{}) },
			failure.TLSUnknownAuthority, "ca_file"},
		{"wrong name", func(t *testing.T, c *cloudsim.Cloud, cfg *Config) {
			conf := trusting(t, c)
			conf.ServerName = "elsewhere.example"
			wss(c, cfg, conf)
		}, failure.TLSWrongName, "another name"},
		{"expired", func(t *testing.T, _ *cloudsim.Cloud, cfg *Config) {
			c := expired(t)
			wss(c, cfg, trusting(t, c))
		}, failure.TLSExpired, "expired"},
		{"closed during the handshake", func(t *testing.T, _ *cloudsim.Cloud, cfg *Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			go func() {
				if c, err := l.Accept(); err == nil {
					_ = c.Close()
				}
			}()
			cfg.Target.URL.Host = l.Addr().String()
		}, failure.HungUp, "during the handshake"},
		{"wss to a ws port", func(t *testing.T, c *cloudsim.Cloud, cfg *Config) {
			cfg.Target.URL.Scheme, cfg.Dialer = "wss", dialer(trusting(t, c))
		}, failure.TLSNotTLS, "does not speak TLS"},
		{"client certificate missing", func(t *testing.T, _ *cloudsim.Cloud, cfg *Config) {
			c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, ClientCerts: cloudsim.CertsRequired})
			wss(c, cfg, trusting(t, c))
		}, failure.TLSClientCertRequired, "client certificate"},
		{"HTTP 401", status(401), failure.HTTP401, "401"},
		{"HTTP 403", status(403), failure.HTTP403, "403"},
		{"HTTP 404", status(404), failure.HTTP404, "path"},
		{"HTTP 429", status(429), failure.HTTP429, "429"},
		{"HTTP 503", status(503), failure.HTTP503, "503"},
		{"CONNACK 1", connack(1), failure.ConnackVersion, "CONNACK 1"},
		{"CONNACK 2", connack(2), failure.ConnackIdentifier, "client id"},
		{"CONNACK 3", connack(3), failure.ConnackUnavailable, "not available"},
		{"CONNACK 4", connack(4), failure.ConnackPassword, "password"},
		{"CONNACK 5", connack(5), failure.ConnackNotAuthorized, "authorise"},
		{"CONNACK 9", connack(9), failure.ConnackUnknown, "code 9"},
		{"closed before CONNACK", func(t *testing.T, _ *cloudsim.Cloud, cfg *Config) { cfg.Target.URL.Host = hangsUp(t) },
			failure.ClosedByCloud, "closed the connection"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic})
			cfg := base(c.WSURL())
			cfg.Retry = governor.NewRetries(once)()
			tc.do(t, c, &cfg)
			r := start(t, cfg)
			r.w.Connected(mqtt.Connect{Clean: true})
			f := r.failure()
			if f.Kind != tc.kind || !strings.Contains(f.Error()+f.Info().Remedy, tc.says) {
				t.Errorf("kind %s: %v; want %s, %q", f.Kind, f, tc.kind, tc.says)
			}
			r.inState(Waiting)
			if st := r.w.Status(); !strings.Contains(st.Reason+st.Last.Info().Remedy, tc.says) {
				t.Errorf("waiting because of %q", st.Reason)
			}
			refused := r.logs.FilterMessage("the cloud refused the login").Len()
			other := r.logs.FilterMessage("no session with the cloud").Len()
			if refused+other != 1 || (refused == 1) != (f.Class() == failure.ClassRejected) {
				t.Errorf("logged as refused %d times, as failed %d times", refused, other)
			}
			logged := r.logs.FilterField(zap.String("kind", string(tc.kind))).FilterField(zap.String("reason", f.Reason()))
			if logged = logged.FilterField(zap.String("remedy", f.Info().Remedy)); logged.Len() != 1 {
				t.Errorf("logged with its kind and remedy %d times", logged.Len())
			}
		})
	}
}

func wss(c *cloudsim.Cloud, cfg *Config, conf transport.TLS) {
	cfg.Target.URL, cfg.Dialer = base(c.WSSURL()).Target.URL, dialer(conf)
}

func trusting(t *testing.T, c *cloudsim.Cloud) transport.TLS {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := c.CA().WriteFile(file); err != nil {
		t.Fatal(err)
	}
	return transport.TLS{CAFile: file}
}

// expired is a cloud whose certificate has expired.
func expired(t *testing.T) *cloudsim.Cloud {
	t.Helper()
	ca, err := cloudsim.NewCA("plant")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.IssueServer(time.Now().Add(-time.Minute), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return simulate(t, cloudsim.Options{Kind: cloudsim.Generic, CA: ca, ServerCert: &cert})
}

// hangsUp serves WebSocket connections that end with the first message. It returns its address.
func hangsUp(t *testing.T) string {
	t.Helper()
	upgrader := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("upgrade: %v", err)
			return
		}
		_, _, _ = ws.ReadMessage() // whatever it is
		_ = ws.Close()
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func status(code int) func(*testing.T, *cloudsim.Cloud, *Config) {
	return func(t *testing.T, c *cloudsim.Cloud, _ *Config) {
		if err := c.AnswerUpgrade(code, -1); err != nil {
			t.Fatal(err)
		}
	}
}

func connack(code byte) func(*testing.T, *cloudsim.Cloud, *Config) {
	return func(_ *testing.T, c *cloudsim.Cloud, _ *Config) { c.RefuseLogins("dev", code) }
}

// When the next attempt comes is what the table of failures says, for each kind of failure.
func TestDelays(t *testing.T) {
	for _, k := range failure.Kinds() {
		p := governor.DefaultPolicies()[classOf(failure.New(k, failure.StageConfig, nil, ""))]
		fits := true
		switch k.Info().Delay {
		case failure.DelayBackoff:
			fits = p.Floor <= 5*time.Second && p.First <= 5*time.Second
		case failure.DelayLater, failure.DelaySlow:
			fits = p.Floor >= 15*time.Second && !p.Nudge
		}
		if !fits {
			t.Errorf("%s: delay %q, and yet %+v", k, k.Info().Delay, p)
		}
	}
}

// What a device publishes has the next attempt come soon, also after the clock was set while it waited, which is of no
// interest to a failure of the network.
func TestNudgeAfterTheClockChanged(t *testing.T) {
	cfg := base("ws://127.0.0.1:1")
	cfg.Retry = governor.NewRetries(governor.RetryConfig{
		Policies:   policies(governor.Policy{Floor: time.Hour, First: time.Second, Max: time.Second, Nudge: true}),
		NudgeAfter: time.Millisecond,
	})()
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	until(t, "it waits", r.w.resting.Load)
	NewKeeper([]*Worker{r.w}).ClockChanged()
	r.offer("t", "x", 1, 1)
	until(t, "another attempt", func() bool {
		return r.logs.FilterField(zap.String("kind", string(failure.Refused))).Len() > 1
	})
}

// A server that says when to come back is not asked before.
func TestRetryAfter(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(srv.Close)
	r := start(t, base("ws://"+srv.Listener.Addr().String()))
	r.w.Connected(mqtt.Connect{Clean: true})
	if f := r.failure(); f.Kind != failure.HTTP503 {
		t.Errorf("kind %s", f.Kind)
	}
	r.inState(Waiting)
	r.offer("t", "x", 1, 1) // no reason to be earlier
	r.w.mu.Lock()
	wait, _ := r.w.retry.Next(time.Now())
	r.w.mu.Unlock()
	if wait < 9*time.Minute {
		t.Errorf("waits %s", wait)
	}
}

// A device that publishes waits for no lock of its worker while that is online.
func TestOfferWithoutLock(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{Clean: true})
	r.inState(Online)
	r.w.mu.Lock()
	offered := make(chan struct{})
	go func() {
		defer close(offered)
		r.w.Offer(mqtt.Message{Topic: "t", QoS: 1}, r.dev, 1)
	}()
	select {
	case <-offered:
	case <-time.After(patience):
		t.Error("it waits")
	}
	r.w.mu.Unlock()
	<-offered
}

// What is not MQTT ends the session as a protocol error; it does not end the process.
func TestGarbageFromTheCloud(t *testing.T) {
	for name, tc := range map[string]struct {
		bytes  string
		framed bool
	}{
		"no frame":       {"HTTP/1.1 400 Bad Request\r\n\r\n", false},
		"bad length":     {"\x30\xff\xff\xff\xff\xff", true},
		"too large":      {"\x40\xff\xff\xff\x7f", true},
		"type 0":         {"\x00\x00", true},
		"CONNECT":        {"\x10\x00", true},
		"QoS 3":          {"\x36\x05\x00\x01a\x00\x01", true},
		"no identifier":  {"\x32\x05\x00\x01a\x00\x00", true},
		"wildcard topic": {"\x30\x03\x00\x01#", true},
		"short topic":    {"\x30\x03\x00\x09a", true},
		"short PUBACK":   {"\x40\x01\x00", true},
	} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			cfg := base(c.WSURL())
			cfg.Retry = governor.NewRetries(once)()
			r := start(t, cfg)
			r.w.Connected(mqtt.Connect{Clean: true})
			r.inState(Online)
			if n := c.SendBytes("dev", []byte(tc.bytes), tc.framed); n != 1 {
				t.Fatalf("sent to %d", n)
			}
			if f := r.failure(); f.Kind != failure.ProtocolError {
				t.Errorf("kind %s: %v", f.Kind, f)
			}
		})
	}
}
