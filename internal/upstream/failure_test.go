package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridged/internal/cloudsim"
	"bridged/internal/mqtt"
)

// Each failure is made for real and told apart.
func TestFailures(t *testing.T) {
	type setup func(t *testing.T, c *cloudsim.Cloud, cfg *Config)
	trusted := func(c *cloudsim.Cloud) *tls.Config { return &tls.Config{RootCAs: c.CA().Pool()} }
	cases := []struct {
		name  string
		do    setup
		class Class
		says  string
	}{
		{"refused port", func(t *testing.T, _ *cloudsim.Cloud, cfg *Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			cfg.URL.Host = l.Addr().String()
			_ = l.Close()
		}, ClassNetwork, "cannot be reached"},
		{"unknown name", func(_ *testing.T, _ *cloudsim.Cloud, cfg *Config) { cfg.URL.Host = "no-such-host.invalid" },
			ClassNetwork, "cannot be resolved"},
		{"unknown authority", func(_ *testing.T, c *cloudsim.Cloud, cfg *Config) {
			wss(c, cfg, &tls.Config{RootCAs: x509.NewCertPool()})
		},
			ClassTLS, "ca_file"},
		{"wrong name", func(_ *testing.T, c *cloudsim.Cloud, cfg *Config) {
			conf := trusted(c)
			conf.ServerName = "elsewhere.example"
			wss(c, cfg, conf)
		}, ClassTLS, "another name"},
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
			cfg.URL.Host = l.Addr().String()
		}, ClassNetwork, "during the handshake"},
		{"wss to a ws port", func(_ *testing.T, c *cloudsim.Cloud, cfg *Config) {
			cfg.URL.Scheme, cfg.TLS = "wss", trusted(c)
		}, ClassTLS, "does not speak TLS"},
		{"client certificate missing", func(t *testing.T, _ *cloudsim.Cloud, cfg *Config) {
			c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, ClientCerts: cloudsim.CertsRequired})
			wss(c, cfg, trusted(c))
		}, ClassTLS, "client certificate"},
		{"HTTP 401", status(401), ClassRejected, "401"},
		{"HTTP 403", status(403), ClassRejected, "403"},
		{"HTTP 404", status(404), ClassProtocol, "path"},
		{"HTTP 429", status(429), ClassThrottled, "429"},
		{"HTTP 503", status(503), ClassThrottled, "503"},
		{"CONNACK 1", connack(1), ClassProtocol, "CONNACK 1"},
		{"CONNACK 2", connack(2), ClassRejected, "client id"},
		{"CONNACK 3", connack(3), ClassThrottled, "not available"},
		{"CONNACK 4", connack(4), ClassRejected, "password"},
		{"CONNACK 5", connack(5), ClassRejected, "authorise"},
		{"closed before CONNACK", func(t *testing.T, _ *cloudsim.Cloud, cfg *Config) { cfg.URL.Host = hangsUp(t) },
			ClassNetwork, "closed the connection"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic})
			cfg := base(c.WSURL())
			cfg.Backoff.RejectedMin = time.Hour // one attempt is enough
			cfg.Backoff.Min, cfg.Backoff.Max = time.Hour, time.Hour
			tc.do(t, c, &cfg)
			r := start(t, cfg)
			r.w.Connected(mqtt.Connect{Clean: true})
			f := r.failure()
			if f.Class != tc.class || !strings.Contains(f.Error(), tc.says) {
				t.Errorf("class %s: %v; want %s, %q", f.Class, f, tc.class, tc.says)
			}
			r.inState(Waiting)
			if st := r.w.Status(); !strings.Contains(st.Reason, tc.says) {
				t.Errorf("waiting because of %q", st.Reason)
			}
			refused := r.logs.FilterMessage("the cloud refused the login").Len()
			other := r.logs.FilterMessage("no session with the cloud").Len()
			if refused+other != 1 || (refused == 1) != (tc.class == ClassRejected) {
				t.Errorf("logged as refused %d times, as failed %d times", refused, other)
			}
		})
	}
}

func wss(c *cloudsim.Cloud, cfg *Config, conf *tls.Config) {
	u := base(c.WSSURL())
	cfg.URL, cfg.TLS = u.URL, conf
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
			cfg.Backoff.Min, cfg.Backoff.Max = time.Hour, time.Hour
			r := start(t, cfg)
			r.w.Connected(mqtt.Connect{Clean: true})
			r.inState(Online)
			if n := c.SendBytes("dev", []byte(tc.bytes), tc.framed); n != 1 {
				t.Fatalf("sent to %d", n)
			}
			if f := r.failure(); tc.framed && f.Class != ClassProtocol {
				t.Errorf("class %s: %v", f.Class, f)
			}
		})
	}
}
