package transport

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bridged/internal/credentials"
	"bridged/internal/failure"
)

func proxied(t testing.TB, setting string, o Options) *Dialer {
	t.Helper()
	p, err := ParseProxy(setting, "")
	if err != nil {
		t.Fatal(err)
	}
	o.Proxy = p
	return newDialer(t, o)
}

// httpProxy is a proxy that connects every name to one address, and keeps what it was asked.
type httpProxy struct {
	to   string
	addr string
	// early is what to send with the reply, before the cloud has said anything.
	early string

	mu       sync.Mutex
	requests []*http.Request
}

func newHTTPProxy(t testing.TB, to string, conf *tls.Config) *httpProxy {
	t.Helper()
	p := &httpProxy{to: to}
	l := listen(t)
	p.addr = l.Addr().String()
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	accept(t, l, p.serve)
	return p
}

func (p *httpProxy) serve(c net.Conn) {
	br := bufio.NewReader(c)
	r, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.requests = append(p.requests, r)
	p.mu.Unlock()
	up, err := net.Dial("tcp", p.to) //nolint:noctx // as short as the test
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\n\r\n"+p.early)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(up, br)
		_ = up.Close()
	})
	_, _ = io.Copy(c, up)
	_ = c.Close()
	wg.Wait()
}

func (p *httpProxy) last(t testing.TB) *http.Request {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.requests) == 0 {
		t.Fatal("the proxy was not asked")
	}
	return p.requests[len(p.requests)-1]
}

// The proxy gets the name as it is; the cloud's name need not be known here. TLS is with the cloud, not with the proxy.
func TestHTTPProxy(t *testing.T) {
	ca := newAuthority(t, "plant")
	for _, scheme := range []string{"ws", "wss"} {
		for _, via := range []string{"http", "https"} {
			t.Run(scheme+" by "+via, func(t *testing.T) {
				var cloud, conf *tls.Config
				if scheme == "wss" {
					cloud = ca.conf(nil)
				}
				if via == "https" {
					conf = ca.conf(nil)
				}
				u := serve(t, echo("mqtt"), cloud)
				p := newHTTPProxy(t, u.Host, conf)
				var dates []Date
				d := proxied(t, via+"://dev:"+secret+"@"+p.addr, Options{
					TLS: TLS{CAFile: ca.file}, OnDate: func(d Date) { dates = append(dates, d) },
				})
				tr := &Trace{}
				target := at(scheme, "cloud.test:8084")
				target.Trace = tr
				connects(t, d, target)
				r := p.last(t)
				if user, pass, ok := parseBasic(r); r.Method != "CONNECT" || r.RequestURI != "cloud.test:8084" ||
					r.Host != "cloud.test:8084" || !ok || user != "dev" || pass != secret {
					t.Errorf("%s %s %v", r.Method, r.RequestURI, r.Header)
				}
				if tr.Proxy != via+"://"+p.addr || tr.ProxyReply != "HTTP 200 Connection established" ||
					(tr.ProxyTLS != nil) != (via == "https") || (tr.TLS != nil) != (scheme == "wss") {
					t.Errorf("%+v", tr)
				}
				if len(dates) == 0 || !dates[0].Proxy || dates[0].Verified != (via == "https") ||
					dates[0].Said.Year() != 2006 {
					t.Errorf("%+v", dates)
				}
			})
		}
	}
}

func parseBasic(r *http.Request) (user, password string, ok bool) {
	r2 := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	return r2.BasicAuth()
}

// What the proxy sends together with its reply belongs to the connection.
func TestBytesAfterTheReply(t *testing.T) {
	host := raw(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		// The cloud's answer to a request that was not sent yet: it cannot be right, but it must arrive.
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		silent(c)
	})
	fails(t, proxied(t, "http://"+host, Options{}), at("ws", "cloud.test"), failure.HTTP404, failure.StageUpgrade)
}

