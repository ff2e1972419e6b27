package config

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"bridged/internal/credentials"
)

// cloud is a Cloud together with its keys.
type cloud struct {
	*Cloud
	keys *cloudKeys
}

// resolveClouds builds the clouds. One with faults is there too, with what could be had of it.
func (r *resolver) resolveClouds() {
	r.clouds = make(map[string]*cloud)
	r.cfg.Clouds = make(map[string]*Cloud)
	for _, name := range r.keys.Clouds.names {
		c := r.cloud(name, r.keys.Clouds.items[name])
		r.clouds[name] = c
		r.cfg.Clouds[name] = c.Cloud
	}
}

func (r *resolver) cloud(name string, k *cloudKeys) *cloud {
	c := &cloud{Cloud: &Cloud{Name: name}, keys: k}
	if k.bad {
		return c
	}
	if !k.Provider.given {
		r.fault(k.sub("provider"), "is missing", "write "+orList(append(credentials.Providers(), ProviderPassThrough)))
	}
	if !k.Provider.bad {
		c.Provider = k.Provider.value
	}
	r.vendor(c)
	r.foreignKeys(reflect.ValueOf(k).Elem(), c)
	r.foreignKeys(reflect.ValueOf(&k.TLS).Elem(), c)
	r.cloudURL(c)
	r.signing(c)
	r.cloudLimits(c)
	r.keepalive(c)
	r.cloudWay(c)
	r.cloudTLS(c)
	return c
}

// vendor finds out whose cloud it is.
func (r *resolver) vendor(c *cloud) {
	k := &c.keys.Vendor
	switch {
	case c.Provider != ProviderPassThrough:
		c.Vendor = c.Provider
	case !k.given:
		r.fault(c.keys.sub("vendor"), "is missing", "write "+orList(credentials.Providers())+
			": whose logins the devices make")
	case !k.bad:
		c.Vendor = k.value
	}
}

// foreignKeys reports keys of a section that the cloud's provider does not know.
func (r *resolver) foreignKeys(section reflect.Value, c *cloud) {
	if c.Provider == "" {
		return
	}
	for _, k := range keysOf(section.Type()) {
		m := section.FieldByIndex(k.index).Addr().Interface().(marked).state()
		owners := strings.Fields(k.tag.Get("provider"))
		if !m.given || len(owners) == 0 || slices.Contains(owners, c.Provider) {
			continue
		}
		m.bad = true
		r.fault(m.place, fmt.Sprintf("belongs to the provider %s, and the cloud %q is %s",
			strings.Join(owners, " or "), c.Name, c.Provider), foreignRemedy(k.name, c.Provider))
	}
}

// foreignRemedy says what to do about a key of another provider.
func foreignRemedy(key, provider string) string {
	switch {
	case provider == ProviderPassThrough:
		return "remove it: the devices bring their logins"
	case key == "product_key" && provider == credentials.ProviderTencent:
		return "write product_id"
	case key == "product_id" && provider == credentials.ProviderAliyun:
		return "write product_key"
	case key == "device_secret":
		return "write password"
	case key == "username" || key == "password":
		return "write device_secret; what the device presents on the LAN goes under login"
	}
	return "remove it"
}

const cloudURLExample = "write for example wss://broker.example.com:8084/mqtt"

// cloudURL parses the URL and fills in port and path. Its text is not shown in faults: it might hold a password.
func (r *resolver) cloudURL(c *cloud) {
	k := &c.keys.URL
	if k.bad {
		return
	}
	if !k.given {
		r.fault(c.keys.sub("url"), "is missing", cloudURLExample)
		return
	}
	u, err := url.Parse(k.value)
	if err != nil {
		r.fault(k.place, "is not a URL", cloudURLExample)
		return
	}
	switch scheme := strings.ToLower(u.Scheme); {
	case scheme != "ws" && scheme != "wss":
		r.fault(k.place, "does not begin with ws:// or wss://", cloudURLExample)
	case u.User != nil:
		r.fault(k.place, "holds a user name", "remove it; logins belong to devices")
	case u.Fragment != "" || strings.HasSuffix(k.value, "#"):
		r.fault(k.place, `has a "#", which a WebSocket URL must not have`, "remove it and what follows")
	case u.Hostname() == "":
		r.fault(k.place, "has no host", cloudURLExample)
	case u.Port() != "" && !validPort(u.Port()) || strings.HasSuffix(u.Host, ":"):
		r.fault(k.place, "has no port from 1 to 65535", "write for example :443 after the host, or nothing for the default")
	default:
		u.Scheme = scheme
		u.Host = net.JoinHostPort(u.Hostname(), portOf(u, c.Vendor))
		if u.Path == "" {
			u.Path = "/"
		}
		c.URL = u
	}
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func portOf(u *url.URL, vendor string) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "wss" || vendor == credentials.ProviderAliyun: // Alibaba has ws on 443, too
		return "443"
	}
	return "80"
}

