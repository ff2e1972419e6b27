package config

import (
	"net/url"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"

	"bridged/internal/transport"
)

// This file is about the way to a cloud: proxy, headers, and whom to trust.

// proxy is a proxy setting. It may hold a password: it is not shown in faults.
type proxy struct{ text }

func (p *proxy) load(d *decoder, n *yaml.Node, tag reflect.StructTag) {
	d.leaf(p, n, tag)
	if u, err := url.Parse(p.value); err == nil && u.User != nil {
		_, password := u.User.Password()
		d.inlineSecrets = d.inlineSecrets || password
	}
}

// cloudWay resolves how to get to the cloud.
func (r *resolver) cloudWay(c *cloud) {
	k := c.keys
	c.StallTimeout = k.StallTimeout.value
	password := r.secret(&k.ProxyPassword)
	setting := "env"
	if k.Proxy.given {
		setting = k.Proxy.value
	}
	at := k.Proxy.place
	if !k.Proxy.given {
		at = k.ProxyPassword.place // what is wrong then is that there is one
	}
	if !k.Proxy.bad && !k.ProxyPassword.bad {
		var err error
		if c.Proxy, err = transport.ParseProxy(setting, password); err != nil {
			r.fault(at, proxyFault(err, k.Proxy.given), proxyRemedy(err))
		}
	}
	for _, name := range k.Headers.names {
		r.header(c, name, k.Headers.items[name])
	}
}

const proxyExample = "write http://HOST:PORT, https://HOST:PORT, socks5://HOST:PORT, env or none"

// proxyFault is what is wrong; the parser's errors say what to do after a colon.
func proxyFault(err error, given bool) string {
	if !given {
		return "is for a proxy, and there is none"
	}
	what, _, _ := strings.Cut(err.Error(), ": ")
	return what
}

func proxyRemedy(err error) string {
	_, remedy, _ := strings.Cut(err.Error(), ": ")
	if remedy == "" || strings.HasPrefix(remedy, "write http://HOST") {
		return proxyExample
	}
	return remedy
}

func (r *resolver) header(c *cloud, name string, s *secret) {
	value := r.secret(s)
	if s.bad {
		return
	}
	if err := transport.CheckHeader(name, value.Reveal()); err != nil {
		_, what, _ := strings.Cut(err.Error(), ": ") // the place names the header
		r.fault(s.place, what, "remove it, or write another header")
		return
	}
	if c.Headers == nil {
		c.Headers = make(map[string]Secret)
	}
	c.Headers[name] = value
}

// trust resolves whom to take for the cloud.
func (r *resolver) trust(c *cloud) {
	k := &c.keys.TLS
	if k.CAFile.value != "" && !k.CAFile.bad {
		c.TLS.CAFile = r.certificates(&k.CAFile)
	}
	c.TLS.CAOnly = k.CAOnly.value
	if k.CAOnly.value && !k.CAFile.given {
		r.fault(k.CAOnly.place, "says to trust ca_file only, and there is none", "write ca_file, or remove ca_only")
	}
	for i := range k.Pins.items {
		t := &k.Pins.items[i]
		if t.bad {
			continue
		}
		pin, err := transport.ParsePin(t.value)
		if err != nil {
			r.fault(t.place, "is not a pin", "write sha256/ and then the SHA-256 hash of the key in base64, 44 characters")
			continue
		}
		c.TLS.Pins = append(c.TLS.Pins, pin)
	}
}
