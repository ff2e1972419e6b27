package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// mergeShared merges the defaults under a device. How a device proves who it is comes from one of the two as a whole,
// or else a device's password would meet the hash of the defaults.
func mergeShared(k, defaults *sharedKeys) {
	own := k.Login
	merge(reflect.ValueOf(k).Elem(), reflect.ValueOf(defaults).Elem())
	if own.Password.given || own.PasswordHash.given || own.Anonymous.value {
		k.Login.Password, k.Login.PasswordHash, k.Login.Anonymous = own.Password, own.PasswordHash, own.Anonymous
	}
	if own.Anonymous.value {
		k.Login.Username = own.Username
	}
}

// login builds what a device presents on the LAN.
func (r *resolver) login(d *device) {
	k := &d.keys.Login
	if k.bad {
		return
	}
	l := &d.Login
	l.ClientID, l.Username = k.ClientID.value, k.Username.value
	l.Anonymous = k.Anonymous.value
	if l.ClientID == "" && !k.ClientID.bad && !l.Anonymous && !d.passesThrough() {
		l.ClientID = d.Name
	}
	l.Password, l.PasswordHash = r.secret(&k.Password), r.secret(&k.PasswordHash)
	switch {
	case k.Password.given && k.PasswordHash.given:
		r.fault(k.PasswordHash.place, "is given together with password", "remove one of them")
	case l.Anonymous && (k.Password.given || k.PasswordHash.given || k.Username.given && l.Username != ""):
		r.fault(k.Anonymous.place, "is given together with a user name or password", "remove anonymous, or the others")
	}
	if l.PasswordHash != "" {
		if _, err := bcrypt.Cost([]byte(l.PasswordHash.Reveal())); err != nil {
			r.fault(k.PasswordHash.place, "is not a bcrypt hash", "make one with: bridged hash-password")
		}
	}
	for i := range k.AllowFrom.items {
		t := &k.AllowFrom.items[i]
		if t.bad {
			continue
		}
		p, err := parsePrefix(t.value)
		if err != nil {
			r.fault(t.place, quote(t.value)+" is neither an address nor a network",
				"write for example 192.168.10.7 or 192.168.10.0/24")
			continue
		}
		l.AllowFrom = append(l.AllowFrom, p)
	}
}

// parsePrefix reads an address or a network. IPv4 in IPv6 becomes IPv4.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("no address: %q", s)
		}
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, err
	}
	const mapped = 96 // bits before the IPv4 address in IPv6
	if p.Addr().Is4In6() {
		if p.Bits() < mapped {
			return p, fmt.Errorf("no network: %q", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p.Masked(), nil
}

// openLogins warns of devices that anybody can pretend to be who knows a client id: one warning a file.
func (r *resolver) openLogins(devices []*device) {
	open := make(map[string][]*device)
	for _, d := range devices {
		k := &d.keys.Login
		if d.passesThrough() {
			continue
		}
		if !k.bad && !d.Login.Anonymous && !k.Anonymous.bad && !k.Password.given && !k.PasswordHash.given {
			open[d.keys.file] = append(open[d.keys.file], d)
		}
	}
	for _, name := range r.files {
		if len(open[name]) == 0 {
			continue
		}
		first, others := open[name][0], ""
		if n := len(open[name]); n > 1 {
			others = fmt.Sprintf(" and %d more in this file", n-1)
		}
		r.warn(first.keys.sub("login.password"), fmt.Sprintf(
			"is missing for device %q%s: whoever says its client id is let in", first.Name, others),
			"write a password or password_hash, or anonymous: true and the client_id to say that this is meant")
	}
}
