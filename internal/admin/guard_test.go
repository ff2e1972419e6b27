package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const token = "a token of many characters"

func TestGuard(t *testing.T) {
	h := newAdmin(fleet(1)).Handler()
	bearer := func(s string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", s) }
	}
	cookie := func(s string) func(*http.Request) {
		return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: cookieName, Value: s}) }
	}
	pass := (&Guard{Token: token}).pass()
	for name, tc := range map[string]struct {
		token, host, path string
		with              func(*http.Request)
		status            int
	}{
		"loopback":                 {"", "127.0.0.1:9883", "/api/v1/status", nil, 200},
		"loopback, other":          {"", "127.3.2.1", "/api/v1/status", nil, 200},
		"loopback, IPv6":           {"", "[::1]:9883", "/api/v1/status", nil, 200},
		"loopback, IPv6, no port":  {"", "[::1]", "/api/v1/status", nil, 200},
		"loopback, mapped":         {"", "[::ffff:127.0.0.1]", "/api/v1/status", nil, 200},
		"localhost":                {"", "LocalHost:9883", "/api/v1/status", nil, 200},
		"rebinding":                {"", "evil.example:9883", "/api/v1/status", nil, 403},
		"rebinding, page":          {"", "evil.example", "/", nil, 403},
		"rebinding, health":        {"", "evil.example", "/healthz", nil, 403},
		"rebinding, like loopback": {"", "127.0.0.1.evil.example", "/api/v1/status", nil, 403},
		"rebinding, like a name":   {"", "localhost.evil.example", "/api/v1/status", nil, 403},
		"no host":                  {"", "", "/api/v1/status", nil, 403},
		"another address":          {"", "192.0.2.1", "/api/v1/status", nil, 403},

		"token":                  {token, "gateway:9883", "/api/v1/status", bearer("Bearer " + token), 200},
		"token, none":            {token, "gateway:9883", "/api/v1/status", nil, 401},
		"token, none, loopback":  {token, "127.0.0.1:9883", "/api/v1/status", nil, 401},
		"token, none, ready":     {token, "gateway:9883", "/readyz", nil, 401},
		"token, none, metrics":   {token, "gateway:9883", "/metrics", nil, 401},
		"token, none, page":      {token, "gateway:9883", "/", nil, 404}, // there is none here
		"token, none, its files": {token, "gateway:9883", "/page/main.js", nil, 404},
		"token, none, no file":   {token, "gateway:9883", "/pages", nil, 401},
		"token, none, health":    {token, "gateway:9883", "/healthz", nil, 200},
		"token, wrong":           {token, "gateway:9883", "/api/v1/status", bearer("Bearer x" + token), 401},
		"token, a part":          {token, "gateway:9883", "/api/v1/status", bearer("Bearer " + token[:5]), 401},
		"token, empty":           {token, "gateway:9883", "/api/v1/status", bearer("Bearer "), 401},
		"token, other scheme":    {token, "gateway:9883", "/api/v1/status", bearer("Basic " + token), 401},
		"cookie":                 {token, "gateway:9883", "/api/v1/status", cookie(pass), 200},
		"cookie, wrong":          {token, "gateway:9883", "/api/v1/status", cookie("x"), 401},
		"cookie, the token":      {token, "gateway:9883", "/api/v1/status", cookie(token), 401},
		"query, wrong":           {token, "gateway:9883", "/api/v1/status?token=x", nil, 401},
		"query, empty":           {token, "gateway:9883", "/api/v1/status?token=", nil, 401},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, tc.path, http.NoBody)
			r.Host = tc.host
			if tc.with != nil {
				tc.with(r)
			}
			w := httptest.NewRecorder()
			(&Guard{Token: tc.token}).wrap(h).ServeHTTP(w, r)
			if w.Code != tc.status {
				t.Errorf("%d, want %d: %s", w.Code, tc.status, w.Body)
			}
			for name, want := range map[string]string{
				"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
				"Content-Security-Policy": contentPolicy,
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %q", name, got)
				}
			}
		})
	}
}

// A token in the address becomes a cookie, and goes from the address.
func TestTokenInTheAddress(t *testing.T) {
	h := (&Guard{Token: token}).wrap(newAdmin(fleet(1)).Handler())
	ask := func(path string, cookies []*http.Cookie) *http.Response {
		r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	resp := ask("/api/v1/devices?limit=1&token="+strings.ReplaceAll(token, " ", "+"), nil)
	to := resp.Header.Get("Refresh")
	if to != "0; url=/api/v1/devices?limit=1" {
		t.Errorf("on to %q", to)
	}
	cookies := resp.Cookies()
	if len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteStrictMode ||
		strings.Contains(cookies[0].Value, token) {
		t.Fatalf("%+v", cookies)
	}
	if resp := ask("/api/v1/devices?limit=1", cookies); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	// It leads nowhere else.
	resp = ask("//evil.example/x?token="+strings.ReplaceAll(token, " ", "+"), nil)
	if to := resp.Header.Get("Refresh"); to != "" && !strings.HasPrefix(to, "0; url=/evil.example/x") {
		t.Errorf("on to %q", to)
	}
}
