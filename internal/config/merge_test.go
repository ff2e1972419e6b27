package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestDefaultsAreMerged(t *testing.T) {
	c := load(t, `
queue: {max_messages: 1, max_age: 1h}
clouds:
  one: {provider: generic, url: "ws://one"}
  two: {provider: generic, url: "ws://two"}
defaults:
  cloud: two
  upstream: always
  linger: 1m
  session: persistent
  login: {username: u, password: p, allow_from: [10.0.0.0/8]}
  queue: {max_messages: 2, on_full: drop_newest}
  subscribe: [{filter: "a/${name}"}]
  topics: [{local: x, cloud: "${name}/x"}]
devices:
  - name: plain
  - name: own
    cloud: one
    upstream: on_demand
    linger: 0s
    session: mirror
    login: {username: v, allow_from: []}
    queue: {max_messages: 3}
    subscribe: [{filter: b}]
    topics: []
`, nil)
	for name, want := range map[string]string{
		"plain": "two {ClientID:plain Username:u Password:*** PasswordHash: Anonymous:false AllowFrom:[10.0.0.0/8]} " +
			"true 1m0s true {MaxMessages:2 MaxBytes:16777216 MaxAge:1h0m0s " +
			"SpillAfter:1s Always:false OnFull:drop_newest StoreQoS0:true} " +
			"[{Filter:a/plain QoS:1}] [{Local:x Cloud:plain/x Direction:both}]",
		"own": "one {ClientID:own Username:v Password:*** PasswordHash: Anonymous:false AllowFrom:[]} " +
			"false 0s false {MaxMessages:3 MaxBytes:16777216 MaxAge:1h0m0s " +
			"SpillAfter:1s Always:false OnFull:drop_newest StoreQoS0:true} " +
			"[{Filter:b QoS:1}] []",
	} {
		d := c.Device(name)
		got := fmt.Sprintf("%s %+v %v %v %v %+v %+v %+v", d.Cloud.Name, d.Login, d.Always, d.Linger, d.Persistent, d.Queue,
			d.Subscribe, d.Topics)
		if got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
}

// How a device proves who it is comes from the device or from the defaults, never half from each.
func TestLoginProofIsNotMixed(t *testing.T) {
	const hash = "$2a$04$0PQU4ltaoBHYgMVbNq4bD.1VlYBk/kwqcRwVY7CzUmB2GNeNfE5Bm"
	for _, test := range []struct{ defaults, own, want string }{
		{"password: p", "{}", "user  password p hash  anonymous false"},
		{"password: p", "username: v", "user v password p hash  anonymous false"},
		{"username: u, password: p", "password: q", "user u password q hash  anonymous false"},
		{"username: u, password: p", "password_hash: " + hash, "user u password  hash " + hash + " anonymous false"},
		{"username: u, password: p", "anonymous: true", "user  password  hash  anonymous true"},
		{"username: u, password: p", "anonymous: false", "user u password p hash  anonymous false"},
		{"username: u, password_hash: " + hash, "password: q", "user u password q hash  anonymous false"},
		{"anonymous: true", "password: q", "user  password q hash  anonymous false"},
		{"anonymous: true", "username: v, password: q", "user v password q hash  anonymous false"},
		{"anonymous: true", "{}", "user  password  hash  anonymous true"},
	} {
		own := "{" + strings.Trim(test.own, "{}") + "}"
		c := load(t, fmt.Sprintf(`
clouds: {c: {provider: generic, url: "ws://c"}}
defaults: {login: {%s}}
devices: [{name: d, login: %s}]
`, test.defaults, own), nil)
		l := c.Devices[0].Login
		got := fmt.Sprintf("user %s password %s hash %s anonymous %v", l.Username, l.Password.Reveal(),
			l.PasswordHash.Reveal(), l.Anonymous)
		if got != test.want {
			t.Errorf("defaults {%s}, device {%s}: %s, want %s", test.defaults, test.own, got, test.want)
		}
	}
}

func TestCloudIsChosen(t *testing.T) {
	const clouds = `
clouds:
  a: {provider: aliyun, url: "wss://a", product_key: ka}
  b: {provider: aliyun, url: "wss://b", product_key: kb}
  t: {provider: tencent, url: "wss://t", product_id: it}
`
	for _, test := range []struct{ yaml, device, want string }{
		{clouds, "cloud: b, device_secret: s", "b"},
		{clouds, "product_key: kb, device_secret: s", "b"},
		{clouds, "product_id: it, device_secret: AAAA", "t"},
		{clouds, "cloud: a, product_key: kb, device_secret: s", "a"},
		{clouds + "defaults: {cloud: b}\n", "device_secret: s", "b"},
		{clouds + "defaults: {cloud: b}\n", "product_key: ka, device_secret: s", "a"},
		{clouds + "defaults: {cloud: b}\n", "product_key: other, device_secret: s", "b"},
		{"clouds: {only: {provider: generic, url: 'ws://c'}}\n", "", "only"},
	} {
		device := strings.TrimSuffix("name: d, login: {anonymous: true}, "+test.device, ", ")
		c := load(t, test.yaml+"devices: [{"+device+"}]\n", nil)
		if got := c.Devices[0].Cloud.Name; got != test.want {
			t.Errorf("%s: cloud %s, want %s", test.device, got, test.want)
		}
	}
}

// Logins that look alike and can be told apart all the same.
func TestLoginsThatDiffer(t *testing.T) {
	for _, logins := range [][2]string{
		{"client_id: x, username: u, password: p", "client_id: x, username: v, password: p"},
		{"client_id: x, username: u, password: p", "client_id: y, username: u, password: p"},
		{"client_id: x, password: p, allow_from: [10.0.0.0/24]", "client_id: x, password: p, allow_from: [10.0.1.0/24]"},
		{"client_id: x, password: p, allow_from: [10.0.0.0/8]", "client_id: x, password: p, allow_from: ['::/0']"},
		{"anonymous: true, allow_from: [10.0.0.1]", "anonymous: true, allow_from: [10.0.0.2]"},
		{"anonymous: true", "anonymous: true, client_id: x"},
		{"anonymous: true", "client_id: x, password: p"},
		{"anonymous: true, allow_from: [10.0.0.0/8, 10.0.0.1]", "anonymous: true, allow_from: [11.0.0.0/8, 11.0.0.0/8]"},
	} {
		load(t, fmt.Sprintf(`
clouds: {c: {provider: generic, url: "ws://c"}}
devices: [{name: a, login: {%s}}, {name: b, login: {%s}}]
`, logins[0], logins[1]), nil)
	}
}
