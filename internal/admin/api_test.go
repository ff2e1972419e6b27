package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"go.uber.org/zap"

	"bridged/internal/cloudsim"
	"bridged/internal/failure"
	"bridged/internal/testdevice"
	"bridged/internal/upstream"
)

// document is what openapi.yaml says.
func document(t *testing.T) (*openapi3.T, routers.Router) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openAPIDocument)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	doc.Servers = nil // any
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return doc, router
}

// fits checks an answer against the document.
func fits(t *testing.T, router routers.Router, r *http.Request, status int, header http.Header, body []byte) {
	t.Helper()
	route, params, err := router.FindRoute(r)
	if err != nil {
		t.Errorf("%s is not described: %v", r.URL, err)
		return
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route},
		Status:                 status, Header: header, Body: io.NopCloser(bytes.NewReader(body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		t.Errorf("%s: %v\n%s", r.URL, err, body)
	}
}

// Every answer is as the document says, whatever the devices are like.
func TestAnswersFitTheDocument(t *testing.T) {
	doc, router := document(t)
	openapi3filter.RegisterBodyDecoder("application/yaml", openapi3filter.FileBodyDecoder)
	openapi3filter.RegisterBodyDecoder("text/event-stream", openapi3filter.FileBodyDecoder)
	c, err := cloudsim.New(cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true, Users: map[string]string{"good": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.RefuseFilter("good", "no/#")
	b := run(t, fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s"}
  gone: {provider: generic, url: "ws://127.0.0.1:1"}
defaults: {login: {username: u, password: p}, upstream: always}
devices:
  - {name: good, cloud: lab, username: good, password: x}
  - {name: bad, cloud: lab, username: good, password: wrong}
  - {name: lost, cloud: gone, upstream: on_demand, subscribe: [{filter: "a/b", qos: 1}]}
`, c.WSURL()))
	a := New(Options{Source: b, Version: "v1", Revision: "abc", DeviceMetrics: 2, Log: zap.NewNop()})
	spin(t, a)
	lan := b.Addrs()[0].String()
	good := testdevice.Connect(t, lan, testdevice.Options{ClientID: "good", Username: "u", Password: "p"})
	good.Subscribe(1, "yes", "no/#")
	lost := testdevice.Connect(t, lan, testdevice.Options{ClientID: "lost", Username: "u", Password: "p"})
	lost.Publish("t", []byte("x"), 1)
	until(t, "all kinds of devices", func() bool {
		good, _ := b.DeviceStatus("good")
		bad, _ := b.DeviceStatus("bad")
		lost, _ := b.DeviceStatus("lost")
		return good.Session.State == upstream.Online && len(good.Session.Refused) == 1 &&
			bad.Session.Latest != nil && lost.Session.Latest != nil && lost.Up.Stored == 1
	})
	h := a.Handler()
	described := make(map[string]bool)
	for path := range doc.Paths.Map() {
		described[path] = true
	}
	for path, status := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/metrics": 200, "/api/v1/status": 200, "/api/v1/openapi.yaml": 200,
		"/api/v1/devices": 200, "/api/v1/devices?limit=1&offset=1&sort=-state&failing=true": 200,
		"/api/v1/devices?sort=x": 400, "/api/v1/devices?limit=x": 400, "/api/v1/devices?colour=red": 400,
		"/api/v1/devices?state=x": 400, "/api/v1/devices?failing=x": 400, "/api/v1/devices?offset=-1": 400,
		"/api/v1/devices/good": 200, "/api/v1/devices/bad": 200, "/api/v1/devices/lost": 200,
		"/api/v1/devices/none": 404, "/api/v1/events?device=none": 404,
	} {
		r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("%s: %d, want %d: %s", path, w.Code, status, w.Body)
		}
		fits(t, router, r, w.Code, w.Header(), w.Body.Bytes())
		if route, _, err := router.FindRoute(r); err == nil {
			delete(described, route.Path)
		}
	}
	if len(described) > 0 {
		t.Errorf("not asked for: %v", described)
	}
	guarded := (&Guard{Token: "a token that is long"}).wrap(h)
	for _, path := range []string{"/readyz", "/metrics", "/api/v1/status", "/api/v1/devices", "/api/v1/devices/good"} {
		r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, r)
		fits(t, router, r, w.Code, w.Header(), w.Body.Bytes())
	}
	eventsFit(t, doc, h)
	what(t, h)
}

// eventsFit checks what the events carry.
func eventsFit(t *testing.T, doc *openapi3.T, h http.Handler) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	stream := listen(t, s.URL+"/api/v1/events?device=lost")
	seen := make(map[string]bool)
	for !seen["status"] || !seen["device"] {
		name, data := stream.next(t)
		schema := map[string]string{"status": "Status", "devices": "Changed", "device": "Device"}[name]
		var value any
		if err := json.Unmarshal(data, &value); err != nil {
			t.Fatal(err)
		}
		if err := doc.Components.Schemas[schema].Value.VisitJSON(value); err != nil {
			t.Errorf("%s: %v\n%s", name, err, data)
		}
		seen[name] = true
	}
}

// what checks what the answers say.
func what(t *testing.T, h http.Handler) {
	t.Helper()
	var st Status
	get(t, h, "/api/v1/status", 200, &st)
	if st.Devices.Total != 3 || st.Devices.Connected != 2 || st.Devices.ByState["online"] != 1 || !st.Ready {
		t.Errorf("%+v", st)
	}
	var good, bad, lost Device
	get(t, h, "/api/v1/devices/good", 200, &good)
	get(t, h, "/api/v1/devices/bad", 200, &bad)
	get(t, h, "/api/v1/devices/lost", 200, &lost)
	if good.State != "online" || !good.Local.Connected || good.Local.Protocol != "3.1.1" ||
		good.Local.RemoteAddress == "" || good.Connects == 0 ||
		len(good.Subscriptions) != 2 || good.Subscriptions[0].Verdict != "refused" ||
		*good.Subscriptions[1].GrantedQoS != 1 {
		t.Errorf("%+v", good)
	}
	info := failure.ConnackNotAuthorized.Info()
	if f := bad.LastFailure; f == nil || f.Kind != "connack_5" || !f.Alarm || f.Remedy != info.Remedy ||
		!slices.Equal(f.Causes, info.Causes) || f.Stage != "connect" {
		t.Errorf("%+v", f)
	}
	if bad.OfflineSince == nil || time.Since(*bad.OfflineSince) > patience {
		t.Errorf("offline since %v", bad.OfflineSince)
	}
	if f := lost.UpLedger; f.AcceptedMessages != 1 || f.StoredMessages != 1 || f.StoredBytes == 0 ||
		lost.Up.QueuedMessages != 1 {
		t.Errorf("%+v", f)
	}
}

// Devices are found, sorted and cut as the parameters say.
func TestDeviceList(t *testing.T) {
	f := fleet(4)
	f.devices[1].Cloud = "other"
	f.change(2, fail(failure.Refused))
	f.change(3, fail(failure.ConnackPassword))
	f.change(0, relay(10, 3))
	f.devices[0].Name = "zeta"
	h := newAdmin(f).Handler()
	for path, want := range map[string]string{
		"":                       "zeta dev-1 dev-2 dev-3",
		"cloud=other":            "dev-1",
		"cloud=other,lab":        "zeta dev-1 dev-2 dev-3",
		"cloud=other&cloud=lab":  "zeta dev-1 dev-2 dev-3",
		"cloud=none":             "",
		"state=waiting":          "dev-2 dev-3",
		"state=waiting,online":   "zeta dev-1 dev-2 dev-3",
		"failing=true":           "dev-2 dev-3",
		"failing=false":          "zeta dev-1 dev-2 dev-3",
		"q=ZET":                  "zeta",
		"q=connack_4":            "dev-3",
		"q=refuses":              "dev-2",
		"q=other":                "dev-1",
		"sort=name":              "dev-1 dev-2 dev-3 zeta",
		"sort=-name":             "zeta dev-3 dev-2 dev-1",
		"sort=state":             "dev-3 dev-2 zeta dev-1",
		"sort=-queued":           "zeta dev-1 dev-2 dev-3",
		"sort=name&limit=2":      "dev-1 dev-2",
		"limit=2&offset=3":       "dev-3",
		"limit=2&offset=9":       "",
		"limit=0":                "",
		"q=dev&limit=1&offset=1": "dev-2",
	} {
		var list DeviceList
		get(t, h, "/api/v1/devices?"+path, 200, &list)
		var names []string
		for _, d := range list.Devices {
			names = append(names, d.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
		if list.Total != 4 || list.Matching < len(list.Devices) {
			t.Errorf("%s: %d of %d", path, list.Matching, list.Total)
		}
	}
	for by := range orders {
		get(t, h, "/api/v1/devices?sort=-"+by, 200, nil)
	}
}

// Problems that a person has to mend come first, then those of many devices.
func TestProblems(t *testing.T) {
	f := fleet(5)
	f.change(0, fail(failure.Refused))
	f.change(1, fail(failure.DNSTimeout))
	f.change(2, fail(failure.DNSTimeout))
	f.change(3, fail(failure.ConnackPassword))
	var st Status
	get(t, newAdmin(f).Handler(), "/api/v1/status", 200, &st)
	var got []string
	for _, p := range st.Problems {
		got = append(got, fmt.Sprintf("%s %d %s", p.Kind, p.Devices, p.Device))
	}
	if want := []string{"connack_4 1 dev-3", "dns_timeout 2 dev-1", "refused 1 dev-0"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if st.Devices.Failing != 4 || st.Devices.Alarm != 1 || st.Clouds[0].Devices.Failing != 4 {
		t.Errorf("%+v", st.Devices)
	}
}

// Only reading is possible.
func TestReadOnly(t *testing.T) {
	h := newAdmin(fleet(1)).Handler()
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/api/v1/status", http.NoBody))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/api/v1/status", http.NoBody))
	if w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d, %d bytes", w.Code, w.Body.Len())
	}
	for _, path := range []string{"/", "/api/", "/api/v1/none", "/debug/pprof/", "/api/v1/reload"} {
		get(t, h, path, 404, nil)
	}
}
