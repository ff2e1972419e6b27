package transport

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
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

	"bridged/internal/failure"
)

const accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

func TestHTTPStatus(t *testing.T) {
	d := newDialer(t, Options{})
	for name, tc := range map[string]struct {
		status  int
		headers []string
		kind    failure.Kind
		says    string
		wait    time.Duration
	}{
		"200": {200, nil, failure.NotWebSocket, "HTTP 200 OK", 0},
		"302": {302, []string{"Location", "https://u:" + secret + "@portal.test/login?token=" + secret},
			failure.HTTPRedirect, "to https://portal.test/login", 0},
		"302 alone": {302, nil, failure.HTTPRedirect, "HTTP 302 Found", 0},
		"400":       {400, nil, failure.HTTPOther, "HTTP 400 Bad Request", 0},
		"401":       {401, []string{"WWW-Authenticate", `Bearer realm="x"`}, failure.HTTP401, "by Bearer", 0},
		"403":       {403, nil, failure.HTTP403, "403", 0},
		"404":       {404, nil, failure.HTTP404, "404", 0},
		"429":       {429, []string{"Retry-After", "120"}, failure.HTTP429, "429", 2 * time.Minute},
		"429 plain": {429, nil, failure.HTTP429, "429", 0},
		"429 long":  {429, []string{"Retry-After", "999999999"}, failure.HTTP429, "429", time.Hour},
		"429 past":  {429, []string{"Retry-After", "-1"}, failure.HTTP429, "429", 0},
		"429 junk":  {429, []string{"Retry-After", "soon"}, failure.HTTP429, "429", 0},
		"500":       {500, nil, failure.HTTP5xx, "500", 0},
		"502":       {502, nil, failure.HTTP5xx, "502", 0},
		"503": {503, []string{"Retry-After", "Mon, 02 Jan 2006 15:05:00 GMT", "Date", "Mon, 02 Jan 2006 15:04:00 GMT"},
			failure.HTTP503, "503", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				for i := 0; i < len(tc.headers); i += 2 {
					w.Header().Set(tc.headers[i], tc.headers[i+1])
				}
				w.WriteHeader(tc.status)
			}, nil)
			o := fails(t, d, Target{URL: u}, tc.kind, failure.StageUpgrade)
			says(t, o, tc.says)
			if o.f.RetryAfter != tc.wait {
				t.Errorf("retry after %s, want %s", o.f.RetryAfter, tc.wait)
			}
		})
	}
}

func TestNotWebSocket(t *testing.T) {
	ca := newAuthority(t, "plant")
	for name, tc := range map[string]struct {
		peer func(net.Conn)
		kind failure.Kind
		says string
	}{
		"closed":        {answers(""), failure.HungUp, ""},
		"silent":        {silent, failure.NoAnswer, ""},
		"SSH":           {answers("SSH-2.0-OpenSSH_9\r\n"), failure.NotWebSocket, `"SSH-2.0-OpenSSH_9"`},
		"MQTT":          {answers("\x20\x02\x00\x01"), failure.NotWebSocket, "no text"},
		"TLS alert":     {answers("\x15\x03\x01\x00\x02\x02\x46"), failure.NotWebSocket, "write wss://"},
		"half a reply":  {answers("HTTP/1.1 101 Switching"), failure.HungUp, ""},
		"half a header": {func(c net.Conn) { answers("HTTP/1.1 101 Sw\r\nUpgra")(c); silent(c) }, failure.NoAnswer, ""},
		"no accept":     {answers(accepted + "\r\n"), failure.NotWebSocket, "wrong"},
		"wrong accept":  {answers(accepted + "Sec-WebSocket-Accept: AAAA\r\n\r\n"), failure.NotWebSocket, "wrong"},
		"malformed":     {answers("HTTP/1.1 abc\r\n\r\n"), failure.NotWebSocket, `"HTTP/1.1 abc"`},
		"endless headers": {func(c net.Conn) {
			_, _ = c.Write([]byte(accepted)) // the loop notices
			for {
				if _, err := c.Write([]byte("X-More: and more and more and more and more\r\n")); err != nil {
					return
				}
			}
		}, failure.NotWebSocket, "does not end"},
		"dribble": {func(c net.Conn) {
			for _, b := range []byte(accepted + strings.Repeat("x", 1000)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				<-time.After(5 * time.Millisecond)
			}
		}, failure.NoAnswer, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDialer(t, Options{Timeouts: brief(tc.kind)})
			says(t, fails(t, d, at("ws", raw(t, tc.peer)), tc.kind, failure.StageUpgrade), tc.says)
		})
	}
	t.Run("wss port", func(t *testing.T) {
		u := serve(t, echo("mqtt"), ca.conf(nil))
		// Go's server answers with HTTP there, as nginx does
		fails(t, newDialer(t, Options{}), at("ws", u.Host), failure.HTTPOther, failure.StageUpgrade)
	})
}

