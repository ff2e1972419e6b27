package config

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"bridged/internal/credentials"
	"bridged/internal/mqtt"
	"bridged/internal/topicmap"
	"bridged/internal/transport"
)

// base is a valid configuration of each provider; tests change one thing in it.
const base = `
clouds:
  shanghai:
    provider: aliyun
    url: wss://iot.example.com
    product_key: pk
  guangzhou:
    provider: tencent
    url: ws://iot.example.com
    product_id: ABCDE12345
  lab:
    provider: generic
    url: wss://broker.lab:8084/mqtt
devices:
  - name: boiler
    cloud: shanghai
    login: {username: u, password: p}
    device_secret: s
  - name: pump
    cloud: guangzhou
    login: {username: u, password: p}
    device_secret: MTIzNDU2Nzg5MGFiY2RlZg==
  - name: press
    cloud: lab
    login: {username: u, password: p}
`

// changed is the base with old replaced by new, which must be there once.
func changed(t *testing.T, old, replacement string) string {
	t.Helper()
	if n := strings.Count(base, old); n != 1 {
		t.Fatalf("%q is %d times in the base", old, n)
	}
	return strings.Replace(base, old, replacement, 1)
}

func TestBase(t *testing.T) {
	c := load(t, base, nil)
	if len(c.Warnings) > 0 {
		t.Errorf("warnings: %v", c.Warnings)
	}
	want := Config{
		File: c.File, StateDir: "/var/lib/bridged", ShutdownTimeout: 10 * time.Second,
		Listen: []Listener{{Address: "0.0.0.0:1883"}},
		Log:    Log{Level: zapcore.InfoLevel, JSON: true},
		Admin:  Admin{Listen: "127.0.0.1:9883", Optional: true},
		Limits: Limits{
			MaxConnections: 10000, ConnectTimeout: 10 * time.Second, MaxPacketSize: 272 << 10, Memory: 64 << 20, Disk: 1 << 30,
			DialsPerSecond: 25, DialsAtOnce: 64,
		},
		Clouds: c.Clouds, Devices: c.Devices,
	}
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("\n%+v\nwant\n%+v", *c, want)
	}
	queue := Queue{MaxMessages: 10000, MaxBytes: 16 << 20, SpillAfter: time.Second, OnFull: Block, StoreQoS0: true}
	for i, name := range []string{"boiler", "pump", "press"} {
		d := c.Devices[i]
		want := Device{
			Name: name, Cloud: d.Cloud, Login: Login{ClientID: name, Username: "u", Password: "p"},
			Identity: d.Identity, Linger: 30 * time.Second, Queue: queue,
		}
		if !reflect.DeepEqual(*d, want) || c.Device(name) != d {
			t.Errorf("\n%+v\nwant\n%+v", *d, want)
		}
	}
	if c.Device("nobody") != nil {
		t.Error("there is a device nobody")
	}
}

