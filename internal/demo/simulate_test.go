package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/zap"

	"bridged/internal/bridge"
	"bridged/internal/cloudsim"
	"bridged/internal/config"
	"bridged/internal/testdevice"
)

// simulate runs simulated clouds.
func simulate(tb testing.TB, o SimOptions) (s *screen, end func()) {
	tb.Helper()
	s = new(screen)
	o.Out = s
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Simulate(ctx, o) }()
	end = func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				tb.Error(err)
			}
		case <-time.After(patience):
			tb.Fatal("the simulation does not end")
		}
		ended <- nil
	}
	tb.Cleanup(end)
	s.await(tb, 1, `^Ctrl-C ends\.$`)
	return s, end
}

// bridgeFor runs a bridge for a configuration file, on a free port, and returns its address.
func bridgeFor(tb testing.TB, file string) string {
	tb.Helper()
	cfg, err := load(file)
	if err != nil {
		tb.Fatal(err)
	}
	cfg.Listen[0].Address = "127.0.0.1:0"
	b, err := bridge.New(cfg, zap.NewNop(), bridge.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
	return b.Addrs()[0].String()
}

// The configuration that is written for the made-up devices works as it is.
func TestSimulateMadeUp(t *testing.T) {
	s, end := simulate(t, SimOptions{Send: 50 * time.Millisecond})
	holds(t, s.String(),
		`^  aliyun  \(Alibaba Cloud IoT Platform\)\n    wss://127\.0\.0\.1:\d+/\n    ws://127\.0\.0\.1:\d+/$`,
		`product_key `+productKey+`, device_name boiler-1, device_secret `+boilerSecret,
		`product_id `+productID+`, device_name pump-7, device_secret `+pumpSecret,
		`username press-2, password `+pressSecret,
	)
	addr := bridgeFor(t, s.await(t, 1, `bridged run -c (\S+)$`)[1])
	d := testdevice.Connect(t, addr,
		testdevice.Options{ClientID: pump, Username: pump, Password: "pump-login", Persist: true})
	subscribe(t, d, "command")
	d.Publish("telemetry", []byte("2.4 bar\n"), 1)
	s.await(t, 1, `pump-7   \+ tencent ws  online: new persistent session, keepalive 5m0s, client id ABCDE12345pump-7$`)
	s.await(t, 1, `pump-7     tencent     subscribed to ABCDE12345/pump-7/control, QoS 1$`)
	s.await(t, 1, `pump-7   → tencent ws  ABCDE12345/pump-7/event  2\.4 bar\.  QoS 1$`)
	answer(t, d)
	s.await(t, 1, `pump-7   ← tencent     ABCDE12345/pump-7/control  \{"n":\d+\}  QoS 1, acknowledged \S+ ms$`)

	// Neither a boiler nor a press comes before it is asked to.
	lacks(t, s.String(), `boiler-1 \+`, `press-2  \+`)
	b := testdevice.Connect(t, addr, testdevice.Options{ClientID: boiler, Username: boiler, Password: "boiler-login"})
	b.Publish("a/b/c", nil, 0)
	s.await(t, 1, `boiler-1 → aliyun wss  a/b/c    QoS 0$`)
	end()
	text := s.String()
	holds(t, text,
		`^tencent: 1 login, 0 refused; 1 message received, \d+ sent, [1-9]\d* of them acknowledged; 0 violations`)
	if strings.Index(text, "boiler-1 +") > strings.Index(text, "boiler-1 →") {
		t.Errorf("a message is told before the login that it came with:\n%s", text)
	}
}

// subscribe subscribes where messages may come before SUBACK does (MQTT 3.1.1, 3.8.4).
func subscribe(tb testing.TB, d *testdevice.Device, filter string) {
	tb.Helper()
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics, p.Qoss = d.ID(), []string{filter}, []byte{1}
	d.Send(p)
	for {
		switch p := d.Next(patience).(type) {
		case *packets.SubackPacket:
			return
		case *packets.PublishPacket:
			d.Ack(packets.Puback, p.MessageID)
		default:
			tb.Fatalf("got %v", p)
		}
	}
}

// answer acknowledges the next message to a device.
func answer(tb testing.TB, d *testdevice.Device) {
	tb.Helper()
	for {
		p := d.Next(patience)
		if p == nil {
			tb.Fatal("nothing came")
		}
		if m, ok := p.(*packets.PublishPacket); ok {
			d.Ack(packets.Puback, m.MessageID)
			return
		}
	}
}

// Only the kinds that were asked for.
func TestSimulateKinds(t *testing.T) {
	s, end := simulate(t, SimOptions{Kinds: []cloudsim.Kind{cloudsim.Tencent}})
	end()
	holds(t, s.String(), `tencent  \(`)
	lacks(t, s.String(), `aliyun`, `lab`)
	cfg, err := load(s.await(t, 1, `bridged run -c (\S+)$`)[1])
	if err != nil || len(cfg.Devices) != 1 {
		t.Errorf("%v, %v", cfg, err)
	}
}

// sample is somebody's configuration, with all kinds of identities.
func sample(tb testing.TB, dir string) *config.Config {
	tb.Helper()
	ca, err := cloudsim.NewCA("vendor")
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := ca.IssueClientRSA("valve")
	if err != nil {
		tb.Fatal(err)
	}
	if _, _, err := cert.WriteFiles(dir); err != nil {
		tb.Fatal(err)
	}
	return parse(tb, dir, `
clouds:
  shanghai: {provider: aliyun, url: "wss://iot-06abcdef.mqtt.iothub.aliyuncs.com", product_key: pk}
  guangzhou: {provider: tencent, url: "wss://PRODUCT123.ap-guangzhou.iothub.tencentdevices.com/mqtt",
    product_id: PRODUCT123, cert_password: rsa-sha256}
  plant: {provider: generic, url: "ws://broker.plant:8083/ws?x=1"}
devices:
  - {name: boiler, login: {anonymous: true, client_id: boiler}, cloud: shanghai, device_secret: s1}
  - {name: valve, login: {anonymous: true, client_id: valve}, cloud: guangzhou,
    cert_file: client.crt, key_file: client.key}
  - {name: press, login: {anonymous: true, client_id: press}, cloud: plant, username: u, password: p}
  - {name: sensor, login: {anonymous: true, client_id: sensor}, cloud: plant}
`)
}

func parse(tb testing.TB, dir, yaml string) *config.Config {
	tb.Helper()
	file := filepath.Join(dir, "own.yaml")
	text := fmt.Sprintf("state_dir: %s\n%s", filepath.Join(dir, "state"), yaml)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	cfg, err := load(file)
	if err != nil {
		tb.Fatal(err)
	}
	return cfg
}

// What it says to change in a configuration is all that needs to be changed.
func TestSimulateConfig(t *testing.T) {
	dir := t.TempDir()
	cfg := sample(t, dir)
	s, _ := simulate(t, SimOptions{Config: cfg})
	guangzhou := s.await(t, 1, `^  guangzhou:\n    url: (wss://127\.0\.0\.1:\d+/mqtt)\n    tls: \{ca_file: (\S+)\}$`)
	plant := s.await(t, 1, `^  plant:\n    url: (ws://127\.0\.0\.1:\d+/ws\?x=1)$`)
	shanghai := s.await(t, 1, `^  shanghai:\n    url: (wss://127\.0\.0\.1:\d+/)\n    tls: \{ca_file: (\S+)\}$`)
	valve := s.await(t, 1, `^devices:\n  - name: valve\n    cert_file: (\S+)\n    key_file: (\S+)$`)

	text, err := os.ReadFile(cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer(
		`"wss://PRODUCT123.ap-guangzhou.iothub.tencentdevices.com/mqtt"`, guangzhou[1]+", tls: {ca_file: "+guangzhou[2]+"}",
		`"ws://broker.plant:8083/ws?x=1"`, `"`+plant[1]+`"`,
		`"wss://iot-06abcdef.mqtt.iothub.aliyuncs.com"`, shanghai[1]+", tls: {ca_file: "+shanghai[2]+"}",
		"client.crt", valve[1], "client.key", valve[2],
	).Replace(string(text))
	file := filepath.Join(dir, "changed.yaml")
	if err := os.WriteFile(file, []byte("listen: [{url: 'tcp://127.0.0.1:0'}]\n"+changed), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := bridgeFor(t, file)
	for _, name := range []string{"boiler", "valve", "press", "sensor"} {
		testdevice.Connect(t, addr, testdevice.Options{ClientID: name}).Publish("data", []byte("1"), 1)
	}
	s.await(t, 1, `boiler → shanghai wss  data  1  QoS 1$`)
	s.await(t, 1, `valve  → guangzhou wss data  1  QoS 1$`)
	s.await(t, 1, `press  → plant ws      data  1  QoS 1$`)
	s.await(t, 1, `sensor → plant ws      data  1  QoS 1$`)
	lacks(t, s.String(), "refused with", "breaks a rule")
}

// Devices that sign for themselves cannot be let in, which is said.
func TestSimulatePassThrough(t *testing.T) {
	s, _ := simulate(t, SimOptions{Config: parse(t, t.TempDir(), `
clouds:
  hall: {provider: passthrough, vendor: aliyun, url: "wss://iot-06abcdef.mqtt.iothub.aliyuncs.com"}
  lab: {provider: passthrough, vendor: generic, url: "ws://broker.lab:8083/mqtt"}
devices:
  - {name: hall-3, cloud: hall, login: {allow_from: [127.0.0.1]}}
  - {name: lab-1, cloud: lab, login: {allow_from: [127.0.0.1]}}
`)})
	s.await(t, 1, `^hall refuses every login: .*\n.*"bridged sim --aliyun"`)
	lacks(t, s.String(), "lab refuses")
}

// Wrong secrets, wrong paths and broken rules are told with their reasons.
func TestSimulateTellsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	s, _ := simulate(t, SimOptions{Config: parse(t, dir, `
clouds:
  shanghai: {provider: aliyun, url: "ws://iot-06abcdef.mqtt.iothub.aliyuncs.com", product_key: pk}
devices:
  - {name: boiler, login: {anonymous: true, client_id: boiler}, device_secret: right}
  - {name: boiler-2, login: {anonymous: true, client_id: boiler-2}, device_secret: right}
`)})
	url := s.await(t, 1, `url: (\S+)$`)[1]
	other := func(name, path, secret, limits string) string {
		file := filepath.Join(t.TempDir(), name+".yaml")
		text := fmt.Sprintf(`
state_dir: state
listen: [{url: "tcp://127.0.0.1:0"}]
clouds: {shanghai: {provider: aliyun, url: "%s%s", product_key: pk, limits: {%s}}}
devices: [{name: %s, login: {anonymous: true, client_id: %s}, device_secret: %s}]
`, strings.TrimSuffix(url, "/"), path, limits, name, name, secret)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	testdevice.Connect(t, bridgeFor(t, other("boiler", "/", "wrong", "")), testdevice.Options{ClientID: "boiler"})
	s.await(t, 1, `boiler   ! shanghai ws  login refused with CONNACK 5: the signature does not match$`)
	testdevice.Connect(t, bridgeFor(t, other("boiler", "/path", "right", "")), testdevice.Options{ClientID: "boiler"})
	s.await(t, 1, `\?        ! shanghai ws  upgrade refused with HTTP 404: no such path: /path$`)
	lax := testdevice.Connect(t, bridgeFor(t, other("boiler-2", "/", "right", "max_topic_levels: 0")),
		testdevice.Options{ClientID: "boiler-2"})
	lax.Publish("1/2/3/4/5/6/7/8", nil, 0)
	s.await(t, 1, `boiler-2 ! shanghai     breaks a rule \(topic\): `)
	s.await(t, 1, `boiler-2 - shanghai ws  offline after \S+: it broke a rule$`)
}

func TestSimulateFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	generic := parse(t, t.TempDir(), `
clouds: {plant: {provider: generic, url: "ws://broker.plant"}}
devices:
  - {name: a, login: {anonymous: true, client_id: a}, username: u, password: p}
  - {name: b, login: {anonymous: true, client_id: b}, username: u, password: q}
`)
	alike := parse(t, t.TempDir(), `
clouds: {shanghai: {provider: aliyun, url: "ws://iot-06abcdef.mqtt.iothub.aliyuncs.com"}}
devices:
  - {name: a, login: {anonymous: true, client_id: a}, product_key: p1, device_name: x, device_secret: s}
  - {name: b, login: {anonymous: true, client_id: b}, product_key: p2, device_name: x, device_secret: s}
`)
	for name, test := range map[string]struct {
		o    SimOptions
		is   error
		want string
	}{
		"port in use":     {SimOptions{Listen: taken.Addr().String()}, syscall.EADDRINUSE, "cloud aliyun: "},
		"no port":         {SimOptions{Listen: "127.0.0.1"}, nil, "listen address"},
		"bad port":        {SimOptions{Listen: "127.0.0.1:x"}, nil, "listen address 127.0.0.1:x: the port is not a number"},
		"too high a port": {SimOptions{Listen: "127.0.0.1:65535"}, nil, "invalid port"},
		"no directory":    {SimOptions{Dir: filepath.Join(file, "dir")}, syscall.ENOTDIR, ""},
		"no cloud":        {SimOptions{Config: generic, Kinds: []cloudsim.Kind{cloudsim.Aliyun}}, ErrNoCloud, ""},
		"two passwords":   {SimOptions{Config: generic}, nil, `another device of cloud plant has the user name "u"`},
		"same name":       {SimOptions{Config: alike}, nil, `another device of cloud shanghai has the device name "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			test.o.Out = new(screen)
			if test.o.Listen == "" {
				test.o.Listen = "127.0.0.1:0"
			}
			if test.o.Dir == "" {
				test.o.Dir = t.TempDir()
			}
			err := Simulate(context.Background(), test.o)
			if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %v %q", err, test.is, test.want)
			}
		})
	}
}
