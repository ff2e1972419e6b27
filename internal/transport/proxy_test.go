package transport

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"bridged/internal/credentials"
	"bridged/internal/failure"
)

func TestParseProxy(t *testing.T) {
	for _, tc := range []struct {
		setting, password string
		url, user, pass   string
		err               error
	}{
		{"none", "", "", "", "", nil},
		{"env", "", "env", "", "", nil},
		{"http://proxy.plant:3128", "", "http://proxy.plant:3128", "", "", nil},
		{"http://proxy.plant", "", "http://proxy.plant:80", "", "", nil},
		{"https://proxy.plant/", "", "https://proxy.plant:443", "", "", nil},
		{"SOCKS5://10.0.0.1", "", "socks5://10.0.0.1:1080", "", "", nil},
		{"socks5h://[::1]:1080", "", "socks5://[::1]:1080", "", "", nil},
		{"http://u:p@proxy:1", "", "http://proxy:1", "u", "p", nil},
		{"http://u@proxy:1", secret, "http://proxy:1", "u", secret, nil},
		{"http://u:old@proxy:1", secret, "http://proxy:1", "u", secret, nil},
		{"http://u@proxy:1", "", "http://proxy:1", "u", "", nil},
		{"http://u%40d:p%2F@proxy:1", "", "http://proxy:1", "u@d", "p/", nil},
		{"none", secret, "", "", "", errNoLogin},
		{"env", secret, "", "", "", errNoLogin},
		{"http://proxy:1", secret, "", "", "", errProxyLogin},
		{"http://:" + secret + "@proxy:1", "", "", "", "", errProxyLogin},
		{"", "", "", "", "", errProxyScheme},
		{"proxy:3128", "", "", "", "", errProxyURL},
		{"proxy.plant", "", "", "", "", errProxyScheme},
		{"ftp://" + secret + "@proxy", "", "", "", "", errProxyScheme},
		{"socks4://proxy", "", "", "", "", errProxyScheme},
		{"http://", "", "", "", "", errProxyHost},
		{"http://:80", "", "", "", "", errProxyHost},
		{"http://[fe80::1%25eth0]:80", "", "http://[fe80::1%25eth0]:80", "", "", nil},
		{"http://[fe80::1%25%0d%0aX]:80", "", "", "", "", errProxyURL},
		{"http://pr%C3%B6xy:80", "", "", "", "", errProxyName},
		{"http://proxy:", "", "", "", "", errProxyPort},
		{"http://proxy:0", "", "", "", "", errProxyPort},
		{"http://proxy:65536", "", "", "", "", errProxyPort},
		{"http://u:" + secret + "@proxy:x", "", "", "", "", errProxyURL},
		{"http://proxy:1/path", "", "", "", "", errProxyPath},
		{"http://proxy:1?x=" + secret, "", "", "", "", errProxyPath},
		{"http://proxy:1#x", "", "", "", "", errProxyPath},
		{"http://a%3Ab@proxy:1", "", "", "", "", errProxyColon},
		{"socks5://a%3Ab@proxy:1", "", "socks5://proxy:1", "a:b", "", nil},
		{"socks5://u@proxy:1", strings.Repeat("x", 256), "", "", "", errProxyLong},
		{"socks5://" + strings.Repeat("x", 256) + "@proxy:1", "", "", "", "", errProxyLong},
	} {
		p, err := ParseProxy(tc.setting, credentials.Secret(tc.password))
		if !errors.Is(err, tc.err) {
			t.Errorf("%q: %v, want %v", tc.setting, err, tc.err)
			continue
		}
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q: %v", tc.setting, err)
			}
			continue
		}
		if p.env != (tc.url == "env") || (p.via == nil) != (tc.url == "" || tc.url == "env") {
			t.Errorf("%q: %+v", tc.setting, p)
		}
		if v := p.via; v != nil && (v.url() != tc.url || v.user != tc.user || v.Password.Reveal() != tc.pass ||
			v.login != (tc.user != "")) {
			t.Errorf("%q: %+v", tc.setting, v)
		}
		if p.via != nil && tc.pass != "" && strings.Contains(fmt.Sprintf("%+v %#v", *p.via, *p.via), tc.pass) &&
			len(tc.pass) > 2 {
			t.Errorf("%q shows its password", tc.setting)
		}
	}
}

func FuzzParseProxy(f *testing.F) {
	for _, s := range []string{"none", "http://u:p@h:1", "socks5://[::1]", "http://h:", "://", "http://[::1%25eth0]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseProxy(s, "")
		if err != nil || p.via == nil {
			return
		}
		again, err := ParseProxy(p.via.url(), "")
		if err != nil || again.via.url() != p.via.url() {
			t.Fatalf("%q became %q, which became %v, %v", s, p.via.url(), again.via, err)
		}
	})
}

// environ sets the proxy variables and no others.
func environ(t *testing.T, set map[string]string) {
	t.Helper()
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"} {
		t.Setenv(name, set[name])
		t.Setenv(strings.ToLower(name), set[strings.ToLower(name)])
	}
}

