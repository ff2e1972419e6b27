package transport

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"bridged/internal/failure"
)

// TLS says how to check the cloud's certificate.
type TLS struct {
	// CAFile has authorities to trust, PEM, beside the system's. CAOnly: instead of them.
	CAFile string
	CAOnly bool
	// ServerName is the name to expect, empty for the URL's host.
	ServerName string
	// MinVersion is tls.VersionTLS12 (and 0), or higher.
	MinVersion uint16
	// Pins, if there are any: one of them must be the key of a certificate in the chain that was verified.
	Pins []Pin
}

// Pin is the SHA-256 hash of a public key (its SubjectPublicKeyInfo; RFC 7469, 2.4).
type Pin [sha256.Size]byte

var errPin = errors.New(`is not a pin: write sha256/ and then the key's SHA-256 hash in base64`)

// ParsePin reads "sha256/..." with the hash in base64; curl's "sha256//..." and the hash alone will do, too.
func ParsePin(s string) (p Pin, err error) {
	s = strings.TrimPrefix(s, "sha256/")
	if len(s) > base64.StdEncoding.EncodedLen(len(p)) { // a hash may begin with a slash, too
		s = strings.TrimPrefix(s, "/")
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(p) {
		return p, errPin
	}
	return Pin(b), nil
}

func (p Pin) String() string { return "sha256/" + base64.StdEncoding.EncodeToString(p[:]) }

func pinOf(c *x509.Certificate) Pin { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// pinError says which keys the cloud has.
type pinError struct{ leaf Pin }

func (e *pinError) Error() string { return "the key of the cloud's certificate is " + e.leaf.String() }

var errNoCertificate = errors.New("no certificate in PEM format found")

// sessions is how many TLS sessions to keep to be resumed. The hosts of a cloud are few.
const sessions = 8

// configureTLS makes the configurations that the dials have in common.
func (d *Dialer) configureTLS() error {
	o := &d.opts.TLS
	base := &tls.Config{MinVersion: max(o.MinVersion, tls.VersionTLS12), Time: d.opts.Clock}
	var system, own *x509.CertPool // nil for the system's
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return fmt.Errorf("tls.ca_file: %w", err)
		}
		own, system = x509.NewCertPool(), systemPool()
		if !own.AppendCertsFromPEM(pem) {
			return fmt.Errorf("tls.ca_file %s: %w", o.CAFile, errNoCertificate)
		}
		system.AppendCertsFromPEM(pem)
	}
	d.proxyTLS = base.Clone()
	d.proxyTLS.MinVersion = tls.VersionTLS12
	d.proxyTLS.RootCAs = system
	d.tls = base
	d.tls.RootCAs = system
	if o.CAOnly {
		d.tls.RootCAs = own
	}
	d.tls.ServerName = o.ServerName
	if len(o.Pins) > 0 {
		d.tls.VerifyConnection = d.checkPins
	}
	d.tls.ClientSessionCache = tls.NewLRUClientSessionCache(sessions)
	return nil
}

// systemPool is a copy of the system's authorities, which may be none.
func systemPool() *x509.CertPool {
	if p, err := x509.SystemCertPool(); err == nil {
		return p
	}
	return x509.NewCertPool()
}

// checkPins is called for resumed sessions, too.
func (d *Dialer) checkPins(s tls.ConnectionState) error {
	for _, chain := range s.VerifiedChains {
		for _, c := range chain {
			if slices.Contains(d.opts.TLS.Pins, pinOf(c)) {
				return nil
			}
		}
	}
	return &pinError{pinOf(s.PeerCertificates[0])}
}

// maxHandshake bounds what a server may send in a handshake; certificate chains take a few KiB.
const maxHandshake = 256 << 10

// secured is a TLS connection.
type secured struct {
	*tls.Conn
	// asked and shown are about a client certificate.
	asked, shown bool
}

// secure does the handshake. at is when to verify the certificate, zero for now. The tap between it and conn is open
// when it returns.
func (a *attempt) secure(ctx context.Context, conn net.Conn, cfg *tls.Config, host string, at time.Time, pair *KeyPair,
	trace **TLSTrace,
) (*secured, *failure.Failure) {
	s := &secured{}
	cfg = cfg.Clone()
	if !at.IsZero() {
		cfg.Time = func() time.Time { return at }
		cfg.ClientSessionCache = nil // what was verified like this is not to be resumed
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	if pair != nil {
		cfg.ClientSessionCache = nil // a resumed session would be that of another device
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		s.asked = true
		if pair == nil {
			return &tls.Certificate{}, nil
		}
		s.shown = true
		return pair.current(), nil
	}
	t := newTap(conn, maxHandshake)
	s.Conn = tls.Client(t, cfg)
	err := s.HandshakeContext(ctx)
	if a.trace != nil {
		tr := &TLSTrace{ServerName: cfg.ServerName, CertificateAsked: s.asked, CertificateShown: s.shown}
		var refused *tls.CertificateVerificationError
		if errors.As(err, &refused) {
			tr.chain(refused.UnverifiedCertificates)
		} else if state := s.ConnectionState(); len(state.PeerCertificates) > 0 {
			tr.fill(&state)
		}
		*trace = tr
	}
	if err != nil {
		return nil, s.failure(err, t, cfg.Time())
	}
	t.open()
	return s, nil
}

// expires is when the first of the certificates expires that a chain needs. Roots are not counted: they are the
// gateway's own matter.
func expires(s *tls.ConnectionState) (first time.Time) {
	certs := s.PeerCertificates
	if len(s.VerifiedChains) > 0 {
		chain := s.VerifiedChains[0]
		certs = chain[:max(1, len(chain)-1)]
	}
	for _, c := range certs {
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first
}
