package clock

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, cert, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, by, key.Public(), byKey)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key := newKey(t)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: build.AddDate(-10, 0, 0), NotAfter: build.AddDate(15, 0, 0),
	}
	return authority{sign(t, cert, cert, key, key), key}
}

func (a authority) issue(t *testing.T, name string, from, until time.Time) tls.Certificate {
	t.Helper()
	key := newKey(t)
	cert := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature,
	}, a.cert, key, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// handshake connects to a host with this certificate, verified at a time.
func (a authority) handshake(t *testing.T, host tls.Certificate, at time.Time) (tls.ConnectionState, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := ln.Accept()
		if err != nil {
			return // the client fails, too
		}
		_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{host}}).HandshakeContext(t.Context()) // as above
		_ = c.Close()
	}()
	near, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "cloud.test", Time: func() time.Time { return at }})
	err = conn.HandshakeContext(t.Context())
	state := conn.ConnectionState()
	_ = near.Close()
	_ = ln.Close()
	<-ended
	return state, err
}

func TestVerifyTime(t *testing.T) {
	const day = 24 * time.Hour
	ca := newAuthority(t)
	issued := today.Add(-20 * day)
	good := ca.issue(t, "cloud.test", issued, issued.Add(90*day))
	tests := []struct {
		name string
		host tls.Certificate
		wall time.Time
		sync Sync
		want time.Time // zero: there is no second handshake
		ok   bool      // the second handshake succeeds
	}{
		{"1970", good, epoch, Unsynchronised, issued, true},
		{"1970, the kernel is sure", good, epoch, Synchronised, issued, true},
		{"2099", good, build.AddDate(73, 0, 0), Unsynchronised, issued, true},
		{"issued before the build", ca.issue(t, "cloud.test", build.Add(-30*day), build.Add(60*day)), epoch, Unsynchronised,
			build, true},
		{"weeks behind", good, issued.Add(-21 * day), Unsynchronised, issued, true},
		{"weeks behind, nobody knows", good, issued.Add(-21 * day), Unknown, issued, true},
		{"weeks behind, the kernel is sure", good, issued.Add(-21 * day), Synchronised, time.Time{}, false},
		{"expired", good, issued.Add(91 * day), Unsynchronised, time.Time{}, false},
		{"expired before the build", ca.issue(t, "cloud.test", build.Add(-90*day), build.Add(-time.Hour)), epoch,
			Unsynchronised, time.Time{}, false},
		{"for a time that cannot be", ca.issue(t, "cloud.test", build.AddDate(30, 0, 0), build.AddDate(31, 0, 0)), epoch,
			Unsynchronised, time.Time{}, false},
		{"for another name", ca.issue(t, "other.test", issued, issued.Add(90*day)), epoch, Unsynchronised, issued, false},
		{"by another authority", newAuthority(t).issue(t, "cloud.test", issued, issued.Add(90*day)), epoch, Unsynchronised,
			issued, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, _, _ := newClock(test.wall, test.sync)
			_, err := ca.handshake(t, test.host, c.VerifyNow())
			if err == nil {
				t.Fatal("the first handshake succeeded")
			}
			at, again := c.VerifyTime(err)
			if again == test.want.IsZero() || !at.Equal(test.want) {
				t.Fatalf("verify at %s (%t), want %s; %v", at, again, test.want, err)
			}
			if !again {
				return
			}
			if _, err := ca.handshake(t, test.host, at); (err == nil) != test.ok {
				t.Errorf("the second handshake: %v", err)
			}
		})
	}
}

