package demo

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bridged/internal/cloudsim"
	"bridged/internal/config"
	"bridged/internal/credentials"
)

// madeUp takes the demo's clouds.
func (s *simulation) madeUp() {
	for _, c := range clouds() {
		if s.wants(c.opts.Kind) {
			s.add(&simCloud{name: c.name, opts: c.opts})
		}
	}
	for _, name := range []string{boiler, pump, press, guest, listener} {
		s.acct.device = max(s.acct.device, len(name))
	}
}

var kinds = map[string]cloudsim.Kind{
	credentials.ProviderAliyun:  cloudsim.Aliyun,
	credentials.ProviderTencent: cloudsim.Tencent,
	credentials.ProviderGeneric: cloudsim.Generic,
}

// fromConfig takes the clouds of a configuration, with the devices that belong to them.
func (s *simulation) fromConfig(cfg *config.Config) error {
	byCloud := make(map[*config.Cloud]*simCloud)
	for _, name := range slices.Sorted(maps.Keys(cfg.Clouds)) {
		c := cfg.Clouds[name]
		if !s.wants(kinds[c.Vendor]) {
			continue
		}
		sim := &simCloud{name: name, cfg: c, opts: cloudsim.Options{
			Kind: kinds[c.Vendor],
			// Its devices bring their logins, which nothing is known of: see unchecked.
			Anonymous: c.Provider == config.ProviderPassThrough && c.Vendor == credentials.ProviderGeneric,
			Paths:     []string{c.URL.Path},
			Hosts:     []string{c.URL.Hostname()}, // for a client that is sent here by /etc/hosts
		}}
		byCloud[c] = sim
		s.add(sim)
	}
	for _, d := range cfg.Devices {
		if sim := byCloud[d.Cloud]; sim != nil {
			if err := sim.addDevice(d); err != nil {
				return err
			}
			s.acct.device = min(max(s.acct.device, len([]rune(d.Name))), maxDeviceColumn)
		}
	}
	return nil
}

const maxDeviceColumn = 24

// unchecked says that the cloud's devices sign with secrets that are not known, so that it cannot let them in.
func (c *simCloud) unchecked() bool {
	return c.cfg != nil && c.cfg.Provider == config.ProviderPassThrough && !c.opts.Anonymous
}

// addDevice makes a device's identity known to the simulated cloud.
func (c *simCloud) addDevice(d *config.Device) error {
	sim := cloudsim.Device{}
	switch id := d.Identity.(type) {
	case credentials.Aliyun:
		sim.Name, sim.Product, sim.Secret = id.DeviceName, id.ProductKey, id.Secret.Reveal()
	case credentials.Tencent:
		sim.Name, sim.Product, sim.Secret = id.DeviceName, id.ProductID, id.Secret.Reveal()
	case credentials.TencentCertificate:
		sim.Name, sim.Product, sim.Certificate = id.DeviceName, id.ProductID, true
		c.certs = append(c.certs, clientCert{
			device: d.Name, commonName: id.DeviceName, rsa: id.CertPassword == credentials.CertPasswordRSASHA256,
		})
	case credentials.Generic:
		return c.addUser(d.Name, id)
	default:
		return fmt.Errorf("device %s: an identity of type %T cannot be simulated", d.Name, id)
	}
	for _, other := range c.opts.Devices {
		if other.Name == sim.Name {
			return fmt.Errorf("device %s: another device of cloud %s has the device name %q, and the simulation does not tell "+
				"them apart", d.Name, c.name, sim.Name)
		}
	}
	c.opts.Devices = append(c.opts.Devices, sim)
	return nil
}

func (c *simCloud) addUser(device string, id credentials.Generic) error {
	if id.Username == "" {
		c.opts.Anonymous = true
		return nil
	}
	password := id.Password.Reveal()
	if other, ok := c.opts.Users[id.Username]; ok && other != password {
		return fmt.Errorf("device %s: another device of cloud %s has the user name %q with another password",
			device, c.name, id.Username)
	}
	if c.opts.Users == nil {
		c.opts.Users = make(map[string]string)
	}
	c.opts.Users[id.Username] = password
	return nil
}

// clientCert is a certificate that a device needs for the simulated cloud, which cannot check its real one.
type clientCert struct {
	device, commonName string
	rsa                bool
	certFile, keyFile  string // once issued
}

// issue writes the certificates.
func (c *simCloud) issue(ca *cloudsim.CA, dir string) error {
	for i := range c.certs {
		cc := &c.certs[i]
		issue := ca.IssueClient
		if cc.rsa {
			issue = ca.IssueClientRSA
		}
		cert, err := issue(cc.commonName)
		if err != nil {
			return err
		}
		own := filepath.Join(dir, "device-"+cc.device) // a name may be ".."
		if err := os.MkdirAll(own, 0o700); err != nil {
			return err
		}
		if cc.certFile, cc.keyFile, err = cert.WriteFiles(own); err != nil {
			return err
		}
	}
	return nil
}

func hasWildcard(filter string) bool { return strings.ContainsAny(filter, "+#") }

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
