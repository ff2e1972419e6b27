package config

import "testing"

func TestAdmin(t *testing.T) {
	for name, tc := range map[string]struct {
		yaml string
		want Admin
	}{
		"default":   {"", Admin{Listen: "127.0.0.1:9883", Optional: true}},
		"off":       {`admin: {listen: ""}`, Admin{}},
		"name":      {"admin: {listen: 'localhost:1'}", Admin{Listen: "localhost:1"}},
		"IPv6":      {"admin: {listen: '[::1]:1'}", Admin{Listen: "[::1]:1"}},
		"other":     {"admin: {listen: 127.1.2.3:1}", Admin{Listen: "127.1.2.3:1"}},
		"mapped":    {"admin: {listen: '[::ffff:127.0.0.1]:1'}", Admin{Listen: "[::ffff:127.0.0.1]:1"}},
		"elsewhere": {"admin: {listen: ':1', token: 0123456789abcdef}", Admin{Listen: ":1", Token: "0123456789abcdef"}},
		"token": {"admin: {token: 0123456789abcdef}",
			Admin{Listen: "127.0.0.1:9883", Optional: true, Token: "0123456789abcdef"}},
		"all": {"admin: {listen: '127.0.0.1:1', device_metrics: 7, pprof: true}",
			Admin{Listen: "127.0.0.1:1", DeviceMetrics: 7, PProf: true}},
	} {
		t.Run(name, func(t *testing.T) {
			if c := load(t, base+tc.yaml, nil); c.Admin != tc.want {
				t.Errorf("%+v, want %+v", c.Admin, tc.want)
			}
		})
	}
}