// The whole way out of 1970: refused, connected at the certificate's time, corrected, connected as usual.
func TestOutOf1970(t *testing.T) {
	ca := newAuthority(t)
	host := ca.issue(t, "cloud.test", today.AddDate(0, -1, 0), today.AddDate(0, 2, 0))
	c, _, told := newClock(epoch, Unsynchronised)
	_, err := ca.handshake(t, host, c.VerifyNow())
	at, ok := c.VerifyTime(err)
	if !ok {
		t.Fatal(err)
	}
	conn, err := ca.handshake(t, host, at)
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{"Date": {today.Format(http.TimeFormat)}}
	s, ok := FromResponse("cloud.test", h, &conn, time.Second)
	if !ok || s.Trust != Authentic {
		t.Fatalf("%+v", s)
	}
	liar := s
	liar.Date = s.NotBefore.Add(-time.Second)
	if err := c.Observe(liar); err == nil {
		t.Error("a time was accepted at which the host's own certificate is not valid")
	}
	if err := c.Observe(s); err != nil {
		t.Fatal(err)
	}
	if got := c.VerifyNow().Sub(today); got.Abs() > 2*time.Second {
		t.Errorf("%s off", got)
	}
	if _, err := ca.handshake(t, host, c.VerifyNow()); err != nil {
		t.Error(err)
	}
	if len(*told) != 1 || (*told)[0].Kind != Corrected {
		t.Errorf("told %+v", *told)
	}
	_, err = ca.handshake(t, ca.issue(t, "cloud.test", today.AddDate(0, -3, 0), today.AddDate(0, 0, -1)), c.VerifyNow())
	if _, ok := c.VerifyTime(err); ok || err == nil {
		t.Errorf("an expired certificate was accepted at the corrected time: %v", err)
	}
}

// Who made a time up in the clear cannot have expired certificates accepted with it, nor lock others out.
func TestPlainTimeIsNotForCertificates(t *testing.T) {
	c, sys, _ := newClock(today, Unsynchronised)
	for range 2 {
		hear(t, c, sys, "p", Plain, -30*24*time.Hour)
		sys.pass(10 * time.Second)
	}
	wall, _ := sys.read()
	if c.Now().Equal(wall) || !c.VerifyNow().Equal(wall) {
		t.Errorf("system %s, now %s, for certificates %s", wall, c.Now(), c.VerifyNow())
	}

	ca := newAuthority(t)
	host := ca.issue(t, "cloud.test", today.AddDate(0, -1, 0), today.AddDate(0, 2, 0))
	c, sys, _ = newClock(epoch, Unsynchronised)
	for range 2 {
		hear(t, c, sys, "p", Plain, build.AddDate(10, 0, 0).Sub(epoch))
		sys.pass(10 * time.Second)
	}
	if !c.VerifyNow().Equal(c.Now()) || c.State().Kind != Corrected {
		t.Errorf("for certificates %s", c.VerifyNow())
	}
	_, err := ca.handshake(t, host, c.VerifyNow())
	if at, ok := c.VerifyTime(err); !ok || !at.Equal(today.AddDate(0, -1, 0)) {
		t.Errorf("locked out: %v", err)
	}
}

func TestVerifyTimeOfOtherErrors(t *testing.T) {
	c, _, _ := newClock(today.AddDate(0, 6, 0), Unsynchronised)
	cert := &x509.Certificate{NotBefore: today, NotAfter: today.AddDate(1, 0, 0)}
	wrong, _, _ := newClock(epoch, Unsynchronised)
	for i, err := range []error{
		nil,
		errors.New("no"),
		x509.CertificateInvalidError{Cert: cert, Reason: x509.Expired}, // without the chain
		&tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{cert},
			Err: x509.UnknownAuthorityError{}},
		&tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{cert},
			Err: x509.CertificateInvalidError{Cert: cert, Reason: x509.NameMismatch}},
		&tls.CertificateVerificationError{ // it is the intermediate that has expired: the time is as right as it gets
			UnverifiedCertificates: []*x509.Certificate{cert, {NotBefore: build, NotAfter: today}},
			Err:                    x509.CertificateInvalidError{Cert: cert, Reason: x509.Expired}},
		&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}},
	} {
		if at, ok := c.VerifyTime(err); ok {
			t.Errorf("%d, %v: verify at %s", i, err, at)
		}
		if at, ok := wrong.VerifyTime(err); ok && i != 5 {
			t.Errorf("%d, %v: in 1970, verify at %s", i, err, at)
		}
	}
}
