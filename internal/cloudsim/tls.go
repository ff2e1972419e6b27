package cloudsim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// CA is a certificate authority that lives in memory. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a certificate authority that is valid from an hour ago for ten years.
func NewCA(name string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cloudsim: make CA key: %w", err)
	}
	t, err := template(name, time.Now().AddDate(10, 0, 0))
	if err != nil {
		return nil, err
	}
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cloudsim: make CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cloudsim: parse CA certificate: %w", err)
	}
	return &CA{cert: cert, key: key}, nil
}

// PEM is the CA's certificate.
func (a *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// WriteFile writes the CA's certificate to a file that everybody may read.
func (a *CA) WriteFile(path string) error {
	if err := os.WriteFile(path, a.PEM(), 0o644); err != nil {
		return fmt.Errorf("cloudsim: write CA certificate: %w", err)
	}
	return nil
}

// Pool is a pool with this CA only, for a client's RootCAs.
func (a *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// IssueServer makes a server certificate for names and addresses that expires at a given time, which may have passed.
func (a *CA) IssueServer(expires time.Time, hosts ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("cloudsim: make server key: %w", err)
	}
	t, err := template("cloudsim server", expires)
	if err != nil {
		return tls.Certificate{}, err
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := a.sign(t, key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// ClientCert is a client certificate with its key, both PEM.
type ClientCert struct {
	CertPEM, KeyPEM []byte
}

// IssueClient makes an ECDSA client certificate with the device's name as common name, valid for a year.
func (a *CA) IssueClient(device string) (*ClientCert, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cloudsim: make client key: %w", err)
	}
	return a.issueClient(device, key)
}

// IssueClientRSA is IssueClient with an RSA key, for passwords of the kind rsa-sha256.
func (a *CA) IssueClientRSA(device string) (*ClientCert, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("cloudsim: make client key: %w", err)
	}
	return a.issueClient(device, key)
}

func (a *CA) issueClient(device string, key crypto.Signer) (*ClientCert, error) {
	t, err := template(device, time.Now().AddDate(1, 0, 0))
	if err != nil {
		return nil, err
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := a.sign(t, key.Public())
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cloudsim: encode client key: %w", err)
	}
	return &ClientCert{
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}, nil
}

// TLS is the certificate as crypto/tls wants it.
func (c *ClientCert) TLS() (tls.Certificate, error) {
	cert, err := tls.X509KeyPair(c.CertPEM, c.KeyPEM)
	if err != nil {
		return cert, fmt.Errorf("cloudsim: load client certificate: %w", err)
	}
	return cert, nil
}

// WriteFiles writes client.crt and client.key into dir, the key readable by its owner only, and returns their paths.
func (c *ClientCert) WriteFiles(dir string) (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key")
	if err := os.WriteFile(certFile, c.CertPEM, 0o600); err != nil {
		return "", "", fmt.Errorf("cloudsim: write client certificate: %w", err)
	}
	if err := os.WriteFile(keyFile, c.KeyPEM, 0o600); err != nil {
		return "", "", fmt.Errorf("cloudsim: write client key: %w", err)
	}
	return certFile, keyFile, nil
}

func (a *CA) sign(t *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("cloudsim: sign certificate: %w", err)
	}
	return der, nil
}

func template(name string, expires time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("cloudsim: make serial number: %w", err)
	}
	from := time.Now().Add(-time.Hour)
	if expires.Before(from) {
		from = expires.Add(-time.Hour)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    from,
		NotAfter:     expires,
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}, nil
}

// serverTLS is the wss listener's configuration.
func (c *Cloud) serverTLS() (*tls.Config, error) {
	cert := c.opts.ServerCert
	if cert == nil {
		hosts := append([]string{"localhost", "127.0.0.1", "::1"}, c.opts.Hosts...)
		made, err := c.ca.IssueServer(time.Now().AddDate(1, 0, 0), hosts...)
		if err != nil {
			return nil, err
		}
		cert = &made
	}
	conf := &tls.Config{
		Certificates: []tls.Certificate{*cert},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"}, // a WebSocket upgrade is HTTP/1.1
		ClientCAs:    c.ca.Pool(),
	}
	switch c.opts.ClientCerts {
	case CertsOptional:
		conf.ClientAuth = tls.VerifyClientCertIfGiven
	case CertsRequired:
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if !c.holdWhile(nil, func() bool { return c.faults.stallTLS }) {
			return nil, errClosed
		}
		return nil, nil // go on with conf
	}
	return conf, nil
}