func TestIdentities(t *testing.T) {
	c := load(t, base, nil)
	for name, want := range map[string]credentials.Identity{
		"boiler": credentials.Aliyun{
			ProductKey: "pk", DeviceName: "boiler", Secret: "s", Method: credentials.HMACSHA256, Secure: true, Timestamp: true,
		},
		"pump": credentials.Tencent{
			ProductID: "ABCDE12345", DeviceName: "pump", Secret: "MTIzNDU2Nzg5MGFiY2RlZg==",
			Method: credentials.HMACSHA256, SDKAppID: "12010126", Expiry: time.Hour,
		},
		"press": credentials.Generic{ClientID: "press"},
	} {
		d := c.Device(name)
		if d.Identity != want {
			t.Errorf("%s: %+v, want %+v", name, d.Identity, want)
		}
		if _, err := d.Identity.Sign(time.Now(), "abcde"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each case changes one thing in the base and looks at what became of it.
func TestKeys(t *testing.T) {
	const boiler = "    device_secret: s\n"
	const shanghai = "    product_key: pk\n"
	const guangzhou = "    product_id: ABCDE12345\n"
	const lab = "    url: wss://broker.lab:8084/mqtt\n"
	const press = "    cloud: lab\n    login: {username: u, password: p}\n"
	const first = "\nclouds:"
	device := func(name string) func(*Config) any {
		return func(c *Config) any { return c.Device(name) }
	}
	identity := func(name string) func(*Config) any {
		return func(c *Config) any { return c.Device(name).Identity }
	}
	cloud := func(name string) func(*Config) any {
		return func(c *Config) any { return c.Clouds[name] }
	}
	for _, test := range []struct {
		name, old, add string // add comes after old
		look           func(*Config) any
		want           string // part of %+v
	}{
		{"listen", first, "\nlisten: [{url: 'tcp://0.0.0.0:1884'}, {url: 'tcp://[::1]:1884/'}]\n", func(c *Config) any {
			return c.Listen
		}, "[{Address:0.0.0.0:1884 TLS:false CertFile: KeyFile:} {Address:[::1]:1884 "},
		{"listen anywhere", first, "listen: [{url: 'tcp://:1884'}]\n", func(c *Config) any {
			return c.Listen[0].Address
		}, ":1884"},
		{"listen port 0", first, "listen: [{url: 'tcp://127.0.0.1:0'}, {url: 'tcp://127.0.0.1:0'}]\n", func(c *Config) any {
			return len(c.Listen)
		}, "2"},
		{"listen tls", first, "listen: [{url: 'tls://h:8883', cert_file: rsa.crt, key_file: rsa.key}]\n",
			func(c *Config) any { return c.Listen }, "{Address:h:8883 TLS:true CertFile:/"},
		{"state_dir", first, "state_dir: /x\n", func(c *Config) any { return c }, "StateDir:/x "},
		{"shutdown_timeout", first, "shutdown_timeout: 1m\n", func(c *Config) any { return c }, "ShutdownTimeout:1m0s"},
		{"log", first, "log: {level: debug, format: console}\n", func(c *Config) any { return c.Log },
			"{Level:debug JSON:false}"},
		{"limits", first,
			"limits: {max_connections: 5, connect_timeout: 3s, max_packet_size: 1KiB, memory: 1GiB, disk: 2GiB, " +
				"dials_per_second: 3, dials_at_once: 4}\n",
			func(c *Config) any { return c.Limits }, "{MaxConnections:5 ConnectTimeout:3s MaxPacketSize:1024 " +
				"Memory:1073741824 Disk:2147483648 DialsPerSecond:3 DialsAtOnce:4}"},
		{"queue", first, "queue: {max_messages: 1, max_bytes: 1GiB, max_age: 24h, spill_after: 3s, durability: always, " +
			"on_full: drop_oldest, qos0: drop}\n", device("boiler"), "Queue:{MaxMessages:1 MaxBytes:1073741824 " +
			"MaxAge:24h0m0s SpillAfter:3s Always:true OnFull:drop_oldest StoreQoS0:false}"},
		{"sections without keys", first, "log:\nqueue:\ndefaults:\ndevice_files:\n", device("boiler"), "MaxMessages:10000"},
		{"aliyun method", shanghai, "    sign_method: hmacmd5\n", identity("boiler"), "Method:hmacmd5"},
		{"aliyun timestamp", shanghai, "    timestamp: false\n", identity("boiler"), "Timestamp:false"},
		{"aliyun keepalive", shanghai, "    keepalive: 1200s\n", cloud("shanghai"), "Keepalive:20m0s"},
		{"aliyun default keepalive", shanghai, "", cloud("shanghai"), "Keepalive:5m0s"},
		{"stall", lab, "    stall_timeout: 0s\n", cloud("lab"), "StallTimeout:0s"},
		{"default stall", lab, "", cloud("lab"), "StallTimeout:1m0s"},
		{"headers", lab, "    headers: {Authorization: hush, X-Plant: '7'}\n", func(c *Config) any {
			h := c.Clouds["lab"].Headers
			return fmt.Sprint(len(h), h["Authorization"].Reveal(), h["X-Plant"].Reveal())
		}, "2hush7"},
		{"headers are secrets", lab, "    headers: {Authorization: hush}\n", cloud("lab"), "Headers:map[Authorization:***]"},
		{"tls trust", lab, "    tls: {ca_file: rsa.crt, ca_only: true, " +
			"pins: [sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=]}\n", cloud("lab"),
			"CAOnly:true Pins:[sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=]"},
		{"proxy", lab, "    proxy: http://user:hush@proxy.plant:3128\n", func(c *Config) any {
			want, err := transport.ParseProxy("http://user@proxy.plant:3128", "hush")
			return err == nil && reflect.DeepEqual(c.Clouds["lab"].Proxy, want)
		}, "true"},
		{"proxy with a password", lab, "    proxy: socks5://user@proxy.plant:1080\n    proxy_password: hush\n",
			func(c *Config) any {
				want, err := transport.ParseProxy("socks5://user@proxy.plant:1080", "hush")
				return err == nil && reflect.DeepEqual(c.Clouds["lab"].Proxy, want)
			}, "true"},
		{"no proxy", lab, "    proxy: none\n", func(c *Config) any {
			return c.Clouds["lab"].Proxy == transport.Proxy{}
		}, "true"},
		{"default proxy", lab, "", func(c *Config) any {
			want, err := transport.ParseProxy("env", "")
			return err == nil && c.Clouds["lab"].Proxy == want && want != transport.Proxy{}
		}, "true"},
		{"generic no keepalive", lab, "    keepalive: 0s\n", cloud("lab"), "Keepalive:0s"},
		{"generic default keepalive", lab, "", cloud("lab"), "Keepalive:1m0s"},
		{"keepalive within an override", shanghai, "    keepalive: 10s\n    limits: {keepalive_min: 10s}\n",
			cloud("shanghai"), "Keepalive:10s"},
		{"default keepalive follows", shanghai, "    limits: {keepalive_max: 120s}\n", cloud("shanghai"), "Keepalive:2m0s"},
		{"tencent sdkappid", guangzhou, "    sdkappid: 21010406\n", identity("pump"), "SDKAppID:21010406"},
		{"tencent expiry", guangzhou, "    expiry: 10m\n", identity("pump"), "Expiry:10m0s"},
		{"tencent method", guangzhou, "    sign_method: hmacsha1\n", identity("pump"), "Method:hmacsha1"},
		{"tls", lab, "    tls: {ca_file: rsa.crt, server_name: s, min_version: \"1.3\"}\n", cloud("lab"),
			fmt.Sprintf("/rsa.crt CAOnly:false Pins:[] CertFile: KeyFile: ServerName:s MinVersion:%d}", tls.VersionTLS13)},
		{"tls default", lab, "", cloud("lab"), fmt.Sprintf("MinVersion:%d}", tls.VersionTLS12)},
		{"cloud certificate", lab, "    tls: {cert_file: rsa.crt, key_file: rsa.key}\n", func(c *Config) any {
			return c.Device("press").ClientCertificate.KeyFile
		}, "/rsa.key"},
		{"device certificate", press, "    cert_file: ec.crt\n    key_file: ec.key\n", func(c *Config) any {
			return c.Device("press").ClientCertificate.CertFile
		}, "/ec.crt"},
		{"generic login", press, "    client_id: c\n    username: u\n    password: 123456\n", func(c *Config) any {
			id := c.Device("press").Identity.(credentials.Generic)
			return id.ClientID + id.Username + id.Password.Reveal()
		}, "cu123456"},
		{"aliyun client id", boiler, "    client_id: c\n", identity("boiler"), "ClientID:c "},
		{"device name", boiler, "    device_name: other\n", identity("boiler"), "DeviceName:other"},
		{"product key", boiler, "    product_key: other\n", identity("boiler"), "ProductKey:other"},
		{"upstream", boiler, "    upstream: always\n", device("boiler"), "Always:true"},
		{"linger", boiler, "    linger: 0s\n", device("boiler"), "Linger:0s"},
		{"session", boiler, "    session: persistent\n", device("boiler"), "Persistent:true"},
		{"QoS lowered", boiler, "    subscribe: [{filter: a, qos: 2}, {filter: b, qos: 0}]\n", device("boiler"),
			"Subscribe:[{Filter:a QoS:1} {Filter:b QoS:0}]"},
		{"QoS default", press, "    subscribe: [{filter: a}]\n", device("press"), "Subscribe:[{Filter:a QoS:1}]"},
		{"QoS 2", press, "    subscribe: [{filter: a, qos: 2}]\n", device("press"), "Subscribe:[{Filter:a QoS:2}]"},
		{"anonymous with client id", press, "    upstream: on_demand\n  - {name: x, cloud: lab, login: " +
			"{anonymous: true, client_id: x}}\n  - {name: y, cloud: lab, login: {anonymous: true}}\n", func(c *Config) any {
			return c.Device("x").Login.ClientID + "," + c.Device("y").Login.ClientID
		}, "x,"},
	} {
		t.Run(test.name, func(t *testing.T) {
			replacement := test.old + test.add
			if test.old == first {
				replacement = test.add + strings.TrimPrefix(first, "\n")
			}
			c := load(t, changed(t, test.old, replacement), nil)
			if got := fmt.Sprintf("%+v", test.look(c)); !strings.Contains(got, test.want) {
				t.Errorf("%s\nwant %s", got, test.want)
			}
		})
	}
}

func TestCloudLimits(t *testing.T) {
	c := load(t, changed(t, "    url: wss://broker.lab:8084/mqtt\n", `    url: wss://broker.lab:8084/mqtt
    limits:
      keepalive_min: 5s
      keepalive_max: 100s
      max_qos: 0
      retain: false
      will: false
      max_payload: 1MiB
      uplink_per_second: 2
      connects: 3/20s
      max_in_flight: 4
      filters_per_subscribe: 5
      max_subscriptions: 6
      max_topic_bytes: 7
      max_topic_levels: 8
      max_client_id: 9
`), nil)
	want := credentials.Limits{
		KeepaliveMin: 5 * time.Second, KeepaliveMax: 100 * time.Second, KeepaliveDefault: time.Minute,
		MaxPayload: 1 << 20, UplinkPerSecond: 2, Connects: credentials.Rate{Count: 3, Per: 20 * time.Second},
		MaxInFlight: 4, FiltersPerSubscribe: 5, MaxSubscriptions: 6, MaxTopicBytes: 7, MaxTopicLevels: 8, MaxClientID: 9,
	}
	if got := c.Clouds["lab"].Limits; got != want {
		t.Errorf("\n%+v\nwant\n%+v", got, want)
	}
	// What is not overridden is the provider's.
	if want, _ := credentials.LimitsOf("aliyun"); c.Clouds["shanghai"].Limits != want {
		t.Errorf("%+v\nwant\n%+v", c.Clouds["shanghai"].Limits, want)
	}
}

func TestCloudURLs(t *testing.T) {
	for _, test := range []struct{ provider, url, want string }{
		{"aliyun", "wss://h", "wss://h:443/"},
		{"aliyun", "ws://h", "ws://h:443/"},
		{"aliyun", "ws://h:80/mqtt", "ws://h:80/mqtt"},
		{"tencent", "ws://h", "ws://h:80/"},
		{"tencent", "wss://h/", "wss://h:443/"},
		{"generic", "ws://h", "ws://h:80/"},
		{"generic", "WSS://H/a?b=c", "wss://H:443/a?b=c"},
		{"generic", "ws://[::1]", "ws://[::1]:80/"},
		{"generic", "ws://[::1]:1/x", "ws://[::1]:1/x"},
	} {
		c := load(t, fmt.Sprintf("clouds: {c: {provider: %s, url: %q}}", test.provider, test.url), nil)
		if got := c.Clouds["c"].URL.String(); got != test.want {
			t.Errorf("%s %s: %s, want %s", test.provider, test.url, got, test.want)
		}
	}
}

func TestAllowFrom(t *testing.T) {
	c := load(t, changed(t, "login: {username: u, password: p}\n    device_secret: s\n",
		"login: {password: p, allow_from: [192.168.10.7/24, 10.0.0.1, 'fe80::1', '::ffff:10.1.2.3', "+
			"'::ffff:10.2.0.0/112']}\n    device_secret: s\n"), nil)
	want := []netip.Prefix{
		netip.MustParsePrefix("192.168.10.0/24"), netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("fe80::1/128"),
		netip.MustParsePrefix("10.1.2.3/32"), netip.MustParsePrefix("10.2.0.0/16"),
	}
	if got := c.Device("boiler").Login.AllowFrom; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTopics(t *testing.T) {
	c := load(t, changed(t, "    device_secret: MTIzNDU2Nzg5MGFiY2RlZg==\n", `    device_secret: MTIzNDU2Nzg5MGFiY2RlZg==
    device_name: p7
    subscribe: [{filter: "${product_id}/${device_name}/control"}]
    topics:
      - {local: "${name}/telemetry", cloud: "${product_id}/${device_name}/event", direction: up}
      - {local: command/+, cloud: "${client_id}/+", direction: down}
      - {local: $x, cloud: $ota/x}
`), nil)
	d := c.Device("pump")
	rules := []topicmap.Rule{
		{Local: "pump/telemetry", Cloud: "ABCDE12345/p7/event", Direction: topicmap.Up},
		{Local: "command/+", Cloud: "ABCDE12345p7/+", Direction: topicmap.Down},
		{Local: "$x", Cloud: "$ota/x", Direction: topicmap.Both},
	}
	if !reflect.DeepEqual(d.Topics, rules) {
		t.Errorf("%+v\nwant\n%+v", d.Topics, rules)
	}
	if want := []mqtt.Subscription{{Filter: "ABCDE12345/p7/control", QoS: 1}}; !reflect.DeepEqual(d.Subscribe, want) {
		t.Errorf("%+v, want %+v", d.Subscribe, want)
	}
}

func TestVariables(t *testing.T) {
	for _, test := range []struct{ after, filter, device, want string }{
		{"    device_secret: s\n", "${product_key}/${name}/${device_name}/${client_id}", "boiler",
			"pk/boiler/boiler/pk.boiler"},
		{"    device_secret: s\n    client_id: c\n    device_name: d\n    product_key: k\n",
			"${product_key}/${name}/${device_name}/${client_id}", "boiler", "k/boiler/d/c"},
		{"    cloud: lab\n    login: {username: u, password: p}\n", "${name}/${device_name}/${client_id}", "press",
			"press/press/press"},
		{"    cloud: lab\n    login: {username: u, password: p}\n    client_id: c\n", "${client_id}", "press", "c"},
	} {
		// What follows the first line of the anchor text in the base is added.
		lines := strings.SplitAfter(test.after, "\n")
		anchor := lines[0]
		if test.device == "press" {
			anchor += lines[1]
		}
		c := load(t, changed(t, anchor, test.after+"    subscribe: [{filter: \""+test.filter+"\"}]\n"), nil)
		if got := c.Device(test.device).Subscribe[0].Filter; got != test.want {
			t.Errorf("%s: %q, want %q", test.filter, got, test.want)
		}
	}
}

func TestTencentCertificate(t *testing.T) {
	yaml := `
clouds:
  c: {provider: tencent, url: "wss://h", product_id: P, cert_password: %s}
devices:
  - {name: d, login: {anonymous: true}, cert_file: rsa.crt, key_file: rsa.key}
`
	for _, password := range []string{"any", "rsa-sha256"} {
		d := load(t, fmt.Sprintf(yaml, password), nil).Device("d")
		login, err := d.Identity.Sign(time.Unix(0, 0), "abcde")
		if err != nil || login.ClientID != "Pd" || login.Username != "Pd;12010126;abcde;3600" {
			t.Errorf("%+v, %v", login, err)
		}
		if signed := strings.HasSuffix(login.Password, ";rsa-sha256"); signed != (password == "rsa-sha256") {
			t.Errorf("cert_password %s gives the password %q", password, login.Password)
		}
		if !strings.HasSuffix(d.ClientCertificate.CertFile, "/rsa.crt") {
			t.Errorf("certificate %+v", d.ClientCertificate)
		}
	}
}
