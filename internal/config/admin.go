package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// minToken is how many characters a token has at least, so that it cannot be guessed.
const minToken = 16

const adminExample = "write for example 127.0.0.1:9883"

// resolveAdmin builds what is shown over HTTP. What is shown to other machines needs a token.
func (r *resolver) resolveAdmin() {
	k := &r.keys.Admin
	token := r.secret(&k.Token)
	r.cfg.Admin = Admin{
		Optional: !k.Listen.given, Token: token, DeviceMetrics: k.DeviceMetrics.value, PProf: k.PProf.value,
	}
	if token != "" && len(token) < minToken {
		r.fault(k.Token.place, fmt.Sprintf("has less than %d characters", minToken),
			"make a longer one: head -c 24 /dev/urandom | base64")
	}
	if k.Listen.bad || k.Listen.value == "" {
		return
	}
	host, f := adminAddress(k.Listen.value)
	if f != nil {
		r.fault(k.Listen.place, f.what, f.remedy)
		return
	}
	r.cfg.Admin.Listen = k.Listen.value
	if token == "" && !k.Token.bad && !loopback(host) {
		r.fault(k.Listen.place, quote(k.Listen.value)+" can be reached from other machines, and there is no admin.token",
			"set admin.token, or "+adminExample)
	}
}

// adminAddress checks HOST:PORT.
func adminAddress(s string) (host string, f *flaw) {
	host, port, err := net.SplitHostPort(s)
	if err != nil || strings.Contains(s, "/") {
		return "", &flaw{quote(s) + " is not HOST:PORT", adminExample}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", &flaw{quote(s) + " has no port from 0 to 65535", adminExample}
	}
	// url.Parse knows which characters a host may have.
	if u, err := url.Parse("tcp://" + net.JoinHostPort(host, port)); err != nil || u.Hostname() != host {
		return "", &flaw{quote(s) + " has no valid host", adminExample}
	}
	return host, nil
}

// loopback says whether a host is this machine only. None, and the unspecified addresses, are all of its addresses.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
