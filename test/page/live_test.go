package page

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"bridged/internal/bridge"
	"bridged/internal/cloudsim"
	"bridged/internal/testdevice"
)

// The page shows a bridge, and what becomes of it, without being loaded again.
func TestCloudGoesAndReturns(t *testing.T) {
	north, south := newCloud(t, cloudsim.Options{}), newCloud(t, cloudsim.Options{})
	b := run(t, plant(north.WSURL(), south.WSURL()))
	p := open(t, serve(t, b, "").url())
	p.says("#connection", "Live")
	p.says(".fleet .headline", "All is well: 5 of 6 devices online")
	p.says(".tiles [data-group=online] .n", "5")
	p.says(".tiles [data-group=idle] .n", "1")
	p.until("document.querySelectorAll('.devices tbody tr').length === 6")
	p.says(".count", "6 devices")
	if n := p.text(".banner"); n != "" {
		t.Errorf("a banner while all is well: %s", n)
	}
	p.says("#version", "v1.2.3")
	p.shot("fleet")
	p.do(mark)

	north.Down()
	p.says(".banner", "3 devices of north offline")
	p.says(".banner .remedy", "What to do: ")
	p.says(".tiles [data-group=offline] .n", "3")
	p.until(p.row("boiler-2") + ".includes('▲ offline')")
	p.until(p.row("pump-1") + ".includes('● online')")
	if title := eval[string](p, "document.title"); title != "3 offline · bridged" {
		t.Errorf("the title is %q", title)
	}
	p.says("#announcer", "3 devices are offline")
	p.shot("cloud-away")
	p.click(".banner a")
	p.until("document.querySelectorAll('.devices tbody tr').length === 3")
	p.says(".count", "3 of 6 devices")

	if err := north.Up(); err != nil {
		t.Fatal(err)
	}
	p.says(".fleet .headline", "All is well: 5 of 6 devices online")
	p.until("document.querySelector('.banner') === null || document.querySelector('.banner').offsetParent === null")
	p.click(".clear")
	p.until(p.row("boiler-2") + "?.includes('● online')")
	p.until(marked)
}

// A mark in the window is there until it is loaded anew.
var mark = evaluate("window.mark = true")

const marked = "window.mark === true"

// A device's page says why it is offline, and what to do.
func TestDevice(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Proxy-Authenticate", `Basic realm="plant"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	t.Cleanup(proxy.Close)
	cloud := newCloud(t, cloudsim.Options{})
	cloud.RefuseFilter("good", "secret/#")
	b := run(t, `
clouds:
  plain: {provider: generic, url: "`+cloud.WSURL()+`", proxy: none}
  proxied: {provider: generic, url: "`+cloud.WSURL()+`", proxy: "`+proxy.URL+`"}
defaults: {upstream: always, login: {username: u, password: p}}
devices:
  - {name: bad, cloud: proxied}
  - {name: good, cloud: plain, subscribe: [{filter: control, qos: 1}]}
`)
	s := serve(t, b, "")
	bad := connect(t, b, "bad")
	bad.Publish("telemetry", []byte("1"), 0)
	bad.Publish("telemetry", []byte("2"), 0)

	p := open(t, s.url()+"#/devices/bad", "devices/other")
	p.says("h1", "bad")
	p.says(".device .headline", "Offline for ")
	p.says(".device .headline", "the proxy asks for a user name and a password")
	p.says(".device .badge", "✖ needs action")
	p.says(".device .banner", "What to do: write proxy: http://USER@HOST:PORT and set proxy_password")
	p.says(".device .banner li", "no credentials in proxy")
	p.says(".device .banner .next", "attempts have failed in a row")
	p.says(".timeline li", "the proxy asks for a user name and a password")
	p.until("document.querySelectorAll('.timeline li').length > 2")
	p.says(".ledger tbody", "Accepted 2 0")
	p.says(".ledger tbody", "Queued 2")
	p.says(".device .card .note", "it balances")
	p.until("document.querySelectorAll('.chart').length === 3 && document.querySelector('.chart .line').getAttribute('d')")
	p.until("/^Queued messages, last .*: now up 2, down 0; at most 2$/.test(" +
		"document.querySelectorAll('.chart svg[role=img]')[2].getAttribute('aria-label'))")
	if body := p.text(".device"); !strings.Contains(body, "connected for") || !strings.Contains(body, "MQTT 3.1.1") ||
		!strings.Contains(body, "Last failure") {
		t.Errorf("the page says: %s", body)
	}
	if title := eval[string](p, "document.title"); title != "bad · bridged" {
		t.Errorf("the title is %q", title)
	}
	p.shot("device-offline")

	good := connect(t, b, "good")
	good.Subscribe(1, "state", "secret/#")
	good.Publish("telemetry", []byte("1"), 1)
	p.click(".device nav a")
	p.until(p.row("good") + "?.includes('● online')")
	p.do(evaluate("location.hash = '#/devices/good'"))
	p.says(".device .headline", "Online for ")
	p.until("document.querySelector('.device .banner').offsetParent === null")
	p.says(".device", "● granted, QoS 1")
	p.says(".device", "✖ refused")
	p.says(".device", "configuration")
	p.says(".ledger tbody", "Delivered 1")
	p.shot("device-online")

	p.do(evaluate("location.hash = '#/devices/other'"))
	p.says(".device .headline", "There is no device “other”")
	p.shot("device-none")
}

func connect(t *testing.T, b *bridge.Bridge, name string) *testdevice.Device {
	t.Helper()
	return testdevice.Connect(t, b.Addrs()[0].String(), testdevice.Options{ClientID: name, Username: "u", Password: "p"})
}

// A bridge that goes away is missed, and found again.
func TestConnectionLost(t *testing.T) {
	f := fleet(3)
	s := serve(t, f, "")
	p := open(t, s.url(), "net::ERR_")
	p.says("#connection", "Live")
	p.until("document.querySelectorAll('.devices tbody tr').length === 3")
	p.do(mark)
	s.stop()
	p.says("#connection", "Connection lost")
	p.says("#lost", "What you see is how it was then.")
	p.says(".fleet .headline", "At ")
	p.until("document.title === 'Lost · bridged'")
	accessible(p)
	p.until("document.querySelectorAll('.devices tbody tr').length === 3")
	p.shot("lost")
	f.change(1, failing("connection_refused"))
	s.start()
	p.says("#connection", "Live")
	p.until("document.getElementById('lost').hidden")
	p.until(p.row("dev-0001") + "?.includes('offline')")
	p.until(marked)
}

// Where a token is needed, the page asks for it, and the browser remembers.
func TestLogin(t *testing.T) {
	const token = "a token & more"
	s := serve(t, fleet(3), token)
	p := open(t, s.url(), "401 (Unauthorized)")
	p.says("h1", "Token needed")
	p.until("document.activeElement.id === 'token'")
	p.press("wrong\r")
	p.says("#login-error", "That is not the token.")
	p.until("document.activeElement.id === 'token'")
	p.shot("login")
	p.do(evaluate("document.getElementById('token').select()"))
	p.press(token + "\r")
	p.says(".fleet .headline", "3 of 3 devices online")
	p.until("document.querySelectorAll('.devices tbody tr').length === 3")
	if address := eval[string](p, "location.href"); address != s.url() {
		t.Errorf("the address is %s", address)
	}
	p = open(t, s.url())
	p.says(".count", "3 devices")
	if _, err := chromedp.Call(p.ctx, network.ClearBrowserCookies, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	p = open(t, s.url(), "401 (Unauthorized)")
	p.says("h1", "Token needed")
}
