package bridge

import (
	"crypto/tls"
	"fmt"

	"bridged/internal/broker"
	"bridged/internal/config"
)

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
