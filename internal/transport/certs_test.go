package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t, file: filepath.Join(t.TempDir(), "ca.pem")}
	tmpl := template(name)
	tmpl.NotBefore = time.Now().AddDate(-20, 0, 0)
	tmpl.NotAfter = time.Now().AddDate(20, 0, 0)
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	pair := a.sign(tmpl)
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	a.write(a.file, "CERTIFICATE", a.cert.Raw)
	return a
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// sign makes a certificate; without a key of its own yet the authority signs itself.
func (a *authority) sign(tmpl *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// server makes a certificate for 127.0.0.1 and cloud.test, with changes.
func (a *authority) server(change func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	tmpl := template("server")
	tmpl.DNSNames, tmpl.IPAddresses = []string{"cloud.test"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if change != nil {
		change(tmpl)
	}
	return a.sign(tmpl)
}

// conf is a server's configuration.
func (a *authority) conf(change func(*x509.Certificate)) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.server(change)}, MinVersion: tls.VersionTLS10}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// client writes a client certificate into files of a new directory.
func (a *authority) client(name string) (certFile, keyFile string) {
	a.t.Helper()
	dir := a.t.TempDir()
	certFile, keyFile = filepath.Join(dir, "c.crt"), filepath.Join(dir, "c.key")
	a.writeClient(name, certFile, keyFile)
	return certFile, keyFile
}

func (a *authority) writeClient(name, certFile, keyFile string) {
	a.t.Helper()
	tmpl := template(name)
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	pair := a.sign(tmpl)
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(certFile, "CERTIFICATE", pair.Certificate[0])
	a.write(keyFile, "PRIVATE KEY", key)
}

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func loadPair(t testing.TB, certFile, keyFile string, report func(error)) *KeyPair {
	t.Helper()
	k, err := LoadKeyPair(certFile, keyFile, report)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
