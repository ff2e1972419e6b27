package bridge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

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

// listeners turns the configuration's into the broker's.
func listeners(from []config.Listener) ([]broker.Listener, error) {
	to := make([]broker.Listener, len(from))
	for i, l := range from {
		to[i].Address = l.Address
		if !l.TLS {
			continue
		}
		cert, err := tls.LoadX509KeyPair(l.CertFile, l.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("listen[%d]: %w", i, err)
		}
		to[i].TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	}
	return to, nil
}
