package bridge

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"

	"bridged/internal/broker"
	"bridged/internal/config"
)

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
