package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"bridged/internal/failure"
)

// patience is how long a state may take to come. It only matters when a test fails.
const patience = 20 * time.Second

// secret is the password that tests use everywhere. No error may hold it.
const secret = "hunter2-hunter2"

// suite checks, after a run of all tests, that each kind of failure has been produced that this package can yield.
type suite struct{ m *testing.M }

// never are kinds that this package does not yield, or not by itself.
var never = []failure.Kind{
	failure.KeepaliveLost, failure.Stalled, failure.TLSClientCertUnusable, failure.ConnackVersion,
	failure.ConnackIdentifier, failure.ConnackUnavailable, failure.ConnackPassword, failure.ConnackNotAuthorized,
	failure.ConnackUnknown, failure.NoConnack, failure.SubackRefused, failure.TakenOver, failure.KickWar,
	failure.ClockWrong, failure.NoCredentials, failure.Other,
	failure.MessageRefused,
}

var produced = struct {
	mu    sync.Mutex
	kinds map[failure.Kind]bool
}{kinds: make(map[failure.Kind]bool)}

func (s suite) Run() int {
	code := s.m.Run()
	filtered := false
	flag.Visit(func(f *flag.Flag) { filtered = filtered || slices.Contains([]string{"test.run", "test.fuzz"}, f.Name) })
	if code != 0 || filtered || flag.Lookup("test.list").Value.String() != "" {
		return code
	}
	for _, k := range failure.Kinds() {
		if produced.kinds[k] == slices.Contains(never, k) {
			fmt.Fprintf(os.Stderr, "kind %s: produced %t\n", k, produced.kinds[k])
			code = 1
		}
	}
	return code
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(suite{m}) }

func saw(k failure.Kind) {
	produced.mu.Lock()
	defer produced.mu.Unlock()
	produced.kinds[k] = true
}

func newDialer(t testing.TB, o Options) *Dialer {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func limited(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// outcome is a failure that was expected. It is no error, so that tests need not look at it.
type outcome struct{ f *failure.Failure }

// fails dials and expects a failure of a kind.
func fails(t testing.TB, d *Dialer, target Target, kind failure.Kind, stage failure.Stage) outcome {
	t.Helper()
	return failsWith(limited(t), t, d, target, kind, stage)
}

func failsWith(ctx context.Context, t testing.TB, d *Dialer, target Target, kind failure.Kind,
	stage failure.Stage,
) outcome {
	t.Helper()
	ws, nc, err := d.Dial(ctx, target)
	if err == nil {
		_ = nc.Close() // the test fails
		t.Fatalf("connected; want %s", kind)
	}
	var f *failure.Failure
	if !errors.As(err, &f) || ws != nil || nc != nil {
		t.Fatalf("%T: %v, with a connection: %t", err, err, nc != nil)
	}
	if f.Kind != kind || f.Stage != stage {
		t.Errorf("%s in stage %s: %v; want %s in stage %s", f.Kind, f.Stage, f, kind, stage)
	}
	checkText(t, f)
	saw(f.Kind)
	return outcome{f}
}

// checkText looks for what must not be in a failure's text.
func checkText(t testing.TB, f *failure.Failure) {
	t.Helper()
	for _, s := range []string{f.Error(), fmt.Sprintf("%+v %#v", f, f), f.Reason()} {
		if strings.Contains(s, secret) || strings.Contains(f.Error(), "\n") {
			t.Errorf("%q shows a secret, or has more than one line", s)
		}
	}
}

// says expects a text in a failure.
func says(t testing.TB, o outcome, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(o.f.Error(), text) {
			t.Errorf("%q does not say %q", o.f.Error(), text)
		}
	}
}

// connects dials, has a message echoed, and hangs up.
func connects(t testing.TB, d *Dialer, target Target) {
	t.Helper()
	ws, nc, err := d.Dial(limited(t), target)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = nc.Close() // the test is about dialling
		nc.Wait()
	}()
	if err := nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := ws.ReadMessage(); err != nil || string(got) != "hello" {
		t.Fatalf("echoed %q, %v", got, err)
	}
}

// brief makes stages short in which nothing is to be awaited. All others have their time: the machine may be busy.
func brief(kind failure.Kind) Timeouts {
	switch kind {
	case failure.NoAnswer, failure.ProxyNoAnswer, failure.Timeout, failure.DNSTimeout, failure.ProxyUnreachable:
		return Timeouts{DNS: briefly, TCP: briefly, Proxy: briefly, TLS: briefly, Upgrade: briefly}
	}
	return Timeouts{}
}

const briefly = 300 * time.Millisecond

// listen returns a listener on loopback that closes with the test.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// serve runs an HTTP server, with TLS if there is a configuration, and returns its URL, ws or wss.
func serve(t testing.TB, h http.HandlerFunc, conf *tls.Config) *url.URL {
	t.Helper()
	l := listen(t)
	u := &url.URL{Scheme: "ws", Host: l.Addr().String(), Path: "/mqtt"}
	if conf != nil {
		u.Scheme = "wss"
		l = tls.NewListener(l, conf)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: patience, ErrorLog: quiet}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		_ = srv.Close()
		wg.Wait()
	})
	return u
}

// echo speaks WebSocket and sends back what it gets.
func echo(protocols ...string) http.HandlerFunc {
	up := websocket.Upgrader{Subprotocols: protocols}
	return func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = ws.Close() }()
		for {
			kind, p, err := ws.ReadMessage()
			if err != nil || ws.WriteMessage(kind, p) != nil {
				return
			}
		}
	}
}

// raw serves connections by a function, one at a time, and returns the address.
func raw(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	l := listen(t)
	accept(t, l, f)
	return l.Addr().String()
}

func accept(t testing.TB, l net.Listener, f func(net.Conn)) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
}

// silent takes connections and says nothing until the peer hangs up.
func silent(c net.Conn) {
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// answer reads something and sends a text.
func answers(text string) func(net.Conn) {
	return func(c net.Conn) {
		buf := make([]byte, 4096)
		if _, err := c.Read(buf); err != nil {
			return
		}
		_, _ = c.Write([]byte(text)) // the peer may be gone
	}
}

func at(scheme, host string) Target {
	return Target{URL: &url.URL{Scheme: scheme, Host: host, Path: "/"}}
}
