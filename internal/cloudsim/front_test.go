package cloudsim

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

func TestUpgrades(t *testing.T) {
	token := func(r *http.Request) int {
		if r.Header.Get("X-Token") != "secret" {
			return http.StatusUnauthorized
		}
		return 0
	}
	mqtt := []string{"mqtt"}
	header := http.Header{"X-Token": {"secret"}}
	for name, tt := range map[string]struct {
		o        Options
		path     string
		protocol []string
		header   http.Header
		status   int // 101: connected
		want     []Rule
	}{
		"root":               {path: "", protocol: mqtt, status: 101},
		"slash":              {path: "/", protocol: mqtt, status: 101},
		"mqtt":               {path: "/mqtt", protocol: mqtt, status: 101},
		"another path":       {path: "/ws", protocol: mqtt, status: 404},
		"given path":         {o: Options{Paths: []string{"/ws"}}, path: "/ws", protocol: mqtt, status: 101},
		"given path only":    {o: Options{Paths: []string{"/ws"}}, path: "/mqtt", protocol: mqtt, status: 404},
		"no subprotocol":     {status: 400, want: []Rule{RuleProtocol}},
		"wrong subprotocol":  {protocol: []string{"mqttv3.1"}, status: 400, want: []Rule{RuleProtocol}},
		"among others":       {protocol: []string{"mqttv3.1", "mqtt"}, status: 101},
		"header":             {o: Options{CheckUpgrade: token}, protocol: mqtt, header: header, status: 101},
		"header is missing":  {o: Options{CheckUpgrade: token}, protocol: mqtt, status: 401},
		"of another website": {protocol: mqtt, header: http.Header{"Origin": {"http://else.test"}}, status: 101},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.Kind = Generic
			c := start(t, tt.o)
			d := &websocket.Dialer{Subprotocols: tt.protocol, HandshakeTimeout: patience}
			ws, resp, err := d.Dial("ws://"+address(c.WSURL())+tt.path, tt.header)
			if resp == nil {
				t.Fatal(err)
			}
			must(t, resp.Body.Close())
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if err == nil {
				if ws.Subprotocol() != "mqtt" {
					t.Errorf("subprotocol %q", ws.Subprotocol())
				}
				must(t, ws.Close())
			} else if f := c.LoginFailures(); len(f) != 1 || f[0].Status != tt.status {
				t.Errorf("login failures %+v", f)
			}
			wantRules(t, c, tt.want...)
		})
	}
}

func address(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

func TestNoWebSocket(t *testing.T) {
	c := generic(t)
	resp, err := http.Get("http://" + address(c.WSURL()) + "/")
	must(t, err)
	must(t, resp.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusBadRequest || len(c.LoginFailures()) != 1 {
		t.Errorf("status %d, login failures %+v", resp.StatusCode, c.LoginFailures())
	}
}

func TestListeners(t *testing.T) {
	ws := start(t, Options{Kind: Generic, NoWSS: true})
	if ws.WSURL() == "" || ws.WSSURL() != "" {
		t.Errorf("ws only: %q, %q", ws.WSURL(), ws.WSSURL())
	}
	wss := start(t, Options{Kind: Generic, NoWS: true, Paths: []string{"/mqtt"}})
	if wss.WSURL() != "" || !strings.HasSuffix(wss.WSSURL(), "/mqtt") {
		t.Errorf("wss only: %q, %q", wss.WSURL(), wss.WSSURL())
	}
	_, err := New(Options{Kind: Generic, TLSAddr: address(ws.WSURL())})
	var op *net.OpError
	if !errors.As(err, &op) {
		t.Errorf("on a taken port: %v", err)
	}
}

func TestOptionFaults(t *testing.T) {
	d := Device{Name: "d", Product: "p", Secret: tencentSecret}
	one := func(k Kind, d Device) Options { return Options{Kind: k, Devices: []Device{d}} }
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"kind":                {Options{Kind: "azure"}, "aliyun, tencent or generic"},
		"no listener":         {Options{Kind: Generic, NoWS: true, NoWSS: true}, "nothing to serve"},
		"generic devices":     {Options{Kind: Generic, Devices: []Device{d}}, "list Users"},
		"vendor users":        {Options{Kind: Aliyun, Users: map[string]string{}}, "list Devices"},
		"client certificates": {Options{Kind: Generic, ClientCerts: "sometimes"}, "none, optional or required"},
		"window":              {Options{Kind: Generic, Window: -1}, "1 to 65535"},
		"frame size":          {Options{Kind: Generic, FrameSize: -1}, "positive"},
		"path":                {Options{Kind: Generic, Paths: []string{"mqtt"}}, "begin it with a slash"},
		"no name":             {one(Aliyun, Device{Product: "p"}), "needs a name"},
		"no product":          {one(Aliyun, Device{Name: "d"}), "Options.Product"},
		"twice":               {Options{Kind: Aliyun, Devices: []Device{d, d}}, "listed twice"},
		"bad secret":          {one(Tencent, Device{Name: "d", Product: "p", Secret: "x"}), "base64"},
		"no secret":           {one(Tencent, Device{Name: "d", Product: "p"}), "base64"},
		"aliyun certificate":  {one(Aliyun, Device{Name: "d", Product: "p", Certificate: true}), "only tencent"},
		"log in alike": {Options{Kind: Tencent, Devices: []Device{
			{Name: "bc", Product: "a", Secret: tencentSecret}, {Name: "c", Product: "ab", Secret: tencentSecret},
		}}, "log in alike"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(tt.o)
			if err == nil {
				c.Close()
			}
			if !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("%v, want something about %q", err, tt.want)
			}
		})
	}
}

func TestDevicesChange(t *testing.T) {
	c, r := vendor(t, func(r *Rules) { r.Connects = Rate{} })
	attempt := func(code byte) {
		t.Helper()
		dialRaw(t, c, c.WSURL()).connect(aliyunConnect("d", false), code)
	}
	must(t, c.SetDevice(Device{Name: "d", Secret: "changed"}))
	attempt(5)
	r.pinged() // an open connection stays
	must(t, c.SetDevice(Device{Name: "d", Secret: "secret", Product: "moved"}))
	attempt(5)
	must(t, c.SetDevice(Device{Name: "d", Secret: "secret", Disabled: true}))
	attempt(5)
	must(t, c.SetDevice(Device{Name: "d", Secret: "secret"}))
	attempt(0)
	c.RemoveDevice("d")
	c.RemoveDevice("d")
	attempt(5)
	tencent := start(t, Options{Kind: Tencent, Product: "a", Devices: []Device{{Name: "bc", Secret: tencentSecret}}})
	alike := Device{Name: "c", Product: "ab", Secret: tencentSecret}
	if err := tencent.SetDevice(alike); err == nil {
		t.Error("two devices that log in alike")
	}
	tencent.RemoveDevice("bc")
	must(t, tencent.SetDevice(alike))
	if err := generic(t).SetDevice(Device{Name: "d"}); err == nil {
		t.Error("a device of a generic cloud")
	}
}
