package transport

import (
	"errors"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"bridged/internal/credentials"
)

// Proxy says how to leave the plant's network. Its zero value connects directly.
type Proxy struct {
	env bool
	via *via
}

// via is one proxy.
type via struct {
	scheme     string // http, https or socks5
	host, port string
	login      bool
	user       string
	variable   string             // of the environment, where it comes from
	Password   credentials.Secret // exported, so that fmt sees that it is a Secret
}

// url is the proxy's address, without credentials.
func (v *via) url() string {
	return (&url.URL{Scheme: v.scheme, Host: joinHostPort(v.host, v.port)}).String()
}

// The faults of a proxy's URL. None of them shows it, since it may hold a password.
var (
	errProxyURL    = errors.New("is not a URL: write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")
	errProxyScheme = errors.New("does not begin with http://, https:// or socks5://")
	errProxyHost   = errors.New("has no host")
	errProxyName   = errors.New("has a host that is neither a name nor an address")
	errProxyPort   = errors.New("has no port from 1 to 65535")
	errProxyPath   = errors.New("has something after the port: remove it")
	errProxyLogin  = errors.New("has a password, but no user name: write http://USER@HOST:PORT")
	errProxyLong   = errors.New("has a user name or a password of more than 255 bytes, which SOCKS5 does not allow")
	errProxyColon  = errors.New("has a user name with a colon, which HTTP does not allow")
	errNoLogin     = errors.New("has no use for a password: remove it, or write the proxy's URL")
)

// ParseProxy reads a proxy setting: "none", "env" for what the environment says, or a URL. The password is used instead
// of the URL's; it may be empty. Errors are to follow the name of the setting; they do not show it.
func ParseProxy(setting string, password credentials.Secret) (Proxy, error) {
	switch setting {
	case "none", "env":
		if password != "" {
			return Proxy{}, errNoLogin
		}
		return Proxy{env: setting == "env"}, nil
	}
	v, err := parseVia(setting, password)
	if err != nil {
		return Proxy{}, err
	}
	return Proxy{via: v}, nil
}

// Env says that the environment decides.
func (p Proxy) Env() bool { return p.env }

func parseVia(raw string, password credentials.Secret) (*via, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		return nil, errProxyURL
	}
	v := &via{scheme: strings.ToLower(u.Scheme), host: u.Hostname(), Password: password}
	if v.scheme == "socks5h" { // names are resolved by the proxy in any case
		v.scheme = "socks5"
	}
	switch v.scheme {
	case "http", "https", "socks5":
	default:
		return nil, errProxyScheme
	}
	if v.host == "" {
		return nil, errProxyHost
	}
	if !validHost(v.host) {
		return nil, errProxyName
	}
	if v.port = u.Port(); v.port == "" {
		v.port = defaultPorts[v.scheme]
	}
	if _, err := portNumber(v.port); err != nil || strings.HasSuffix(u.Host, ":") {
		return nil, errProxyPort
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errProxyPath
	}
	return v, v.setLogin(u.User)
}

func (v *via) setLogin(u *url.Userinfo) error {
	if u != nil {
		v.user = u.Username()
		if p, ok := u.Password(); ok && v.Password == "" {
			v.Password = credentials.Secret(p)
		}
	}
	v.login = v.user != ""
	switch {
	case v.user == "" && v.Password != "":
		return errProxyLogin
	case v.scheme == "socks5" && (len(v.user) > 255 || len(v.Password.Reveal()) > 255): // RFC 1929, 2
		return errProxyLong
	case v.scheme != "socks5" && strings.Contains(v.user, ":"): // RFC 7617, 2
		return errProxyColon
	}
	return nil
}

// chooser says which proxy is for a URL.
type chooser func(*url.URL) (*via, error)

// envError is a fault in the environment.
type envError struct {
	variable string
	err      error
}

func (e *envError) Error() string { return e.variable + " " + e.err.Error() }
func (e *envError) Unwrap() error { return e.err }

func (p Proxy) chooser() chooser {
	if !p.env {
		return func(*url.URL) (*via, error) { return p.via, nil }
	}
	secure, plain := fromEnv("HTTPS_PROXY"), fromEnv("HTTP_PROXY")
	return func(u *url.URL) (*via, error) {
		if u.Scheme == "wss" {
			return secure(u, "https")
		}
		return plain(u, "http")
	}
}

// fromEnv reads a variable, in small letters or capitals, or else ALL_PROXY, once. NO_PROXY, and that loopback has no
// proxy, is what Go programs have in common. But a value that cannot be used is an error: going around the proxy
// without a word would be wrong.
func fromEnv(variable string) func(u *url.URL, scheme string) (*via, error) {
	name, value := getenv(variable, "ALL_PROXY")
	if value == "" {
		return func(*url.URL, string) (*via, error) { return nil, nil }
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	v, err := parseVia(value, "")
	if err != nil {
		err = &envError{name, err}
	} else {
		v.variable = name
	}
	_, no := getenv("NO_PROXY")
	const some = "http://proxy.invalid" // only whether there is one is asked
	exempt := (&httpproxy.Config{HTTPProxy: some, HTTPSProxy: some, NoProxy: no}).ProxyFunc()
	return func(u *url.URL, scheme string) (*via, error) {
		host, port := address(u)
		proxied, e := exempt(&url.URL{Scheme: scheme, Host: joinHostPort(host, port)})
		if e != nil || proxied == nil {
			return nil, e
		}
		return v, err
	}
}

func getenv(variables ...string) (name, value string) {
	for _, v := range variables {
		for _, name := range []string{strings.ToLower(v), v} {
			if value := os.Getenv(name); value != "" {
				return name, value
			}
		}
	}
	return "", ""
}

func joinHostPort(host, port string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]:" + port
	}
	return host + ":" + port
}
