package admin

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"bridged/internal/testdevice"
	"bridged/internal/upstream"
)

// No answer holds a secret, of whatever kind, in whatever coding.
func TestNoSecrets(t *testing.T) {
	dir := t.TempDir()
	inFile := filepath.Join(dir, "secret")
	if err := os.WriteFile(inFile, []byte("secret-in-a-file-9f\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := base64.StdEncoding.EncodeToString([]byte("tencent-secret-1"))
	const hash = "$2a$04$abcdefghijklmnopqrstuuJqQXc6tY1NuWQcVXIQ9S1bYbqgbhBjC"
	secrets := []string{
		"secret-in-a-file-9f", "aliyun-secret-77", key, "generic-password-3", "lan-password-55", "proxy-password-8",
		"header-value-6", "query-value-4", hash, token, "guest-password-2",
	}
	b := run(t, fmt.Sprintf(`
clouds:
  ali: {provider: aliyun, url: "ws://127.0.0.1:1", product_key: pk, proxy: none}
  ten: {provider: tencent, url: "ws://127.0.0.1:1", product_id: ABCDE12345, proxy: none}
  lab:
    provider: generic
    url: "ws://127.0.0.1:1/mqtt?key=query-value-4"
    headers: {Authorization: header-value-6}
    proxy: http://me@127.0.0.1:1
    proxy_password: proxy-password-8
  own: {provider: passthrough, vendor: generic, url: "ws://127.0.0.1:1", proxy: none}
defaults: {upstream: always, login: {username: u}}
devices:
  - {name: a, cloud: ali, device_secret: aliyun-secret-77, login: {password: lan-password-55}}
  - {name: b, cloud: ten, device_secret: "%s", login: {password_hash: "%s"}}
  - {name: c, cloud: lab, username: me, password: generic-password-3, login: {password: {file: "%s"}}}
  - {name: d, cloud: own, login: {allow_from: [127.0.0.1]}}
`, key, hash, inFile))
	for _, name := range []string{"a", "b", "c"} {
		until(t, "a failure of "+name, func() bool {
			st, _ := b.DeviceStatus(name)
			return st.Session.State == upstream.Waiting && st.Session.Latest != nil
		})
	}
	lan := b.Addrs()[0].String()
	testdevice.Connect(t, lan, testdevice.Options{ClientID: "a", Username: "u", Password: "lan-password-55"})
	a := New(Options{Source: b, Version: "v1", DeviceMetrics: 10, PProf: true, Log: zap.NewNop()})
	base, _ := serve(t, a, &Guard{Token: token})
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(path string, with bool) {
		req, err := http.NewRequest(http.MethodGet, base+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if with {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		body = unpack(t, body)
		all := fmt.Sprint(resp.Header) + string(body)
		if len(body) == 0 {
			t.Errorf("%s: nothing", path)
		}
		for _, s := range secrets {
			for _, form := range []string{
				s, url.QueryEscape(s), base64.StdEncoding.EncodeToString([]byte(s)), hex.EncodeToString([]byte(s)),
			} {
				if strings.Contains(all, form) {
					t.Errorf("%s shows %q:\n%s", path, form, all)
				}
			}
		}
	}
	for _, path := range []string{
		"/", "/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/devices?limit=10000", "/api/v1/devices/a",
		"/api/v1/devices/b", "/api/v1/devices/c", "/api/v1/devices/none", "/api/v1/openapi.yaml", "/debug/pprof/",
		"/debug/pprof/goroutine?debug=2", "/debug/pprof/heap", "/debug/pprof/allocs?debug=1", "/debug/pprof/cmdline",
		"/debug/pprof/symbol", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=1", "/debug/pprof/none",
		"/api/v1/devices?sort=none", "/api/v1/nothing", "/none", "/page/none", "/api/v1/events?device=none",
	} {
		ask(path, true)
		ask(path, false)
	}
	ask("/?token="+url.QueryEscape(token), false)
	stream := listenWith(t, base+"/api/v1/events?device=c", token)
	for seen := ""; !strings.Contains(seen, "device "); {
		name, data := stream.next(t)
		seen += name + " "
		for _, s := range secrets {
			if strings.Contains(string(data), s) {
				t.Errorf("the event %s shows %q", name, s)
			}
		}
	}
}

// unpack gives what is in a profile, and everything else as it is.
func unpack(t *testing.T, body []byte) []byte {
	t.Helper()
	if !bytes.HasPrefix(body, []byte("\x1f\x8b")) {
		return body
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return body
}