// A page that does not end does not hide the status, and does not hold up for long.
func TestEndlessPage(t *testing.T) {
	host := raw(t, func(c net.Conn) {
		_, _ = c.Write([]byte("HTTP/1.1 404 Not Found\r\n\r\n<html>")) // silent notices
		silent(c)
	})
	d := newDialer(t, Options{Timeouts: Timeouts{Upgrade: briefly}})
	fails(t, d, at("ws", host), failure.HTTP404, failure.StageUpgrade)
}

func TestSubprotocol(t *testing.T) {
	d := newDialer(t, Options{})
	for name, protocols := range map[string][]string{"mqtt": {"mqtt"}, "none": nil} {
		tr := &Trace{}
		connects(t, d, Target{URL: serve(t, echo(protocols...), nil), Trace: tr})
		if noted := len(tr.Notes) > 0; noted != (protocols == nil) {
			t.Errorf("%s: notes %q", name, tr.Notes)
		}
	}
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ws, err := new(websocket.Upgrader).Upgrade(w, r, http.Header{"Sec-Websocket-Protocol": {"amqp"}})
		if err == nil {
			_ = ws.Close() // the client does so, too
		}
	}, nil)
	says(t, fails(t, d, Target{URL: u}, failure.Subprotocol, failure.StageUpgrade), `"amqp"`)
}

// What a server sends right behind its answer is read first afterwards, wherever the pieces end in which it comes.
func TestBehindTheAnswer(t *testing.T) {
	frame := strings.Repeat("\x82\x02\xd0\x00", 200)
	long := accepted + "X-Long: " + strings.Repeat("and more ", 200) + "\r\n"
	for name, header := range map[string]string{
		"short": accepted, "long": long, "without CR": strings.ReplaceAll(accepted, "\r\n", "\n"),
	} {
		for _, size := range []int{1, 7, 250, 1 << 20} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				here, there := net.Pipe()
				var wg sync.WaitGroup
				wg.Go(func() {
					req, err := http.ReadRequest(bufio.NewReader(there))
					if err != nil {
						t.Error(err)
						return
					}
					end := "\r\n"
					if !strings.Contains(header, "\r") {
						end = "\n"
					}
					b := []byte(header + "Sec-WebSocket-Accept: " + acceptKey(req) + end + end + frame)
					for piece := range slices.Chunk(b, size) {
						if _, err := there.Write(piece); err != nil {
							t.Error(err)
							return
						}
					}
					_ = there.Close()
				})
				a := &attempt{d: newDialer(t, Options{}), url: at("ws", "cloud.test").URL}
				ws, f := a.upgrade(limited(t), here, nil)
				if f != nil {
					t.Fatal(f)
				}
				if got, err := io.ReadAll(ws.NetConn()); err != nil || string(got) != frame {
					t.Errorf("%d bytes, %v; want %d", len(got), err, len(frame))
				}
				wg.Wait()
			})
		}
	}
}

