package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridged/internal/failure"
	"bridged/internal/netconn"
)

// opened dials a server that does something once the WebSocket connection is there.
func opened(t *testing.T, o Options, then func(ws *websocket.Conn)) (*websocket.Conn, *netconn.Conn) {
	t.Helper()
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ws, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("upgrade: %v", err)
			return
		}
		then(ws)
		_ = ws.Close() // it may be closed
	}, nil)
	ws, nc, err := newDialer(t, o).Dial(limited(t), Target{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = nc.Close() // it may be closed
		nc.Wait()
	})
	return ws, nc
}

func TestReadFailure(t *testing.T) {
	hold := func(ws *websocket.Conn) { _, _, _ = ws.ReadMessage() }
	for name, tc := range map[string]struct {
		server func(*websocket.Conn)
		client func(*websocket.Conn, *netconn.Conn)
		kind   failure.Kind
		says   string
	}{
		"closed": {func(*websocket.Conn) {}, nil, failure.ClosedByCloud, "without a word"},
		"reset": {func(ws *websocket.Conn) {
			_ = ws.NetConn().(*net.TCPConn).SetLinger(0) // the test notices
		}, nil, failure.ConnectionLost, "reset"},
		"silent": {hold, func(_ *websocket.Conn, nc *netconn.Conn) {
			_ = nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // the test notices
		}, failure.NoAnswer, ""},
		"does not read": {nil, nil, failure.SlowReader, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server, o := tc.server, Options{}
			if tc.kind == failure.SlowReader {
				stop := make(chan struct{})
				t.Cleanup(func() { close(stop) })
				server = func(*websocket.Conn) { <-stop }
				o.Stall = 200 * time.Millisecond
				tc.client = func(ws *websocket.Conn, _ *netconn.Conn) {
					_ = ws.WriteMessage(websocket.BinaryMessage, make([]byte, 16<<20)) // the test notices
				}
			}
			ws, nc := opened(t, o, server)
			if tc.client != nil {
				tc.client(ws, nc)
			}
			_, err := ws.NetConn().Read(make([]byte, 1))
			if err == nil {
				t.Fatal("read something")
			}
			f := ReadFailure(failure.StageOnline, err, nc)
			if f.Kind != tc.kind || f.Stage != failure.StageOnline {
				t.Errorf("%s: %v; want %s", f.Kind, f, tc.kind)
			}
			says(t, outcome{f}, tc.says)
			checkText(t, f)
			saw(f.Kind)
		})
	}
}

func TestReadFailureCloseFrame(t *testing.T) {
	_, nc := opened(t, Options{}, func(*websocket.Conn) {})
	for _, tc := range []struct {
		code int
		text string
		kind failure.Kind
		says string
	}{
		{1001, "bye\r\n", failure.ClosedByCloud, "1001 (bye)"},
		{1000, "", failure.ClosedByCloud, "1000"},
		{1005, "", failure.ClosedByCloud, "1005"},
		{1013, "", failure.CloudBusy, "1013"},
		{1002, "no", failure.ProtocolError, "1002 (no)"},
	} {
		f := ReadFailure(failure.StageOnline, &websocket.CloseError{Code: tc.code, Text: tc.text}, nc)
		if f.Kind != tc.kind || f.Stage != failure.StageOnline {
			t.Errorf("%s: %v; want %s", f.Kind, f, tc.kind)
		}
		says(t, outcome{f}, tc.says)
		checkText(t, f)
		saw(f.Kind)
	}
}

// What the server thinks of a client certificate may come with the first read only (TLS 1.3).
func TestReadFailureTLS(t *testing.T) {
	ca := newAuthority(t, "plant")
	_, nc := opened(t, Options{}, func(*websocket.Conn) {})
	for name, tc := range map[string]struct {
		pair bool
		kind failure.Kind
	}{"none": {false, failure.TLSClientCertRequired}, "stranger": {true, failure.TLSClientCertRefused}} {
		t.Run(name, func(t *testing.T) {
			conf := ca.conf(nil)
			conf.ClientAuth, conf.ClientCAs, conf.MinVersion = tls.RequireAndVerifyClientCert, ca.pool(), tls.VersionTLS13
			host := raw(t, func(c net.Conn) { _ = tls.Server(c, conf).HandshakeContext(context.Background()) })
			client := &tls.Config{RootCAs: ca.pool(), ServerName: "cloud.test"}
			if tc.pair {
				certFile, keyFile := newAuthority(t, "stranger").client("dev")
				client.Certificates = []tls.Certificate{*loadPair(t, certFile, keyFile, nil).current()}
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					return &client.Certificates[0], nil // also to an authority that it is not from
				}
			}
			c, err := (&tls.Dialer{Config: client}).DialContext(limited(t), "tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			_, alert := c.Read(make([]byte, 1))
			_ = c.Close() // it was refused
			f := ReadFailure(failure.StageConnect, alert, nc)
			if f.Kind != tc.kind || f.Stage != failure.StageConnect {
				t.Errorf("%s: %v", f.Kind, f)
			}
		})
	}
}

// Other alerts come in the middle of a connection.
func TestReadFailureAlert(t *testing.T) {
	ca := newAuthority(t, "plant")
	u := serve(t, echo("mqtt"), ca.conf(nil))
	ws, nc, err := newDialer(t, Options{TLS: TLS{CAFile: ca.file}}).Dial(limited(t), Target{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write([]byte("\x17\x03\x03\x00\x20" + strings.Repeat("?", 32))); err != nil { // below TLS
		t.Fatal(err)
	}
	_, err = ws.NetConn().Read(make([]byte, 1))
	f := ReadFailure(failure.StageOnline, err, nc)
	if _, ok := remoteAlert(f); !ok || f.Kind != failure.ProtocolError {
		t.Errorf("%s: %v", f.Kind, f)
	}
	_ = nc.Close() // it is broken
	nc.Wait()
}

func TestReadFailureKeepsAFailure(t *testing.T) {
	_, nc := opened(t, Options{}, func(*websocket.Conn) {})
	want := failure.New(failure.ProtocolError, failure.StageOnline, nil, "QoS 3")
	if got := ReadFailure(failure.StageConnect, errors.Join(want), nc); got != want {
		t.Errorf("%v", got)
	}
}
