package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bridged/internal/failure"
)

func TestCertificates(t *testing.T) {
	ca := newAuthority(t, "plant")
	trust := TLS{CAFile: ca.file}
	with := func(change func(*x509.Certificate)) *tls.Config { return ca.conf(change) }
	for name, tc := range map[string]struct {
		conf *tls.Config
		tls  TLS
		kind failure.Kind // empty: it is accepted
		says string
	}{
		"good":              {with(nil), trust, "", ""},
		"only this CA":      {with(nil), TLS{CAFile: ca.file, CAOnly: true}, "", ""},
		"unknown authority": {with(nil), TLS{}, failure.TLSUnknownAuthority, ""},
		"self-signed": {&tls.Config{Certificates: []tls.Certificate{(&authority{t: t}).server(nil)}}, trust,
			failure.TLSUnknownAuthority, ""},
		"wrong name": {with(func(c *x509.Certificate) { c.IPAddresses = nil }), trust, failure.TLSWrongName, "127.0.0.1"},
		"server name": {with(func(c *x509.Certificate) { c.IPAddresses = nil }),
			TLS{CAFile: ca.file, ServerName: "cloud.test"}, "", ""},
		"wrong server name": {with(nil), TLS{CAFile: ca.file, ServerName: "elsewhere.test"}, failure.TLSWrongName, ""},
		"expired": {with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), trust,
			failure.TLSExpired, ""},
		"not yet valid": {with(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), trust,
			failure.TLSNotYetValid, ""},
		"for clients": {with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			trust, failure.TLSBadCertificate, ""},
		"old server": {&tls.Config{Certificates: ca.conf(nil).Certificates, MinVersion: tls.VersionTLS10,
			MaxVersion: tls.VersionTLS11}, trust, failure.TLSVersion, ""},
		"min_version": {&tls.Config{Certificates: ca.conf(nil).Certificates, MaxVersion: tls.VersionTLS12},
			TLS{CAFile: ca.file, MinVersion: tls.VersionTLS13}, failure.TLSVersion, ""},
		"TLS 1.2": {&tls.Config{Certificates: ca.conf(nil).Certificates, MaxVersion: tls.VersionTLS12}, trust, "", ""},
		"no cipher in common": {&tls.Config{Certificates: ca.conf(nil).Certificates, MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}, trust, failure.TLSHandshake, ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := serve(t, echo("mqtt"), tc.conf)
			d := newDialer(t, Options{TLS: tc.tls})
			if tc.kind == "" {
				connects(t, d, Target{URL: u})
				return
			}
			says(t, fails(t, d, Target{URL: u}, tc.kind, failure.StageTLS), tc.says)
		})
	}
}

// A server that picks a version below the client's, without looking at what the client offers.
func TestServerPicksOldVersion(t *testing.T) {
	hello := "\x02\x00\x00\x26\x03\x01" + strings.Repeat("r", 32) + "\x00\xc0\x13\x00" // ServerHello, TLS 1.0
	host := raw(t, answers("\x16\x03\x01\x00\x2a"+hello))
	fails(t, newDialer(t, Options{}), at("wss", host), failure.TLSVersion, failure.StageTLS)
}

func TestNotTLS(t *testing.T) {
	http := serve(t, echo("mqtt"), nil)
	for name, tc := range map[string]struct {
		host string
		kind failure.Kind
		says string
	}{
		"HTTP":   {http.Host, failure.TLSNotTLS, `it answers "HTTP/1.1 400 Bad Request"`},
		"SSH":    {raw(t, answers("SSH-2.0-x\r\n")), failure.TLSNotTLS, "SSH-2.0-x"},
		"binary": {raw(t, answers("\x00\x01\x02\x03\x04\x05\x06")), failure.TLSNotTLS, "no text"},
		"closed": {raw(t, answers("")), failure.HungUp, ""},
		"silent": {raw(t, silent), failure.NoAnswer, ""},
		"broken": {raw(t, answers("\x16\x03\x03\x00\x04\x02\x00\x00\x00")), failure.TLSHandshake, ""},
		"half":   {raw(t, answers("\x16\x03\x03")), failure.HungUp, ""},
		"endless": {raw(t, func(c net.Conn) {
			for { // a ServerHello that announces more than comes, in small records
				if _, err := c.Write([]byte("\x16\x03\x03\x00\x01\x00")); err != nil {
					return
				}
			}
		}), failure.TLSHandshake, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDialer(t, Options{Timeouts: brief(tc.kind)})
			says(t, fails(t, d, at("wss", tc.host), tc.kind, failure.StageTLS), tc.says)
		})
	}
}

