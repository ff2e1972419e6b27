package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bridged/internal/credentials"
)

const passing = `
clouds:
  pt:
    provider: passthrough
    vendor: aliyun
    url: wss://iot.example.com
  lab:
    provider: generic
    url: wss://broker.lab:8084/mqtt
defaults:
  login: {username: u, password: p}
  linger: 7s
  topics: [{local: a, cloud: b}]
devices:
  - name: hall
    cloud: pt
    login: {allow_from: [192.168.10.0/24]}
    max_devices: 5
  - name: press
    cloud: lab
`

func TestPassThroughEntry(t *testing.T) {
	c := load(t, passing, nil)
	if len(c.Warnings) > 0 || len(c.Devices) != 1 || len(c.PassThrough) != 1 {
		t.Fatalf("warnings %v, %d devices, %d entries", c.Warnings, len(c.Devices), len(c.PassThrough))
	}
	p := c.PassThrough[0]
	aliyun, _ := credentials.LimitsOf(credentials.ProviderAliyun)
	if p.Name() != "hall" || p.MaxDevices != 5 || p.Cloud() != c.Clouds["pt"] || p.Cloud().Limits != aliyun ||
		!slices.Equal(p.AllowFrom(), []netip.Prefix{netip.MustParsePrefix("192.168.10.0/24")}) {
		t.Errorf("%+v, cloud %+v", p, p.Cloud())
	}
	id, err := p.Identity(credentials.Login{ClientID: "1|securemode=3|", Username: "d&pk", Password: "x"})
	if err != nil || !id.Secure || id.Vendor != credentials.ProviderAliyun {
		t.Fatalf("%+v, %v", id, err)
	}
	d := p.Device("d&pk", id)
	if d.Name != "hall:d&pk" || d.Cloud != p.Cloud() || d.Linger != 7*time.Second || len(d.Topics) > 0 ||
		d.Login.Username != "" || d.Identity != credentials.Identity(id) {
		t.Errorf("%+v", d)
	}
	if who, ok := p.Who("hall:d&pk"); who != "d&pk" || !ok {
		t.Errorf("%q, %v", who, ok)
	}
	for _, name := range []string{"hall", "hall:", "hall-2:x", "press"} {
		if who, ok := p.Who(name); ok {
			t.Errorf("%q is %q", name, who)
		}
	}
}

// What a device calls itself becomes part of a name.
func TestPassThroughNames(t *testing.T) {
	p := load(t, strings.Replace(passing, "vendor: aliyun", "vendor: generic", 1), nil).PassThrough[0]
	for id, want := range map[string]string{
		"meter 7": "hall:meter%207", "a/b": "hall:a%2Fb", "evil\n": "hall:evil%0A", "50%": "hall:50%25", "": "",
		strings.Repeat("x", 124): "", strings.Repeat("x", 123): "hall:" + strings.Repeat("x", 123),
	} {
		_, err := p.Identity(credentials.Login{ClientID: id})
		if want == "" {
			if err == nil {
				t.Errorf("%q was accepted", id)
			}
			continue
		}
		if who, ok := p.Who(want); err != nil || p.DeviceName(id) != want || who != id || !ok {
			t.Errorf("%q: %v, name %q, back %q", id, err, p.DeviceName(id), who)
		}
	}
}