// signing checks the keys that only matter to identities, so that their faults come once, not with every device.
func (r *resolver) signing(c *cloud) {
	k := c.keys
	if c.Provider != credentials.ProviderTencent {
		return
	}
	if k.SignMethod.value == string(credentials.HMACMD5) && !k.SignMethod.bad {
		k.SignMethod.bad = true
		r.fault(k.SignMethod.place, "Tencent does not know hmacmd5", "write hmacsha256 or hmacsha1")
	}
	if !k.SDKAppID.bad && (k.SDKAppID.value == "" || strings.Trim(k.SDKAppID.value, "0123456789") != "") {
		k.SDKAppID.bad = true
		r.fault(k.SDKAppID.place, quote(k.SDKAppID.value)+" is not a number",
			"remove the key to use "+credentials.DefaultSDKAppID)
	}
	if f := k.Expiry.wholeSeconds(); f != nil {
		k.Expiry.bad = true
		r.fault(k.Expiry.place, f.what, "write for example 1h")
	}
}

// cloudLimits applies the overrides to what the provider allows.
func (r *resolver) cloudLimits(c *cloud) {
	l, _ := credentials.LimitsOf(c.Vendor)
	k := &c.keys.Limits
	override(&l.KeepaliveMin, &k.KeepaliveMin.mark, k.KeepaliveMin.value)
	override(&l.KeepaliveMax, &k.KeepaliveMax.mark, k.KeepaliveMax.value)
	override(&l.MaxQoS, &k.MaxQoS.mark, byte(k.MaxQoS.value))
	override(&l.Retain, &k.Retain.mark, k.Retain.value)
	override(&l.Will, &k.Will.mark, k.Will.value)
	override(&l.MaxPayload, &k.MaxPayload.mark, k.MaxPayload.value)
	override(&l.UplinkPerSecond, &k.UplinkPerSecond.mark, k.UplinkPerSecond.value)
	override(&l.Connects, &k.Connects.mark, k.Connects.value)
	override(&l.MaxInFlight, &k.MaxInFlight.mark, k.MaxInFlight.value)
	override(&l.FiltersPerSubscribe, &k.FiltersPerSubscribe.mark, k.FiltersPerSubscribe.value)
	override(&l.MaxSubscriptions, &k.MaxSubscriptions.mark, k.MaxSubscriptions.value)
	override(&l.MaxTopicBytes, &k.MaxTopicBytes.mark, k.MaxTopicBytes.value)
	override(&l.MaxTopicLevels, &k.MaxTopicLevels.mark, k.MaxTopicLevels.value)
	override(&l.MaxClientID, &k.MaxClientID.mark, k.MaxClientID.value)
	for _, d := range []*duration{&k.KeepaliveMin, &k.KeepaliveMax} {
		if f := d.wholeSeconds(); f != nil {
			r.fault(d.place, f.what, f.remedy)
		}
	}
	if c.Vendor != "" && l.KeepaliveMin > l.KeepaliveMax {
		at := k.KeepaliveMin.place
		if !k.KeepaliveMin.given {
			at = k.KeepaliveMax.place
		}
		r.fault(at, fmt.Sprintf("the least keepalive (%s) is above the greatest (%s)", seconds(l.KeepaliveMin),
			seconds(l.KeepaliveMax)), "write both keepalive_min and keepalive_max")
		l.KeepaliveMin = l.KeepaliveMax
	}
	l.KeepaliveDefault = min(max(l.KeepaliveDefault, l.KeepaliveMin), l.KeepaliveMax)
	c.Limits = l
}

// override replaces a limit if its key is written.
func override[T any](limit *T, m *mark, value T) {
	if m.given && !m.bad {
		*limit = value
	}
}

// keepalive checks the keepalive against what the cloud accepts.
func (r *resolver) keepalive(c *cloud) {
	k := &c.keys.Keepalive
	c.Keepalive = c.Limits.KeepaliveDefault
	if !k.given || k.bad || c.Vendor == "" {
		return
	}
	c.Keepalive = k.value
	low, high := c.Limits.KeepaliveMin, c.Limits.KeepaliveMax
	if f := k.wholeSeconds(); f != nil {
		r.fault(k.place, f.what, f.remedy)
	} else if k.value < low || k.value > high {
		r.fault(k.place, fmt.Sprintf("%s is outside of what the provider %s accepts", seconds(k.value), c.Vendor),
			fmt.Sprintf("write %s to %s", seconds(low), seconds(high)))
	}
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'g', -1, 64) + "s" }

// cloudTLS checks the TLS section and the files it names.
func (r *resolver) cloudTLS(c *cloud) {
	k := &c.keys.TLS
	c.TLS = TLS{
		CertFile: k.CertFile.path(), KeyFile: k.KeyFile.path(),
		ServerName: k.ServerName.value, MinVersion: tls.VersionTLS12,
	}
	if k.MinVersion.value == "1.3" {
		c.TLS.MinVersion = tls.VersionTLS13
	}
	if k.given && c.URL != nil && c.URL.Scheme == "ws" {
		r.fault(k.place, "is only for wss://, and the url is ws://", "write wss:// in the url, or remove tls")
		return
	}
	r.trust(c)
	r.keyPair(k.place, &k.CertFile, &k.KeyFile)
}
