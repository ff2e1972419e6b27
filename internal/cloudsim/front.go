package cloudsim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// front is one of the two listeners with its HTTP server.
type front struct {
	cloud  *Cloud
	addr   string // with the port, once it was bound
	secure *tls.Config
	srv    *http.Server // nil while down
}

// reopenFor is how long Up tries to get the port back: a connection that took it as its own local port is gone soon.
const reopenFor = 3 * time.Second

// listen makes and opens the listeners.
func (c *Cloud) listen() error {
	c.life.Lock()
	defer c.life.Unlock()
	if !c.opts.NoWS {
		c.fronts = append(c.fronts, &front{cloud: c, addr: c.opts.Addr})
	}
	if !c.opts.NoWSS {
		conf, err := c.serverTLS()
		if err != nil {
			return err
		}
		c.fronts = append(c.fronts, &front{cloud: c, addr: c.opts.TLSAddr, secure: conf})
	}
	for _, f := range c.fronts {
		if err := f.open(0); err != nil {
			return err
		}
	}
	return nil
}

// WSURL is the address of the unencrypted listener with the first of Options.Paths, "" if there is none.
func (c *Cloud) WSURL() string { return c.url("ws", false) }

// WSSURL is the address of the TLS listener with the first of Options.Paths, "" if there is none.
func (c *Cloud) WSSURL() string { return c.url("wss", true) }

func (c *Cloud) url(scheme string, secure bool) string {
	for _, f := range c.fronts { // not changed after New
		if (f.secure != nil) == secure {
			return scheme + "://" + f.addr + c.opts.Paths[0]
		}
	}
	return ""
}

// open binds, trying for a while, and serves. The caller holds c.life.
func (f *front) open(patience time.Duration) error {
	l, err := net.Listen("tcp", f.addr)
	for start := time.Now(); err != nil && time.Since(start) < patience; {
		<-time.After(20 * time.Millisecond)
		l, err = net.Listen("tcp", f.addr)
	}
	if err != nil {
		return fmt.Errorf("cloudsim: %w", err)
	}
	f.addr = l.Addr().String()
	if f.secure != nil {
		l = tls.NewListener(l, f.secure)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	f.srv = &http.Server{
		Handler:           f,
		ReadHeaderTimeout: handshakeTimeout,
		Protocols:         &protocols,
		ConnState:         connCounter(&f.cloud.wg),
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	srv := f.srv
	f.cloud.wg.Go(func() { _ = srv.Serve(l) }) // always ErrServerClosed: closing is how it ends
	return nil
}

// connCounter has wg count the goroutines that the HTTP server starts, one for each connection. It is told of a new
// connection before the goroutine starts, and of the end as the goroutine's last act or when the connection is
// hijacked, from where on the handler counts.
func connCounter(wg *sync.WaitGroup) func(net.Conn, http.ConnState) {
	return func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			wg.Add(1)
		case http.StateHijacked, http.StateClosed:
			wg.Done()
		}
	}
}

// shut closes the listeners and all connections. The caller holds c.life and has changed c.state.
func (c *Cloud) shut() {
	for _, f := range c.fronts {
		if f.srv != nil {
			_ = f.srv.Close() // nothing to be done about it
			f.srv = nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for cn := range c.conns {
		c.endLocked(cn, EndDown, CutClose)
	}
}

// ServeHTTP upgrades to WebSocket and leaves the connection to a goroutine of its own, so that the HTTP server's
// buffers are freed.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := f.cloud
	c.wg.Add(1) // the HTTP server's own count ends with the hijacking
	defer c.wg.Done()
	if !c.holdRequest(r.Context()) {
		return
	}
	if status, reason := c.refuseUpgrade(r); status != 0 {
		c.mu.Lock()
		c.loginFailedLocked(LoginFailure{Status: status, Reason: reason, Secure: f.secure != nil})
		c.mu.Unlock()
		http.Error(w, reason, status)
		return
	}
	var header http.Header
	if c.opts.Date != nil {
		header = http.Header{"Date": {c.opts.Date().UTC().Format(http.TimeFormat)}}
	}
	ws, err := upgrader.Upgrade(w, r, header)
	if err != nil { // answered by Upgrade
		c.mu.Lock()
		defer c.mu.Unlock()
		c.loginFailedLocked(LoginFailure{Status: http.StatusBadRequest, Reason: err.Error(), Secure: f.secure != nil})
		return
	}
	cn := newConn(c, ws, clientCert(r))
	cn.secure = f.secure != nil
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateUp {
		cn.close(CutClose)
		return
	}
	c.rec.totals.Upgrades++
	c.conns[cn] = struct{}{}
	c.wg.Go(cn.serve)
}

const (
	handshakeTimeout = 10 * time.Second
	subprotocol      = "mqtt"
)

// Small buffers, and write buffers only while writing: there may be thousands of connections.
var upgrader = websocket.Upgrader{
	HandshakeTimeout: handshakeTimeout,
	ReadBufferSize:   1024,
	WriteBufferSize:  4096,
	WriteBufferPool:  &sync.Pool{},
	Subprotocols:     []string{subprotocol},
	CheckOrigin:      func(*http.Request) bool { return true },
}

// refuseUpgrade returns the HTTP status to answer with, 0 to go on.
func (c *Cloud) refuseUpgrade(r *http.Request) (status int, reason string) {
	c.mu.Lock()
	status = c.faults.nextUpgradeLocked()
	c.mu.Unlock()
	if status != 0 {
		return status, "fault: " + http.StatusText(status)
	}
	if !slices.Contains(c.opts.Paths, r.URL.Path) {
		return http.StatusNotFound, "no such path: " + r.URL.Path
	}
	if c.opts.CheckUpgrade != nil {
		if status = c.opts.CheckUpgrade(r); status != 0 {
			return status, "refused by CheckUpgrade"
		}
	}
	if websocket.IsWebSocketUpgrade(r) && !slices.Contains(websocket.Subprotocols(r), subprotocol) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.violationLocked("", "", RuleProtocol, "upgrade without subprotocol mqtt (MQTT 3.1.1, 6)")
		return http.StatusBadRequest, "subprotocol mqtt is missing"
	}
	return 0, ""
}

func clientCert(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	return r.TLS.PeerCertificates[0]
}

// holdRequest waits while upgrades stall, and reports whether the request is still there.
func (c *Cloud) holdRequest(ctx context.Context) bool {
	return c.holdWhile(ctx.Done(), func() bool { return c.faults.stallUpgrade })
}
