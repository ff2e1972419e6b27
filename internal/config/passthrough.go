package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"bridged/internal/credentials"
)

// ProviderPassThrough is the provider of clouds whose devices sign themselves.
const ProviderPassThrough = "passthrough"

// PassThrough is an entry that lets in devices which are not configured one by one: those that come from its addresses
// with a login for its cloud. What is configured for the entry holds for each of them.
type PassThrough struct {
	// MaxDevices is how many different ones it lets in.
	MaxDevices int

	template Device
}

// Name is the entry's.
func (p *PassThrough) Name() string { return p.template.Name }

// Cloud is where the devices belong.
func (p *PassThrough) Cloud() *Cloud { return p.template.Cloud }

// AllowFrom are the addresses that the devices may have.
func (p *PassThrough) AllowFrom() []netip.Prefix { return p.template.Login.AllowFrom }

// separator is between the name of an entry and what a cloud calls a device.
const separator = ":"

// DeviceName is the name of the device that a cloud calls so: "hall-3:boiler-1&a1B2c3D4e5F". What a name must not have
// is escaped, as in URLs.
func (p *PassThrough) DeviceName(who string) string {
	return p.Name() + separator + url.PathEscape(who)
}

// Who is the reverse of DeviceName; ok is false if it is not the name of a device of this entry.
func (p *PassThrough) Who(deviceName string) (who string, ok bool) {
	escaped, ok := strings.CutPrefix(deviceName, p.Name()+separator)
	if !ok || escaped == "" {
		return "", false
	}
	who, err := url.PathUnescape(escaped)
	return who, err == nil
}

// Identity is that of a device which presents this login. Its error says, for a person, why the login cannot be one for
// this cloud, without showing the password.
func (p *PassThrough) Identity(presented credentials.Login) (credentials.PassThrough, error) {
	id := PassedThrough(p.Cloud(), presented)
	if err := id.Validate(); err != nil {
		return id, err
	}
	who, err := id.Who()
	if err != nil {
		return id, err
	}
	if f := badName(p.DeviceName(who)); f != nil {
		return id, errors.New("what the cloud calls the device " + f.what)
	}
	return id, nil
}

// PassedThrough is a login as it is passed on to a cloud.
func PassedThrough(c *Cloud, presented credentials.Login) credentials.PassThrough {
	return credentials.PassThrough{Vendor: c.Vendor, Secure: c.URL.Scheme == "wss", Presented: presented}
}

// Device is what there is to say about the device that the cloud calls so. It is its own; of the login there is only
// where it may come from, since the cloud checks the rest.
func (p *PassThrough) Device(who string, id credentials.Identity) *Device {
	d := p.template
	d.Name, d.Identity, d.Login = p.DeviceName(who), id, Login{AllowFrom: p.AllowFrom()}
	return &d
}

// passesThrough says that a device is an entry for devices that sign themselves.
func (d *device) passesThrough() bool {
	return d.cloud != nil && d.cloud.Provider == ProviderPassThrough
}

// passThroughKeys reports keys of an entry that are for a single device. The same keys in the defaults are for others.
func (r *resolver) passThroughKeys(d *device) {
	k := d.keys
	for _, m := range []*mark{
		&k.Login.ClientID.mark, &k.Login.Username.mark, &k.Login.Password.mark, &k.Login.PasswordHash.mark,
		&k.Login.Anonymous.mark,
	} {
		if m.given && !m.bad {
			r.fault(m.place, fmt.Sprintf("is not for devices of the cloud %q, which passes logins through", d.cloud.Name),
				"remove it: the cloud checks what the devices present; allow_from limits their addresses")
		}
	}
	for _, m := range []*mark{&k.DeviceName.mark, &k.Subscribe.mark, &k.DoctorTopic.mark, &k.Topics.mark} {
		if m.given && !m.bad {
			r.fault(m.place, "is not for an entry that stands for many devices", "remove it: they use their cloud's words")
		}
	}
}

// passThrough completes an entry.
func (r *resolver) passThrough(d *device) {
	d.ClientCertificate = Certificate{d.cloud.TLS.CertFile, d.cloud.TLS.KeyFile}
	if k := &d.keys.Login; !k.bad && !k.AllowFrom.given {
		r.fault(d.keys.sub("login.allow_from"), "is missing",
			"write the addresses of the devices that this entry is for, for example [192.168.10.0/24]")
	}
}
