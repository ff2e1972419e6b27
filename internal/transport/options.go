package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Options of a Dialer. The zero value dials directly and trusts the system's authorities.
type Options struct {
	// Proxy says whether to go through a proxy.
	Proxy Proxy
	// TLS is for wss.
	TLS TLS
	// Header is sent along with the WebSocket handshake. See CheckHeader for what it may hold.
	Header http.Header
	// Timeouts that are 0 have their default.
	Timeouts Timeouts
	// Resolver is nil for the system's. Its Dial, if it has one, must return a new connection each time.
	Resolver *net.Resolver
	// Clock is what certificates are checked against, nil for time.Now.
	Clock func() time.Time
	// OnDate, if there is one, is told the time that a cloud or proxy says it is.
	OnDate func(Date)
	// VerifyTime, if there is one, is asked when a handshake failed because Clock is not within the time of the server's
	// certificates. It may name another time at which to verify them, in a second handshake with the same host.
	VerifyTime func(err error) (at time.Time, ok bool)
	// Stall is how long the cloud may take nothing of what is sent before the connection is ended; 0 for 30 s.
	Stall time.Duration
}

// Timeouts bound the stages of a Dial.
type Timeouts struct {
	DNS     time.Duration // 10 s
	TCP     time.Duration // 15 s, as long as three repetitions of a lost SYN take
	Proxy   time.Duration // 20 s from the proxy's connection to its reply: it connects to the cloud meanwhile
	TLS     time.Duration // 15 s
	Upgrade time.Duration // 15 s
	All     time.Duration // 40 s, for all stages together
}

func (t Timeouts) withDefaults() Timeouts {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&t.DNS, 10*time.Second)
	or(&t.TCP, 15*time.Second)
	or(&t.Proxy, 20*time.Second)
	or(&t.TLS, 15*time.Second)
	or(&t.Upgrade, 15*time.Second)
	or(&t.All, 40*time.Second)
	return t
}

// Date is the time that somebody else says it is, by HTTP's Date header.
type Date struct {
	// Said is in whole seconds; it was true somewhere between Sent and Received, which are by the gateway's clock.
	Said, Sent, Received time.Time
	// Host is who said it. Proxy says that it was the proxy, otherwise the cloud.
	Host  string
	Proxy bool
	// Verified says that the one who said it has shown a certificate that was accepted.
	Verified bool
	// Header is the answer's, and TLS the connection on which it came, nil if that was not verified. A Trace has neither.
	Header http.Header
	TLS    *tls.ConnectionState
}

// Offset is how far the gateway's clock is behind, and how far that may be wrong in either direction.
func (d Date) Offset() (offset, uncertainty time.Duration) {
	half := d.Received.Sub(d.Sent) / 2
	// Said was cut down to whole seconds: half a second later is the best guess.
	return d.Said.Add(time.Second / 2).Sub(d.Sent.Add(half)), half + time.Second/2
}

// Target is what to connect to.
type Target struct {
	// URL is ws:// or wss://. Its path and query are sent.
	URL *url.URL
	// Certificate is what to show when the cloud asks for a client certificate; may be nil.
	Certificate *KeyPair
	// Trace, if there is one, is filled in.
	Trace *Trace
}

// Dialer makes connections to one cloud.
type Dialer struct {
	opts     Options
	timeouts Timeouts
	resolver *net.Resolver
	proxy    chooser
	tls      *tls.Config // towards the cloud
	proxyTLS *tls.Config
	header   http.Header
	expires  atomic.Int64 // seconds; see CertificateExpires
}

// New checks the options and reads the files that they name.
func New(o Options) (*Dialer, error) {
	d := &Dialer{opts: o, timeouts: o.Timeouts.withDefaults()}
	if d.opts.Clock == nil {
		d.opts.Clock = time.Now
	}
	if d.opts.Stall == 0 {
		d.opts.Stall = 30 * time.Second
	}
	d.resolver = newResolver(o.Resolver)
	d.proxy = o.Proxy.chooser()
	if err := d.configureTLS(); err != nil {
		return nil, err
	}
	d.header = http.Header{"User-Agent": {"bridged"}}
	for name, values := range o.Header {
		for _, v := range values {
			if err := CheckHeader(name, v); err != nil {
				return nil, err
			}
		}
		d.header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
	}
	return d, nil
}

// CertificateExpires is when the first of the certificates expires that the cloud showed in the latest handshake; zero
// if there was none.
func (d *Dialer) CertificateExpires() time.Time {
	if s := d.expires.Load(); s != 0 {
		return time.Unix(s, 0)
	}
	return time.Time{}
}

// ownHeaders are the handshake's, or would change where a request begins and ends.
var ownHeaders = []string{
	"Host", "Upgrade", "Connection", "Content-Length", "Transfer-Encoding", "Te", "Trailer", "Expect", "Keep-Alive",
	"Proxy-Authorization", "Proxy-Connection",
}

var errHeader = errors.New("header")

// CheckHeader says whether an extra header may be sent. The error does not show the value.
func CheckHeader(name, value string) error {
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%w %q: not a header's name", errHeader, name)
	case slices.Contains(ownHeaders, canonical), strings.HasPrefix(canonical, "Sec-Websocket-"):
		return fmt.Errorf("%w %s: belongs to the WebSocket handshake", errHeader, canonical)
	case !httpguts.ValidHeaderFieldValue(value):
		return fmt.Errorf("%w %s: its value has characters that a header must not have", errHeader, canonical)
	}
	return nil
}

// address is host and port of a URL.
func address(u *url.URL) (host, port string) {
	host, port = u.Hostname(), u.Port()
	if port == "" {
		port = defaultPorts[u.Scheme]
	}
	return host, port
}

// validHost keeps what is no name or address out of requests. Names beyond ASCII have to be written as DNS knows them.
func validHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Zone()
	}
	return strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == ""
}

var defaultPorts = map[string]string{
	"ws": "80", "wss": "443", "http": "80", "https": "443", "socks5": "1080",
}
