package netconn

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

var options = Options{Limit: 4 << 20, Stall: time.Minute}

// TestTLS runs TLS over a Conn on both sides, with much data in both directions at once.
func TestTLS(t *testing.T) {
	server, client := connPair(t)
	cert, pool := certificate(t)
	s := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	c := tls.Client(client, &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12})

	const total = 2 << 20
	sent := make(chan error, 2)
	for _, side := range []struct {
		conn *tls.Conn
		nc   *Conn
	}{{s, server}, {c, client}} {
		go func() { sent <- stream(side.conn, side.nc, total) }()
	}
	received := make(chan struct{})
	go func() {
		defer close(received)
		expectAll(t, s, total)
	}()
	expectAll(t, c, total)
	within(t, "both directions", func() {
		<-received
		if err := errors.Join(<-sent, <-sent); err != nil {
			t.Error(err)
		}
	})

	// Closing says goodbye, which the other side takes for a clean end.
	within(t, "Close", func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("Read after the other side's Close: %v", err)
		}
	})
}

// TestTLSStuck closes a TLS connection whose peer does not read.
func TestTLSStuck(t *testing.T) {
	server, client := connPair(t)
	cert, pool := certificate(t)
	s := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	c := tls.Client(client, &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12})
	handshake := make(chan error, 1)
	go func() { handshake <- c.Handshake() }()
	if err := errors.Join(s.Handshake(), <-handshake); err != nil {
		t.Fatal(err)
	}
	within(t, "Write reaches the limit", func() {
		for {
			if _, err := s.Write(make([]byte, 10_000)); err != nil {
				if !errors.Is(err, ErrSlow) {
					t.Errorf("Write: %v", err)
				}
				return
			}
		}
	})
	within(t, "Close", func() { _ = s.Close() }) // the goodbye cannot be written any more
	within(t, "Wait", server.Wait)
}

// stream writes the test stream over a layer, waiting while much is pending.
func stream(w io.Writer, nc *Conn, total int) error {
	drained := make(chan struct{}, 1)
	nc.OnDrain(func() {
		select {
		case drained <- struct{}{}:
		default:
		}
	})
	src, buf := newStream(), make([]byte, 20_000)
	for total > 0 {
		for nc.Pending() > 100_000 {
			<-drained
		}
		p := buf[:min(total, len(buf))]
		if _, err := io.ReadFull(src, p); err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		total -= len(p)
	}
	return nil
}

// expectAll is expect for a goroutine of its own.
func expectAll(t *testing.T, r io.Reader, n int) {
	want, got := newStream(), make([]byte, 8192)
	buf := make([]byte, len(got))
	for n > 0 {
		m, err := r.Read(got[:min(n, len(got))])
		if err != nil {
			t.Errorf("%d bytes before the end: %v", n, err)
			return
		}
		if _, err := io.ReadFull(want, buf[:m]); err != nil || !bytes.Equal(got[:m], buf[:m]) {
			t.Errorf("%d bytes before the end: what arrived is not what was sent (%v)", n, err)
			return
		}
		n -= m
	}
}

// connPair connects two Conns.
func connPair(t *testing.T) (server, client *Conn) {
	t.Helper()
	server, peer := pair(t, options, small)
	return server, wrap(t, peer, options)
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// wrappingListener accepts Conns.
type wrappingListener struct{ *net.TCPListener }

func (l wrappingListener) Accept() (net.Conn, error) {
	tcp, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return New(tcp, options)
}

// TestWebSocket runs gorilla's WebSocket over a Conn on both sides: an echo of messages of many sizes, pings beside
// them, and a clean close.
func TestWebSocket(t *testing.T) {
	ln := listen(t, small)
	served := make(chan error, 1)
	server := &http.Server{
		ReadHeaderTimeout: patience,
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { served <- echo(w, r) }),
	}
	end := make(chan error, 1)
	go func() { end <- server.Serve(wrappingListener{ln}) }()
	defer func() {
		_ = server.Close()
		if err := <-end; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	}()

	var nc *Conn
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{Control: sockets(small)}
		tcp, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		nc = wrap(t, tcp.(*net.TCPConn), options)
		return nc, nil
	}}
	ws, resp, err := dialer.DialContext(t.Context(), "ws://"+ln.Addr().String()+"/mqtt", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // empty
	pongs := 0
	ws.SetPongHandler(func(string) error { pongs++; return nil })

	src := newStream()
	var sent [][]byte
	for i := range 60 {
		p := make([]byte, i*i*20)
		if _, err := io.ReadFull(src, p); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, p)
		if err := ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
			t.Fatal(err)
		}
		if err := ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	within(t, "the echo", func() {
		for i, want := range sent {
			if _, got, err := ws.ReadMessage(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("message %d: %d bytes, want %d (%v)", i, len(got), len(want), err)
				return
			}
		}
	})
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if err := ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(patience)); err != nil {
		t.Error(err)
	}
	within(t, "the end", func() {
		if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			t.Errorf("ReadMessage: %v, want a close frame", err)
		}
		if err := <-served; !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			t.Errorf("the server: %v", err)
		}
	})
	if pongs != len(sent) {
		t.Errorf("%d pongs, want %d", pongs, len(sent))
	}
}

func echo(w http.ResponseWriter, r *http.Request) error {
	var upgrader websocket.Upgrader
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return err
	}
	nc := ws.NetConn().(*Conn)
	defer func() {
		nc.Drain(patience)
		_ = ws.Close()
		nc.Wait()
	}()
	for {
		kind, p, err := ws.ReadMessage()
		if err != nil {
			return err
		}
		if err := ws.WriteMessage(kind, p); err != nil {
			return err
		}
	}
}