func TestProxyReplies(t *testing.T) {
	reply := func(lines ...string) func(net.Conn) { return answers(strings.Join(lines, "\r\n") + "\r\n\r\n") }
	long := strings.Repeat("X-More: and more\r\n", 2000)
	for name, tc := range map[string]struct {
		peer  func(net.Conn)
		login bool
		kind  failure.Kind
		says  string
		wait  time.Duration
	}{
		"407": {reply("HTTP/1.1 407 Proxy Authentication Required", `Proxy-Authenticate: Basic realm="x"`), false,
			failure.ProxyAuthRequired, "HTTP 407", 0},
		"407, does not say how": {reply("HTTP/1.1 407 No"), false, failure.ProxyAuthRequired, "HTTP 407", 0},
		"407 with a login": {reply("HTTP/1.1 407 No", "Proxy-Authenticate: BASIC"), true, failure.ProxyAuthRejected,
			"HTTP 407", 0},
		"407 NTLM": {reply("HTTP/1.1 407 No", "Proxy-Authenticate: Negotiate", "Proxy-Authenticate: NTLM"), true,
			failure.ProxyAuthUnsupported, "Negotiate, NTLM", 0},
		"407 NTLM or Basic": {reply("HTTP/1.1 407 No", "Proxy-Authenticate: NTLM",
			`Proxy-Authenticate: Digest realm="a, b", Basic realm="x"`), true, failure.ProxyAuthRejected, "", 0},
		"401": {reply("HTTP/1.1 401 Unauthorized"), true, failure.ProxyAuthRejected, "401", 0},
		"403": {reply("HTTP/1.1 403 Forbidden", "X-Squid-Error: ERR_ACCESS_DENIED 0"), false, failure.ProxyRefused,
			"ERR_ACCESS_DENIED", 0},
		"405": {reply("HTTP/1.1 405 Method Not Allowed"), false, failure.ProxyProtocol, "405", 0},
		"400": {reply("HTTP/1.1 400 Bad Request"), false, failure.ProxyProtocol, "400", 0},
		"302": {reply("HTTP/1.1 302 Found", "Location: http://portal/"), false, failure.ProxyProtocol, "302", 0},
		"418": {reply("HTTP/1.1 418 I'm a teapot"), false, failure.ProxyRefused, "teapot", 0},
		"429": {reply("HTTP/1.1 429 Too Many", "Retry-After: 7"), false, failure.ProxyThrottled, "429", 7 * time.Second},
		"502": {reply("HTTP/1.1 502 Bad Gateway"), false, failure.ProxyCloudUnknown, "502", 0},
		"503": {reply("HTTP/1.0 503 Unavailable", "X-Squid-Error: ERR_DNS_FAIL 0"), false, failure.ProxyCloudUnknown,
			"ERR_DNS_FAIL", 0},
		"504":   {reply("HTTP/1.1 504 Timeout"), false, failure.ProxyCloudUnknown, "504", 0},
		"100":   {answers(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 9)), false, failure.ProxyProtocol, "", 0},
		"SOCKS": {answers("\x05\xff"), false, failure.ProxyNoAnswer, "", 0},
		"SSH":   {answers("SSH-2.0-x\r\n"), false, failure.ProxyProtocol, "SSH-2.0-x", 0},
		"endless": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+long) // it is cut off
			silent(c)
		}, false, failure.ProxyProtocol, "does not end", 0},
		"closed": {answers(""), false, failure.ProxyNoAnswer, "", 0},
		"half":   {answers("HTTP/1.1 200 OK\r\nX"), false, failure.ProxyNoAnswer, "no end", 0},
		"silent": {silent, false, failure.ProxyNoAnswer, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			login := ""
			if tc.login {
				login = "dev:" + secret + "@"
			}
			d := proxied(t, "http://"+login+raw(t, tc.peer), Options{Timeouts: brief(tc.kind)})
			o := fails(t, d, at("wss", "cloud.test"), tc.kind, failure.StageProxy)
			says(t, o, tc.says)
			if o.f.RetryAfter != tc.wait {
				t.Errorf("retry after %s", o.f.RetryAfter)
			}
		})
	}
}

func TestProxyUnreachable(t *testing.T) {
	l := listen(t)
	gone := l.Addr().String()
	_ = l.Close() // nobody listens there now
	hole := blackHole(t, loop4, 0)
	ns := newNameserver(t)
	o := Options{Resolver: ns.resolver(), Timeouts: brief(failure.ProxyUnreachable)}
	target := at("wss", "cloud.test")
	says(t, fails(t, proxied(t, "http://"+gone, o), target, failure.ProxyUnreachable, failure.StageTCP), "refused")
	fails(t, proxied(t, "socks5://127.0.0.1:"+strconv.Itoa(hole), o), target, failure.ProxyUnreachable, failure.StageTCP)
	fails(t, proxied(t, "http://proxy.test.", o), target, failure.ProxyDNS, failure.StageDNS)
	if ns.queries.Load() == 0 {
		t.Error("the proxy's name was not asked for")
	}
}

func TestProxyTLS(t *testing.T) {
	ca := newAuthority(t, "plant")
	u := serve(t, echo("mqtt"), nil)
	strange := newHTTPProxy(t, u.Host, newAuthority(t, "stranger").conf(nil))
	plain := newHTTPProxy(t, u.Host, nil)
	o := Options{TLS: TLS{CAFile: ca.file, CAOnly: true, Pins: []Pin{{1}}}}
	target := at("ws", "cloud.test")
	fails(t, proxied(t, "https://"+strange.addr, o), target, failure.ProxyTLS, failure.StageProxy)
	fails(t, proxied(t, "https://"+plain.addr, o), target, failure.ProxyTLS, failure.StageProxy)
	mute := proxied(t, "https://"+raw(t, silent), Options{Timeouts: brief(failure.ProxyNoAnswer)})
	fails(t, mute, target, failure.ProxyNoAnswer, failure.StageProxy)
	good := newHTTPProxy(t, u.Host, ca.conf(nil))
	connects(t, proxied(t, "https://"+good.addr, o), target) // pins are the cloud's
}

// A separate password goes with the user name in the URL.
func TestProxyPassword(t *testing.T) {
	u := serve(t, echo("mqtt"), nil)
	p := newHTTPProxy(t, u.Host, nil)
	via, err := ParseProxy("http://dev@"+p.addr, credentials.Secret("p:w/d"))
	if err != nil {
		t.Fatal(err)
	}
	connects(t, newDialer(t, Options{Proxy: via}), Target{URL: &url.URL{Scheme: "ws", Host: "cloud.test"}})
	if user, pass, ok := parseBasic(p.last(t)); !ok || user != "dev" || pass != "p:w/d" {
		t.Errorf("%q %q %t", user, pass, ok)
	}
}
