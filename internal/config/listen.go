package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// defaultListen is where devices connect if nothing is written.
const defaultListen = "0.0.0.0:1883"

const listenExample = "write for example tcp://0.0.0.0:1883"

// resolveListeners builds the listeners and reports those that want the same address.
func (r *resolver) resolveListeners() {
	k := &r.keys.Listen
	if k.given && len(k.items) == 0 && !k.bad {
		r.fault(k.place, "is empty", listenExample+", or remove the key to get just that")
	}
	if !k.given {
		r.cfg.Listen = []Listener{{Address: defaultListen}}
		return
	}
	var places []place
	for i := range k.items {
		item := &k.items[i]
		l, ok := r.listener(item)
		if !ok {
			continue
		}
		for j, other := range r.cfg.Listen {
			if sameAddress(l.Address, other.Address) {
				r.fault(item.URL.place, fmt.Sprintf("%s is taken by %s (%s)", l.Address, other.Address, places[j]),
					"choose another port, or remove one of them")
			}
		}
		r.cfg.Listen = append(r.cfg.Listen, l)
		places = append(places, item.URL.place)
	}
}

// listener builds one listener. ok is false if its address is not known.
func (r *resolver) listener(k *listenKeys) (l Listener, ok bool) {
	if k.bad || k.URL.bad {
		return l, false
	}
	if !k.URL.given {
		r.fault(k.sub("url"), "is missing", listenExample)
		return l, false
	}
	address, secure, f := listenAddress(k.URL.value)
	if f != nil {
		r.fault(k.URL.place, f.what, f.remedy)
		return l, false
	}
	l = Listener{Address: address, TLS: secure}
	if !secure {
		for _, t := range []*text{&k.CertFile, &k.KeyFile} {
			if t.given {
				r.fault(t.place, "is only for TLS, and the url is tcp://", "write tls:// in the url, or remove the key")
			}
		}
		return l, true
	}
	if k.CertFile.value == "" && k.KeyFile.value == "" && !k.CertFile.bad && !k.KeyFile.bad {
		r.fault(k.sub("cert_file"), "is missing, and a tls:// listener needs it", "write cert_file and key_file")
	}
	r.keyPair(k.place, &k.CertFile, &k.KeyFile)
	l.CertFile, l.KeyFile = k.CertFile.path(), k.KeyFile.path()
	return l, true
}

// listenAddress takes a listener's URL apart.
func listenAddress(s string) (address string, secure bool, f *flaw) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found || scheme != "tcp" && scheme != "tls" {
		return "", false, &flaw{quote(s) + " does not begin with tcp:// or tls://", listenExample}
	}
	host, port, err := net.SplitHostPort(strings.TrimSuffix(rest, "/"))
	if err != nil {
		return "", false, &flaw{quote(s) + " is not HOST:PORT after " + scheme + "://", listenExample}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", false, &flaw{quote(s) + " has no port from 0 to 65535", listenExample}
	}
	// url.Parse knows which characters a host may have.
	if u, err := url.Parse("tcp://" + net.JoinHostPort(host, port)); err != nil || u.Hostname() != host {
		return "", false, &flaw{quote(s) + " has no valid host", listenExample}
	}
	return net.JoinHostPort(host, port), scheme == "tls", nil
}

// sameAddress says whether two listeners cannot both have their address. Port 0 is a free one each time.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || covers(hostA, hostB) || covers(hostB, hostA)
}

// covers says whether listening on host a takes the addresses of b: no host and [::] are every address of both kinds.
func covers(a, b string) bool {
	ipA, errA := netip.ParseAddr(a)
	ipB, errB := netip.ParseAddr(b)
	switch {
	case a == "" || errA == nil && ipA == netip.IPv6Unspecified():
		return true
	case errA == nil && ipA == netip.IPv4Unspecified():
		return errB != nil || ipB.Is4()
	}
	return false
}
