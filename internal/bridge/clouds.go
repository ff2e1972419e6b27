package bridge

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"bridged/internal/clock"
	"bridged/internal/config"
	"bridged/internal/credentials"
	"bridged/internal/transport"
)

// clouds makes what devices have in common on the way to their clouds: a dialer for each cloud, and client
// certificates. Its methods are safe for concurrent use.
type clouds struct {
	clock *clock.Clock
	log   *zap.Logger

	mu    sync.Mutex // protects the following fields
	made  []*cloud
	pairs map[config.Certificate]*transport.KeyPair
	told  map[string]toldExpiry // by what the log calls the certificate
}

// cloud is what there is for each configured cloud.
type cloud struct {
	cfg    *config.Cloud
	trust  [sha256.Size]byte // what was in ca_file
	dialer *transport.Dialer
}

func newClouds(c *clock.Clock, log *zap.Logger) *clouds {
	return &clouds{
		clock: c, log: log, pairs: make(map[config.Certificate]*transport.KeyPair), told: make(map[string]toldExpiry),
	}
}

// of returns a cloud, and makes it unless there is one of the same configuration, with the same authorities to trust.
func (c *clouds) of(cfg *config.Cloud) (*cloud, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, made := range c.made {
		if made.cfg == cfg {
			return made, nil
		}
	}
	trust, err := trustOf(cfg)
	if err != nil {
		return nil, fmt.Errorf("cloud %s: %w", cfg.Name, err)
	}
	for _, made := range c.made {
		if made.trust == trust && sameCloud(made.cfg, cfg) {
			return made, nil
		}
	}
	dialer, err := transport.New(DialOptions(cfg, c.clock, c.log))
	if err != nil {
		return nil, fmt.Errorf("cloud %s: %w", cfg.Name, err)
	}
	made := &cloud{cfg: cfg, trust: trust, dialer: dialer}
	c.made = append(c.made, made)
	return made, nil
}

// DialOptions is how to connect to a cloud as it is configured. The clock learns from what is heard on the way.
func DialOptions(cfg *config.Cloud, c *clock.Clock, log *zap.Logger) transport.Options {
	log = log.With(zap.String("cloud", cfg.Name))
	return transport.Options{
		Proxy: cfg.Proxy,
		TLS: transport.TLS{
			CAFile: cfg.TLS.CAFile, CAOnly: cfg.TLS.CAOnly, ServerName: cfg.TLS.ServerName, MinVersion: cfg.TLS.MinVersion,
			Pins: cfg.TLS.Pins,
		},
		Header:     headers(cfg.Headers),
		Clock:      c.VerifyNow,
		VerifyTime: verifyTime(c, log),
		OnDate:     func(d transport.Date) { observe(c, d, log) },
	}
}

// trustOf is a sum of what is in a cloud's ca_file.
func trustOf(cfg *config.Cloud) (sum [sha256.Size]byte, err error) {
	if cfg.TLS.CAFile == "" {
		return sum, nil
	}
	pem, err := os.ReadFile(cfg.TLS.CAFile)
	if err != nil {
		return sum, fmt.Errorf("tls.ca_file: %w", err)
	}
	return sha256.Sum256(pem), nil
}

// keep forgets all clouds and client certificates but those of these devices.
func (c *clouds) keep(devices []*device) {
	used, pairs := make(map[*cloud]bool), make(map[*transport.KeyPair]bool)
	for _, d := range devices {
		used[d.parts.cloud], pairs[d.parts.target.Certificate] = true, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = slices.DeleteFunc(c.made, func(made *cloud) bool { return !used[made] })
	maps.DeleteFunc(c.pairs, func(_ config.Certificate, p *transport.KeyPair) bool { return !pairs[p] })
}

func headers(from map[string]config.Secret) http.Header {
	to := make(http.Header, len(from))
	for name, value := range from {
		to.Set(name, value.Reveal())
	}
	return to
}

// target is where a device connects to, and with what client certificate.
func (c *clouds) target(d *config.Device) (t transport.Target, err error) {
	t.URL = d.Cloud.URL
	if t.URL.Scheme == "wss" {
		t.Certificate, err = c.pair(d.ClientCertificate)
	}
	return t, err
}

// pair is nil for no certificate. Devices with the same files share it.
func (c *clouds) pair(files config.Certificate) (*transport.KeyPair, error) {
	if files.CertFile == "" {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pairs[files]; p != nil {
		return p, nil
	}
	log := c.log.With(zap.String("cert_file", files.CertFile))
	p, err := transport.LoadKeyPair(files.CertFile, files.KeyFile, func(err error) {
		if err != nil {
			log.Error("a client certificate has changed and cannot be used: the one before stays in use",
				zap.NamedError("err", err), zap.String("remedy", "check cert_file and key_file"))
			return
		}
		log.Info("a client certificate has changed, and is in use")
	})
	if err != nil {
		return nil, err
	}
	c.pairs[files] = p
	return p, nil
}

// observe passes on to the clock what time a cloud or a proxy says it is.
func observe(c *clock.Clock, d transport.Date, log *zap.Logger) {
	sample, ok := clock.FromResponse(d.Host, d.Header, d.TLS, d.Received.Sub(d.Sent))
	if !ok {
		return
	}
	if err := c.Observe(sample); err != nil {
		log.Debug("a time that was told is of no use", zap.NamedError("err", err))
	}
}

// ConnectKey is whom the cloud's connect limit applies to: the device as the cloud knows it.
func ConnectKey(d *config.Device) string {
	switch id := d.Identity.(type) {
	case credentials.Aliyun:
		return "aliyun/" + id.ProductKey + "/" + id.DeviceName
	case credentials.Tencent:
		return "tencent/" + id.ProductID + "/" + id.DeviceName
	case credentials.TencentCertificate:
		return "tencent/" + id.ProductID + "/" + id.DeviceName
	case credentials.Generic:
		return "generic/" + d.Cloud.URL.Host + "/" + id.ClientID
	}
	if g, ok := d.Identity.(*guest); ok { // the same as for a configured device
		switch name, product, _ := strings.Cut(g.who, "&"); d.Cloud.Vendor {
		case credentials.ProviderAliyun:
			return "aliyun/" + product + "/" + name
		case credentials.ProviderGeneric:
			return "generic/" + d.Cloud.URL.Host + "/" + g.who
		}
		return d.Cloud.Vendor + "/" + g.who
	}
	return d.Cloud.Provider + "/" + d.Cloud.Name + "/" + d.Name
}

// Timed says whether a device's login depends on the time.
func Timed(d *config.Device) bool {
	return d.Cloud.Provider == credentials.ProviderAliyun || d.Cloud.Provider == credentials.ProviderTencent
}