// The time that counts is the clock's that was given.
func TestClock(t *testing.T) {
	ca := newAuthority(t, "plant")
	u := serve(t, echo("mqtt"), ca.conf(nil))
	for kind, at := range map[failure.Kind]time.Time{
		failure.TLSNotYetValid: time.Now().AddDate(-10, 0, 0), failure.TLSExpired: time.Now().AddDate(10, 0, 0),
	} {
		d := newDialer(t, Options{TLS: TLS{CAFile: ca.file}, Clock: func() time.Time { return at }})
		fails(t, d, Target{URL: u}, kind, failure.StageTLS)
	}
}

// A certificate that the clock does not allow is verified once more, at the time that VerifyTime names, and only then.
func TestVerifyTime(t *testing.T) {
	ca := newAuthority(t, "plant")
	u := serve(t, echo("mqtt"), ca.conf(nil))
	wrong := func() time.Time { return time.Unix(1000, 0) }
	for name, tc := range map[string]struct {
		at   time.Time
		ok   bool
		kind failure.Kind // empty: it connects
	}{
		"the right time":    {time.Now(), true, ""},
		"none":              {time.Now(), false, failure.TLSNotYetValid},
		"still too early":   {time.Now().AddDate(-10, 0, 0), true, failure.TLSNotYetValid},
		"far in the future": {time.Now().AddDate(10, 0, 0), true, failure.TLSExpired},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			d := newDialer(t, Options{TLS: TLS{CAFile: ca.file}, Clock: wrong, VerifyTime: func(error) (time.Time, bool) {
				asked++
				return tc.at, tc.ok
			}})
			if tc.kind == "" {
				connects(t, d, Target{URL: u})
			} else {
				fails(t, d, Target{URL: u}, tc.kind, failure.StageTLS)
			}
			if want := 2; asked > want || asked == 0 {
				t.Errorf("asked %d times", asked)
			}
		})
	}
	d := newDialer(t, Options{TLS: TLS{CAFile: ca.file, ServerName: "elsewhere.test"}, Clock: time.Now,
		VerifyTime: func(error) (time.Time, bool) { t.Error("asked about a name"); return time.Now(), true }})
	fails(t, d, Target{URL: u}, failure.TLSWrongName, failure.StageTLS)
}

// A time that was found out for verifying does not let a certificate of another name pass.
func TestVerifyTimeChecksNames(t *testing.T) {
	ca := newAuthority(t, "plant")
	u := serve(t, echo("mqtt"), ca.conf(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"x.test"}, nil }))
	d := newDialer(t, Options{
		TLS: TLS{CAFile: ca.file}, Clock: func() time.Time { return time.Unix(1000, 0) },
		VerifyTime: func(error) (time.Time, bool) { return time.Now(), true },
	})
	fails(t, d, Target{URL: u}, failure.TLSWrongName, failure.StageTLS)
}

