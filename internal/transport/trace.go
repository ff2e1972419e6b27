package transport

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"bridged/internal/failure"
)

// Trace is what happened in a Dial, as far as it came. It holds no credentials.
type Trace struct {
	// Step, if it is set before Dial, is called when a stage has ended.
	Step func(Step)

	Steps []Step
	// Proxy is the proxy's address as a URL without credentials, empty if there is none. ProxyReply is what it said.
	Proxy, ProxyReply string
	// ProxyVariable is the environment variable that names the proxy, empty if the configuration does.
	ProxyVariable string
	// Names has what DNS said. In Tries are the addresses that were tried, in the order in which they ended.
	Names []netip.Addr
	Tries []Try
	// Local and Remote are the ends of the TCP connection; Remote is the proxy's if there is one.
	Local, Remote netip.AddrPort
	// TLS is nil if there was no handshake. ProxyTLS is that of an https proxy.
	TLS, ProxyTLS *TLSTrace
	// Status is the answer to the WebSocket handshake, 0 if none. Header has those of its headers that help.
	Status int
	Header http.Header
	// Dates are what the proxy and the cloud said.
	Dates []Date
	// Notes are what is odd, and did not keep the connection from being made.
	Notes []string
}

// Step is a stage of a Dial.
type Step struct {
	Stage      failure.Stage
	Begin, End time.Time
	// Failure is why the stage failed, nil if it did not.
	Failure *failure.Failure
}

// Try is an address that was tried.
type Try struct {
	Address    netip.AddrPort
	Begin, End time.Time
	Err        error // nil for the one that is used
}

// TLSTrace is what came of a TLS handshake. If the cloud's certificate was refused, only the chain is there.
type TLSTrace struct {
	Version, Cipher string // as they are usually written
	ServerName      string // that was expected
	Resumed         bool
	// Chain is what the server showed, its own certificate first.
	Chain []Certificate
	// CertificateAsked says that the server asked for a client certificate, CertificateShown that there was one to show.
	CertificateAsked, CertificateShown bool
}

// Certificate is what there is to say about one.
type Certificate struct {
	Subject, Issuer     string
	Names               []string // subject alternative names
	NotBefore, NotAfter time.Time
	Pin                 string // as in TLS.Pins
}

// DaysLeft is how many whole days the certificate is still valid at a time; negative if it has expired.
func (c Certificate) DaysLeft(now time.Time) int {
	left := c.NotAfter.Sub(now)
	if left < 0 {
		left -= 24*time.Hour - 1 // away from zero
	}
	return int(left / (24 * time.Hour))
}

func (t *TLSTrace) fill(s *tls.ConnectionState) {
	t.Version, t.Cipher = tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite)
	t.Resumed = s.DidResume
	t.chain(s.PeerCertificates)
}

func (t *TLSTrace) chain(certs []*x509.Certificate) {
	t.Chain = nil
	for _, c := range certs {
		d := Certificate{
			Subject: c.Subject.String(), Issuer: c.Issuer.String(), Names: c.DNSNames,
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, Pin: pinOf(c).String(),
		}
		for _, ip := range c.IPAddresses {
			d.Names = append(d.Names, ip.String())
		}
		t.Chain = append(t.Chain, d)
	}
}

// usefulHeaders of an answer; none of them is a secret of ours.
var usefulHeaders = []string{
	"Server", "Via", "Date", "Location", "Retry-After", "Content-Type", "Www-Authenticate", "Sec-Websocket-Protocol",
}

func (t *Trace) answer(resp *http.Response) {
	t.Status, t.Header = resp.StatusCode, make(http.Header)
	for _, name := range usefulHeaders {
		for _, v := range resp.Header.Values(name) {
			t.Header.Add(name, failure.Clean(v))
		}
	}
	if loc := resp.Header.Get("Location"); loc != "" {
		t.Header.Set("Location", withoutQuery(loc))
	}
}

// withoutQuery is a URL without what may be secret in it.
func withoutQuery(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "?"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return failure.Clean(u.String())
}