func TestProxyFromEnvironment(t *testing.T) {
	type vars = map[string]string
	const wss, ws = "wss://cloud.test", "ws://cloud.test"
	for name, tc := range map[string]struct {
		env  vars
		url  string
		want string // empty: directly; "error"
	}{
		"nothing":            {nil, wss, ""},
		"https":              {vars{"HTTPS_PROXY": "http://a:1"}, wss, "http://a:1"},
		"small letters win":  {vars{"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, wss, "http://b:1"},
		"https, for ws":      {vars{"HTTPS_PROXY": "http://a:1"}, ws, ""},
		"http":               {vars{"HTTP_PROXY": "http://a:1"}, ws, "http://a:1"},
		"http, as in CGI":    {vars{"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}, ws, "http://a:1"},
		"http, for wss":      {vars{"HTTP_PROXY": "http://a:1"}, wss, ""},
		"all":                {vars{"ALL_PROXY": "socks5://a:1"}, wss, "socks5://a:1"},
		"all, ws":            {vars{"all_proxy": "socks5h://a"}, ws, "socks5://a:1080"},
		"https before all":   {vars{"HTTPS_PROXY": "http://b:1", "ALL_PROXY": "http://a:1"}, wss, "http://b:1"},
		"no scheme":          {vars{"HTTPS_PROXY": "a:3128"}, wss, "http://a:3128"},
		"exempt":             {vars{"HTTPS_PROXY": "http://a:1", "NO_PROXY": "x.test,cloud.test"}, wss, ""},
		"exempt domain":      {vars{"HTTPS_PROXY": "http://a:1", "no_proxy": ".test"}, wss, ""},
		"exempt port":        {vars{"HTTPS_PROXY": "http://a:1", "no_proxy": "cloud.test:8084"}, "wss://cloud.test:8084", ""},
		"other port":         {vars{"HTTPS_PROXY": "http://a:1", "no_proxy": "cloud.test:8084"}, wss, "http://a:1"},
		"default port":       {vars{"HTTPS_PROXY": "http://a:1", "no_proxy": "cloud.test:443"}, wss, ""},
		"exempt network":     {vars{"HTTPS_PROXY": "http://a:1", "NO_PROXY": "10.0.0.0/8"}, "wss://10.1.2.3:443", ""},
		"not in the network": {vars{"HTTPS_PROXY": "http://a:1", "NO_PROXY": "10.0.0.0/8"}, "wss://11.1.2.3", "http://a:1"},
		"all exempt":         {vars{"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, wss, ""},
		"loopback":           {vars{"HTTPS_PROXY": "http://a:1"}, "wss://127.0.0.1:1", ""},
		"IPv6":               {vars{"HTTPS_PROXY": "http://a:1"}, "wss://[2001:db8::1]:1", "http://a:1"},
		"malformed":          {vars{"HTTPS_PROXY": "http://u:" + secret + "@"}, wss, "error"},
		"malformed, exempt":  {vars{"HTTPS_PROXY": "ftp://" + secret, "NO_PROXY": "*"}, wss, ""},
	} {
		t.Run(name, func(t *testing.T) {
			environ(t, tc.env)
			p, err := ParseProxy("env", "")
			if err != nil {
				t.Fatal(err)
			}
			choose := p.chooser()
			environ(t, nil) // read once
			u, err := url.Parse(tc.url)
			if err != nil {
				t.Fatal(err)
			}
			v, err := choose(u)
			switch {
			case (err != nil) != (tc.want == "error"):
				t.Errorf("error: %v", err)
			case err == nil && v == nil && tc.want != "", v != nil && v.url() != tc.want:
				t.Errorf("%+v, want %s", v, tc.want)
			case v != nil && tc.env[v.variable] == "":
				t.Errorf("it comes from %q", v.variable)
			case err != nil && (strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "HTTPS_PROXY")):
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestMalformedEnvironment(t *testing.T) {
	environ(t, map[string]string{"ALL_PROXY": "http://u:" + secret + "@proxy:port"})
	p, err := ParseProxy("env", "")
	if err != nil {
		t.Fatal(err)
	}
	f := fails(t, newDialer(t, Options{Proxy: p}), at("wss", "cloud.test"), failure.ProxyConfig, failure.StageConfig)
	says(t, f, "ALL_PROXY")
}

func TestBadTargets(t *testing.T) {
	p, err := ParseProxy("socks5://127.0.0.1:1", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []Target{
		at("http", "cloud.test"), at("ws", ""), at("ws", "cloud.test:0"), at("ws", ":80"), at("", "cloud.test"),
		at("ws", "[fe80::1%\r\nX: y]:80"), at("ws", "cloud test"), at("ws", "cl\r\noud"),
	} {
		for _, o := range []Options{{}, {Proxy: p}} {
			fails(t, newDialer(t, o), target, failure.Settings, failure.StageConfig)
		}
	}
}