func TestPins(t *testing.T) {
	ca := newAuthority(t, "plant")
	conf := ca.conf(nil)
	u := serve(t, echo("mqtt"), conf)
	leaf, root, other := pinOf(conf.Certificates[0].Leaf), pinOf(ca.cert), Pin{1}
	for name, tc := range map[string]struct {
		pins []Pin
		ok   bool
	}{
		"leaf": {[]Pin{leaf}, true}, "root": {[]Pin{other, root}, true}, "other": {[]Pin{other}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDialer(t, Options{TLS: TLS{CAFile: ca.file, Pins: tc.pins}})
			if tc.ok {
				connects(t, d, Target{URL: u})
				connects(t, d, Target{URL: u}) // resumed
				return
			}
			f := fails(t, d, Target{URL: u}, failure.TLSPinMismatch, failure.StageTLS)
			says(t, f, leaf.String()) // so that it can be copied, if it is right
		})
	}
	for _, s := range []string{leaf.String(), leaf.String()[7:], "sha256/" + leaf.String()[6:]} {
		if p, err := ParsePin(s); err != nil || p != leaf {
			t.Errorf("%q: %v, %v", s, p, err)
		}
	}
	for _, s := range []string{"", "sha256/", "sha256/AAAA", "sha256/" + strings.Repeat("!", 44), leaf.String() + "A"} {
		if _, err := ParsePin(s); !errors.Is(err, errPin) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestCAFileFaults(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{TLS: TLS{CAFile: empty}}); !errors.Is(err, errNoCertificate) {
		t.Errorf("empty: %v", err)
	}
	if _, err := New(Options{TLS: TLS{CAFile: dir + "/none"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// The system's authorities count beside the file's, unless they are not to.
func TestCAFileBesideTheSystems(t *testing.T) {
	ca := newAuthority(t, "plant")
	d := newDialer(t, Options{TLS: TLS{CAFile: ca.file}})
	only := newDialer(t, Options{TLS: TLS{CAFile: ca.file, CAOnly: true}})
	want := systemPool()
	want.AddCert(ca.cert)
	if !d.tls.RootCAs.Equal(want) || !d.proxyTLS.RootCAs.Equal(want) {
		t.Error("not both")
	}
	if !only.tls.RootCAs.Equal(ca.pool()) || !only.proxyTLS.RootCAs.Equal(want) {
		t.Error("not only the file's, or for the proxy, too")
	}
	if none := newDialer(t, Options{}); none.tls.RootCAs != nil { // crypto/tls takes the system's
		t.Error("not the system's")
	}
}

func TestClientCertificates(t *testing.T) {
	ca, stranger := newAuthority(t, "plant"), newAuthority(t, "stranger")
	good, bad := "good", "bad"
	pairs := map[string]*KeyPair{}
	for name, a := range map[string]*authority{good: ca, bad: stranger} {
		c, k := a.client("dev")
		pairs[name] = loadPair(t, c, k, nil)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, tc := range map[string]struct {
			auth tls.ClientAuthType
			pair string
			kind failure.Kind
		}{
			"good":              {tls.RequireAndVerifyClientCert, good, ""},
			"not asked for":     {tls.NoClientCert, good, ""},
			"optional, none":    {tls.VerifyClientCertIfGiven, "", ""},
			"required, none":    {tls.RequireAndVerifyClientCert, "", failure.TLSClientCertRequired},
			"from a stranger":   {tls.RequireAndVerifyClientCert, bad, failure.TLSClientCertRefused},
			"optional, strange": {tls.VerifyClientCertIfGiven, bad, failure.TLSClientCertRefused},
		} {
			t.Run(tls.VersionName(version)+"/"+name, func(t *testing.T) {
				conf := ca.conf(nil)
				conf.MinVersion, conf.MaxVersion, conf.ClientAuth, conf.ClientCAs = version, version, tc.auth, ca.pool()
				target := Target{URL: serve(t, echo("mqtt"), conf), Certificate: pairs[tc.pair], Trace: &Trace{}}
				d := newDialer(t, Options{TLS: TLS{CAFile: ca.file}})
				if tc.kind == "" {
					connects(t, d, target)
				} else {
					fails(t, d, target, tc.kind, failure.StageTLS)
				}
				tr := target.Trace.TLS
				if asked := tc.auth != tls.NoClientCert; tr.CertificateAsked != asked ||
					tr.CertificateShown != (asked && tc.pair != "") {
					t.Errorf("%+v", tr)
				}
			})
		}
	}
}

// hangsUp is a server's connection that is reset when the client has answered the server's part of the handshake.
type hangsUp struct {
	*net.TCPConn
	wrote bool
}

func (c *hangsUp) Write(p []byte) (int, error) {
	c.wrote = true
	return c.TCPConn.Write(p)
}

func (c *hangsUp) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if c.wrote {
		_ = c.SetLinger(0) // the close is a reset, as with unread data
		_ = c.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

// Many servers close the connection right after the alert that says what they think of the client's certificate, and a
// reset overtakes it. That one was asked for which this device does not have says enough.
func TestHungUpOverACertificate(t *testing.T) {
	ca := newAuthority(t, "plant")
	cert, key := ca.client("dev")
	for name, tc := range map[string]struct {
		auth tls.ClientAuthType
		pair *KeyPair
		kind failure.Kind
	}{
		"missing":       {tls.RequestClientCert, nil, failure.TLSClientCertRequired},
		"shown":         {tls.RequestClientCert, loadPair(t, cert, key, nil), failure.HungUp},
		"not asked for": {tls.NoClientCert, nil, failure.HungUp},
	} {
		t.Run(name, func(t *testing.T) {
			conf := ca.conf(nil)
			conf.MaxVersion, conf.ClientAuth = tls.VersionTLS12, tc.auth // with it the client waits for the server's end
			l := listen(t)
			var wg sync.WaitGroup
			wg.Go(func() {
				if c, err := l.Accept(); err == nil {
					_ = tls.Server(&hangsUp{TCPConn: c.(*net.TCPConn)}, conf).HandshakeContext(t.Context()) // it fails
					_ = c.Close()
				}
			})
			defer wg.Wait()
			d := newDialer(t, Options{TLS: TLS{CAFile: ca.file}})
			target := Target{URL: &url.URL{Scheme: "wss", Host: l.Addr().String()}, Certificate: tc.pair}
			fails(t, d, target, tc.kind, failure.StageTLS)
		})
	}
}

// Sessions are resumed, but never one of another device's certificate.
func TestResumption(t *testing.T) {
	ca := newAuthority(t, "plant")
	conf := ca.conf(nil)
	conf.ClientAuth, conf.ClientCAs = tls.VerifyClientCertIfGiven, ca.pool()
	u := serve(t, echo("mqtt"), conf)
	d := newDialer(t, Options{TLS: TLS{CAFile: ca.file}})
	certFile, keyFile := ca.client("dev")
	pair := loadPair(t, certFile, keyFile, nil)
	for i, tc := range []struct {
		pair    *KeyPair
		resumed bool
	}{{nil, false}, {nil, true}, {pair, false}, {pair, false}, {nil, true}} {
		tr := &Trace{}
		connects(t, d, Target{URL: u, Certificate: tc.pair, Trace: tr})
		if tr.TLS.Resumed != tc.resumed || !tr.TLS.Resumed && tr.TLS.CertificateShown != (tc.pair != nil) {
			t.Errorf("dial %d: %+v", i, tr.TLS)
		}
	}
}

func TestExpiry(t *testing.T) {
	ca := newAuthority(t, "plant")
	conf := ca.conf(nil)
	u := serve(t, echo("mqtt"), conf)
	d := newDialer(t, Options{TLS: TLS{CAFile: ca.file}})
	if !d.CertificateExpires().IsZero() {
		t.Error("known before the first handshake")
	}
	tr := &Trace{}
	connects(t, d, Target{URL: u, Trace: tr})
	want := conf.Certificates[0].Leaf.NotAfter
	if got := d.CertificateExpires(); !got.Equal(want) {
		t.Errorf("expires %s, want %s", got, want)
	}
	if days := tr.TLS.Chain[0].DaysLeft(time.Now()); days != 9 {
		t.Errorf("%d days left", days)
	}
	for after, days := range map[time.Duration]int{
		-time.Second: 0, 0: 0, time.Second: -1, 24 * time.Hour: -1, 25 * time.Hour: -2, -24 * time.Hour: 1,
	} {
		if got := (Certificate{NotAfter: want}).DaysLeft(want.Add(after)); got != days {
			t.Errorf("%s after: %d days left, want %d", after, got, days)
		}
	}
}
