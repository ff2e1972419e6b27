package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bridged/internal/cloudsim"
)

// sdkOrders are what testdata/sdk.cjs takes.
type sdkOrders struct {
	URL          string `json:"url"`
	ProductKey   string `json:"productKey"`
	DeviceName   string `json:"deviceName"`
	DeviceSecret string `json:"deviceSecret"`
	Publish      string `json:"publish"`
	Subscribe    string `json:"subscribe"`
	Messages     int    `json:"messages"`
	Mark         string `json:"mark"`
}

// sdkDevice starts a device with the vendor's own Node SDK.
func sdkDevice(tb testing.TB, o sdkOrders) *process {
	tb.Helper()
	orders, err := json.Marshal(o)
	if err != nil {
		tb.Fatal(err)
	}
	modules, err := filepath.Abs(nodeModules)
	if err != nil {
		tb.Fatal(err)
	}
	return start(tb, command{
		name: "node", args: []string{"testdata/sdk.cjs"}, env: []string{"SDK=" + string(orders), "NODE_PATH=" + modules},
	})
}

// Alibaba's own Node SDK, which signs for plain TCP, is a device behind bridged without its secret being there. It goes
// on over an outage of the cloud, and a wrong secret is refused by the cloud's word.
func TestVendorSDK(t *testing.T) {
	t.Parallel()
	const messages, down = 20, "/a1B2c3D4e5F/sdk-1/user/get"
	c, err := cloudsim.New(cloudsim.Options{
		Kind: cloudsim.Aliyun, Product: "a1B2c3D4e5F", Devices: []cloudsim.Device{{Name: "sdk-1", Secret: secretMark}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := c.CA().WriteFile(ca); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, fmt.Sprintf(`
clouds:
  hall: {provider: passthrough, vendor: aliyun, url: %q, tls: {ca_file: %s}}
devices:
  - {name: hall-3, cloud: hall, login: {allow_from: [127.0.0.1]}}
`, c.WSSURL(), ca), "no session with the cloud", "the cloud refused the login", "login refused")

	o := sdkOrders{
		URL: "tcp://" + d.addr, ProductKey: "a1B2c3D4e5F", DeviceName: "sdk-1", DeviceSecret: secretMark,
		Publish: "/a1B2c3D4e5F/sdk-1/user/update", Subscribe: down, Messages: messages, Mark: payloadMark,
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	good := sdkDevice(t, o)
	for n := range messages {
		good.expect(1, fmt.Sprintf("PUBLISHED %d", n+1))
	}
	up, err := c.WaitReceived(ctx, messages)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range up {
		if want := fmt.Sprintf("%s %d", payloadMark, i+1); m.Device != "sdk-1" || string(m.Payload) != want {
			t.Errorf("message %d is %q from %s, want %q", i+1, m.Payload, m.Device, want)
		}
	}
	conns := c.Connections("sdk-1")
	const signed = "securemode=2,signmethod=hmacsha1,timestamp="
	if len(conns) != 1 || !strings.Contains(conns[0].ClientID, signed) || !conns[0].Secure {
		t.Errorf("connections %+v", conns)
	}
	if err := c.WaitSubscribed(ctx, "sdk-1", down); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish("sdk-1", down, payload("down"), 1); err != nil {
		t.Fatal(err)
	}
	good.expect(1, "RECEIVED "+down+" "+string(payload("down")))

	c.Down()
	d.logged(1, `"device":"hall-3:sdk-1&a1B2c3D4e5F"`, `"kind":"refused"`)
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitOnline(ctx, "sdk-1"); err != nil {
		t.Fatal(err)
	}

	o.DeviceSecret = "wrong " + secretMark
	bad := sdkDevice(t, o)
	d.logged(1, `"msg":"login refused"`, `"connack":5`)
	bad.expect(1, "CLOSED")
	if strings.Contains(good.output(), "CLOSED") {
		t.Error("the device was disturbed by somebody with a wrong secret")
	}
	for _, p := range []*process{bad, good} {
		p.signal(syscall.SIGTERM)
		p.wait()
	}
}
