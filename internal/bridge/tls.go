package bridge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"bridged/internal/broker"
	"bridged/internal/config"
)

// clientTLS makes the TLS configurations towards the clouds. Devices without a client certificate share their cloud's.
type clientTLS struct {
	shared map[*config.Cloud]*tls.Config
}

func newClientTLS() *clientTLS { return &clientTLS{shared: make(map[*config.Cloud]*tls.Config)} }

// config returns nil for ws.
func (t *clientTLS) config(d *config.Device) (*tls.Config, error) {
	c := d.Cloud
	if c.URL.Scheme != "wss" {
		return nil, nil
	}
	base := t.shared[c]
	if base == nil {
		base = &tls.Config{MinVersion: c.TLS.MinVersion, ServerName: c.TLS.ServerName}
		if c.TLS.CAFile != "" {
			pool, err := readPool(c.TLS.CAFile)
			if err != nil {
				return nil, err
			}
			base.RootCAs = pool
		}
		t.shared[c] = base
	}
	cert := d.ClientCertificate
	if cert.CertFile == "" {
		return base, nil
	}
	own := base.Clone()
	// Read for each handshake, so that a renewed certificate is used without a restart.
	own.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert.CertFile, cert.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		return &pair, nil
	}
	return own, nil
}

var errNoCertificate = errors.New("no certificate in PEM format found")

func readPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls.ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.ca_file %s: %w", file, errNoCertificate)
	}
	return pool, nil
}

// certificates are those of the listeners. Their files are read again with a reload.
type certificates struct{ all []*certificate }

type certificate struct {
	listener config.Listener
	path     string // in the configuration
	pair     atomic.Pointer[tls.Certificate]
}

// listeners turns the configuration's into the broker's.
func (c *certificates) listeners(from []config.Listener) ([]broker.Listener, error) {
	to := make([]broker.Listener, len(from))
	for i, l := range from {
		to[i].Address = l.Address
		if !l.TLS {
			continue
		}
		cert := &certificate{listener: l, path: fmt.Sprintf("listen[%d]", i)}
		c.all = append(c.all, cert)
		to[i].TLS = &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.pair.Load(), nil },
		}
	}
	use, err := c.read()
	for _, f := range use {
		f()
	}
	return to, err
}

// read reads all files and returns what has the certificates used from now on.
func (c *certificates) read() (use []func(), err error) {
	for _, cert := range c.all {
		pair, err := tls.LoadX509KeyPair(cert.listener.CertFile, cert.listener.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cert.path, err)
		}
		use = append(use, func() { cert.pair.Store(&pair) })
	}
	return use, nil
}
