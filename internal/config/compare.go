package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"bridged/internal/credentials"
)

// compare reports devices that would stand in each other's way.
func (r *resolver) compare(devices []*device) {
	names := make(map[string]*device)
	ids := make(map[string]*device)
	var distinct []*device
	for _, d := range devices {
		if d.keys.Name.bad {
			continue
		}
		if other := names[d.Name]; other != nil {
			r.fault(d.keys.Name.place, fmt.Sprintf("%s is taken by the device at %s", quote(d.Name), other.keys.Name.place),
				"give each device a name of its own")
			continue // its defaults come from the name: they are the same, too
		}
		names[d.Name] = d
		distinct = append(distinct, d)
		key, what := d.cloudIdentity()
		if key == "" {
			continue
		}
		if other := ids[key]; other != nil {
			r.fault(d.identityPlace(), fmt.Sprintf("is the same as that of device %q (%s): %s; the cloud would "+
				"disconnect one whenever the other connects", other.Name, other.keys.Name.place, what),
				"give each device its own identity from the cloud's console")
			continue
		}
		ids[key] = d
	}
	r.compareLogins(distinct)
}

// cloudIdentity is what a cloud tells its devices apart by, in one string and in words; empty if it is not known.
func (d *device) cloudIdentity() (key, what string) {
	if d.keys.DeviceName.bad || d.keys.ClientID.bad {
		return "", ""
	}
	switch id := d.Identity.(type) {
	case credentials.Aliyun:
		what = fmt.Sprintf("product_key %s, device_name %s", id.ProductKey, id.DeviceName)
	case credentials.Tencent:
		what = fmt.Sprintf("product_id %s, device_name %s", id.ProductID, id.DeviceName)
	case credentials.TencentCertificate:
		what = fmt.Sprintf("product_id %s, device_name %s", id.ProductID, id.DeviceName)
	case credentials.Generic:
		if d.cloud.URL == nil {
			return "", ""
		}
		what = fmt.Sprintf("client_id %s at %s", id.ClientID, d.cloud.URL.Host)
	default:
		return "", ""
	}
	return d.cloud.Provider + " " + what, what
}

// identityPlace is the key that gives the device its identity in the cloud.
func (d *device) identityPlace() place {
	k := d.keys
	t := &k.DeviceName
	if d.cloud.Provider == credentials.ProviderGeneric {
		t = &k.ClientID
	}
	if t.given {
		return t.place
	}
	return k.Name.place
}

// entry is one network that a device's login holds for.
type entry struct {
	d       *device
	network netip.Prefix
}

// compareLogins reports devices that a login on the LAN cannot tell apart: same client id, same user name, and an
// address that both may have. Networks either contain each other or have nothing in common, so that, sorted, a network
// is only to be compared with those that are still open around it.
func (r *resolver) compareLogins(devices []*device) {
	groups := make(map[[2]string][]entry)
	var keys [][2]string // in the order of the file
	for _, d := range devices {
		if d.passesThrough() {
			continue // configured devices come first, and the form of a login tells entries apart
		}
		if l := &d.keys.Login; l.bad || l.ClientID.bad || l.Username.bad || l.Anonymous.bad || l.AllowFrom.bad {
			continue
		}
		key := [2]string{d.Login.ClientID, d.Login.Username}
		if groups[key] == nil {
			keys = append(keys, key)
		}
		for _, p := range networksOf(d) {
			groups[key] = append(groups[key], entry{d, p})
		}
	}
	for _, key := range keys {
		if len(groups[key]) > 1 {
			r.compareGroup(groups[key])
		}
	}
}

func networksOf(d *device) []netip.Prefix {
	if len(d.keys.Login.AllowFrom.items) > 0 {
		return d.Login.AllowFrom
	}
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

func (r *resolver) compareGroup(group []entry) {
	slices.SortStableFunc(group, func(a, b entry) int {
		return cmp.Or(a.network.Addr().Compare(b.network.Addr()), cmp.Compare(a.network.Bits(), b.network.Bits()))
	})
	var around []entry // each one contains the next
	for _, e := range group {
		for len(around) > 0 && !around[len(around)-1].network.Overlaps(e.network) {
			around = around[:len(around)-1]
		}
		for i := len(around) - 1; i >= 0; i-- {
			other := around[i].d
			if other == e.d {
				continue // it may list a network twice
			}
			r.sameLogin(other, e.d)
			break
		}
		around = append(around, e)
	}
}

// sameLogin reports two devices with the same login, at the later one.
func (r *resolver) sameLogin(a, b *device) {
	if later(a.keys.place, b.keys.place, r.files) {
		a, b = b, a
	}
	what := "any client id"
	if b.Login.ClientID != "" {
		what = "client id " + quote(b.Login.ClientID)
	}
	if b.Login.Username != "" {
		what += ", user name " + quote(b.Login.Username)
	}
	at := b.keys.Login.place
	if !b.keys.Login.given {
		at = b.keys.sub("login")
	}
	r.fault(at, fmt.Sprintf("cannot be told apart from that of device %q (%s): %s, and an address that both may have",
		a.Name, a.keys.Name.place, what), "give each its own client_id, username or allow_from")
}

// later says whether a stands after b.
func later(a, b place, files []string) bool {
	if a.file != b.file {
		return slices.Index(files, a.file) > slices.Index(files, b.file)
	}
	return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.col, b.col), strings.Compare(a.path, b.path)) > 0
}