// acceptKey is what a server answers to the key of a request (RFC 6455, 4.2.2).
func acceptKey(r *http.Request) string {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Other answers come as they are.
func TestRefusalIsWhole(t *testing.T) {
	const page = "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nlost\n"
	here, there := net.Pipe()
	go func() {
		_, _ = there.Write([]byte(page)) // the test notices
		_ = there.Close()
	}()
	tp := newTap(here, maxUpgradeReply)
	tp.upgrading = true
	if got, err := io.ReadAll(tp); err != nil || string(got) != page {
		t.Errorf("%q, %v", got, err)
	}
}

// After the handshake a tap hands out what is left, and passes errors on.
func TestOpenTap(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	tp := newTap(here, 0)
	tp.rest = []byte("ab")
	tp.open()
	if err := here.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ab", ""} {
		got, err := io.ReadAll(tp)
		if string(got) != want || !errors.Is(err, os.ErrDeadlineExceeded) || tp.readErr != nil {
			t.Errorf("%q, %v, remembered %v; want %q", got, err, tp.readErr, want)
		}
	}
}

// What is sent: the path, the query, the host without a default port, our headers.
func TestRequest(t *testing.T) {
	var got *http.Request
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		echo("mqtt")(w, r)
	}, nil)
	u.Path, u.RawQuery = "/a b/mqtt", "x=1"
	d := newDialer(t, Options{Header: http.Header{"x-tenant": {"a", "b"}, "Authorization": {"Bearer " + secret}}})
	connects(t, d, Target{URL: u})
	if got.RequestURI != "/a%20b/mqtt?x=1" || got.Host != u.Host || got.Header.Get("User-Agent") != "bridged" ||
		got.Header.Get("Sec-Websocket-Protocol") != "mqtt" || len(got.Header["X-Tenant"]) != 2 ||
		got.Header.Get("Authorization") != "Bearer "+secret || got.Header.Get("Sec-Websocket-Extensions") != "" {
		t.Errorf("%s %s %v", got.Host, got.RequestURI, got.Header)
	}
	own := newDialer(t, Options{Header: http.Header{"User-Agent": {"mine"}}})
	connects(t, own, Target{URL: u})
	if agent := got.Header.Values("User-Agent"); len(agent) != 1 || agent[0] != "mine" {
		t.Errorf("User-Agent: %q", agent)
	}
}

// The Host header has the port only if it is not the scheme's own.
func TestHostHeader(t *testing.T) {
	for raw, want := range map[string]string{
		"ws://cloud.test/": "cloud.test", "ws://cloud.test:80/": "cloud.test", "ws://cloud.test:443/": "cloud.test:443",
		"ws://[::1]:80/": "[::1]", "ws://[::1]:8080/": "[::1]:8080",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		host := make(chan string, 1)
		go func() {
			buf := make([]byte, 4096)
			n, _ := there.Read(buf)
			_, rest, _ := strings.Cut(string(buf[:n]), "\r\nHost: ")
			h, _, _ := strings.Cut(rest, "\r\n")
			host <- h
			_ = there.Close()
		}()
		a := &attempt{d: newDialer(t, Options{}), url: u}
		if _, f := a.upgrade(t.Context(), here, nil); f == nil || f.Kind != failure.HungUp {
			t.Errorf("%v", f)
		}
		if got := <-host; got != want {
			t.Errorf("%s: Host: %s, want %s", raw, got, want)
		}
	}
}

func TestCheckHeader(t *testing.T) {
	for _, bad := range [][2]string{
		{"Host", "x"}, {"host", "x"}, {"Upgrade", "x"}, {"Connection", "x"}, {"sec-websocket-key", "x"},
		{"Sec-WebSocket-Protocol", "mqtt"}, {"Content-Length", "1"}, {"Transfer-Encoding", "chunked"}, {"", "x"},
		{"X Y", "x"}, {"X\r\nY", "x"}, {"X", secret + "\r\nY: z"}, {"X", secret + "\x00"}, {"Proxy-Authorization", "x"},
	} {
		err := CheckHeader(bad[0], bad[1])
		if !errors.Is(err, errHeader) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", bad, err)
		}
		if _, err := New(Options{Header: http.Header{bad[0]: {bad[1]}}}); !errors.Is(err, errHeader) {
			t.Errorf("%q is accepted by New", bad)
		}
	}
	for _, good := range [][2]string{
		{"Authorization", "Bearer x y"}, {"x-tenant", ""}, {"Cookie", "a=b; c=d"}, {"Origin", "x"},
	} {
		if err := CheckHeader(good[0], good[1]); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}
