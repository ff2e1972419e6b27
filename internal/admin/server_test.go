package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// serve answers over HTTP until the test ends, or stop is called.
func serve(t *testing.T, a *Admin, g *Guard) (url string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- a.Serve(ctx, l, g) }()
	go func() { a.Run(ctx); ended <- nil }()
	stop = func() {
		if cancel == nil {
			return
		}
		cancel()
		cancel = nil
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return "http://" + l.Addr().String(), stop
}

// The end comes soon, whoever still listens.
func TestServeEnds(t *testing.T) {
	f := fleet(1)
	url, stop := serve(t, newAdmin(f), new(Guard))
	l := listen(t, url+"/api/v1/events?device=dev-0")
	if name, _ := l.next(t); name != "status" {
		t.Error(name)
	}
	began := time.Now()
	stop()
	if d := time.Since(began); d > patience/2 {
		t.Errorf("the end took %s", d)
	}
	for l.lines.Scan() { // what was on its way
	}
	if err := l.lines.Err(); err != nil {
		t.Error(err)
	}
}

// Events come by themselves while the server runs, and profiles can be had if they are turned on.
func TestServe(t *testing.T) {
	f := fleet(1)
	a := New(Options{Source: f, PProf: true, Log: zap.NewNop(), Page: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "the page at %s", r.URL.Path) })})
	url, _ := serve(t, a, new(Guard))
	l := listen(t, url+"/api/v1/events")
	l.next(t)
	f.change(0, relay(1, 0))
	if c := l.changed(t); len(c.Changed) != 1 {
		t.Errorf("%+v", c)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]string{
		"/": "the page at /", "/app.js": "the page at /app.js", "/debug/pprof/": "",
	} {
		resp, err := c.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || want != "" && string(body) != want {
			t.Errorf("%s: %s, %v, %s", path, resp.Status, err, body)
		}
	}
}

// pipes is a listener on which connections are made without a network.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A stream lasts as long as its reader wants, whatever time other requests have.
func TestStreamLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		a := newAdmin(fleet(1))
		ended := make(chan error, 1)
		go func() { ended <- a.Serve(ctx, p, new(Guard)) }()
		go a.Run(ctx)
		here, there := net.Pipe()
		p.conns <- there
		go func() { _, _ = io.WriteString(here, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n") }()
		began := time.Now()
		for lines := bufio.NewScanner(here); time.Since(began) < 10*time.Minute; {
			if !lines.Scan() {
				t.Fatalf("the stream ended after %s: %v", time.Since(began), lines.Err())
			}
		}
		_ = here.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
