package transport

import (
	"bufio"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"bridged/internal/failure"
)

const (
	// maxProxyReply bounds the proxy's reply to CONNECT.
	maxProxyReply = 16 << 10
	// maxInterim is how many 1xx replies may come first.
	maxInterim = 5
)

// httpConnect asks an HTTP proxy for a connection to host and port (RFC 9110, 9.3.6).
func (a *attempt) httpConnect(conn net.Conn, v *via, host, port string) (net.Conn, *failure.Failure) {
	t := newTap(conn, maxProxyReply)
	sent := time.Now()
	if _, err := t.Write([]byte(connectRequest(v, joinHostPort(host, port)))); err != nil {
		return nil, proxyReadFailure(err, t)
	}
	br := bufio.NewReaderSize(t, 1024)
	resp, err := readReply(br) //nolint:bodyclose // what follows a refusal is thrown away with the connection
	if err != nil {
		return nil, proxyReadFailure(err, t)
	}
	s, _ := conn.(*secured) // for https
	a.date(Date{Host: v.host, Sent: sent, Received: t.readAt, Proxy: true}, resp.Header, s)
	if a.trace != nil {
		a.trace.ProxyReply = "HTTP " + failure.Clean(resp.Status)
	}
	if resp.StatusCode/100 != 2 {
		return nil, a.proxyStatus(v, resp)
	}
	rest, err := br.Peek(br.Buffered())
	if err != nil {
		return nil, proxyReadFailure(err, t)
	}
	if len(rest) == 0 {
		return conn, nil
	}
	out := newTap(conn, 0)
	out.rest = slices.Clone(rest)
	out.open()
	return out, nil
}

func connectRequest(v *via, target string) string {
	var b strings.Builder
	b.WriteString("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\nUser-Agent: bridged\r\n")
	if v.login {
		userinfo := base64.StdEncoding.EncodeToString([]byte(v.user + ":" + v.Password.Reveal()))
		b.WriteString("Proxy-Authorization: Basic " + userinfo + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// readReply reads the final reply. Its body is left alone.
func readReply(br *bufio.Reader) (*http.Response, error) {
	for range maxInterim {
		resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
		if err != nil || resp.StatusCode/100 != 1 {
			return resp, err
		}
	}
	return nil, errTooMuch
}

// proxyStatus tells what a refusal means.
func (a *attempt) proxyStatus(v *via, resp *http.Response) *failure.Failure {
	kind := failure.ProxyRefused
	switch code := resp.StatusCode; {
	case code == http.StatusProxyAuthRequired && !offersBasic(resp.Header):
		kind = failure.ProxyAuthUnsupported
	case code == http.StatusProxyAuthRequired && v.login, code == http.StatusUnauthorized && v.login:
		kind = failure.ProxyAuthRejected
	case code == http.StatusProxyAuthRequired, code == http.StatusUnauthorized:
		kind = failure.ProxyAuthRequired
	case code == http.StatusTooManyRequests:
		kind = failure.ProxyThrottled
	case code >= 500 && code != http.StatusNotImplemented:
		// 500 is what tinyproxy says when it cannot resolve or connect; 502, 503, 504 is what others do.
		kind = failure.ProxyCloudUnknown
	case code/100 == 3, code == http.StatusBadRequest, code == http.StatusNotFound, code == http.StatusMethodNotAllowed,
		code == http.StatusNotImplemented:
		kind = failure.ProxyProtocol // it is a web server
	}
	detail := "HTTP " + failure.Clean(resp.Status)
	if why := resp.Header.Get("X-Squid-Error"); why != "" {
		detail += " (" + failure.Clean(why) + ")"
	}
	if kind == failure.ProxyAuthUnsupported {
		detail += ", it offers " + strings.Join(schemes(resp.Header), ", ")
	}
	f := failure.New(kind, failure.StageProxy, nil, "")
	f.Detail, f.RetryAfter = detail, a.retryAfter(resp.Header)
	return f
}

// schemes are the ways of logging in that a proxy offers (RFC 9110, 11.7.1). A header with several of them counts as
// its first, beside Basic.
func schemes(h http.Header) []string {
	var all []string
	for _, v := range h.Values("Proxy-Authenticate") {
		scheme, _, _ := strings.Cut(strings.TrimSpace(v), " ")
		all = append(all, failure.Clean(strings.TrimSuffix(scheme, ",")))
		for part := range strings.SplitSeq(v, ",") {
			if first, _, _ := strings.Cut(strings.TrimSpace(part), " "); strings.EqualFold(first, "basic") {
				all = append(all, "Basic")
			}
		}
	}
	return all[:min(len(all), 5)]
}

// offersBasic is also true of a proxy that does not say what it offers.
func offersBasic(h http.Header) bool {
	all := schemes(h)
	return len(all) == 0 || slices.ContainsFunc(all, func(s string) bool { return strings.EqualFold(s, "basic") })
}

// maxRetryAfter bounds what is believed.
const maxRetryAfter = time.Hour

// retryAfter reads Retry-After, which is in seconds or a time (RFC 9110, 10.2.3).
func (a *attempt) retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseInt(v, 10, 32); err == nil {
		return min(max(0, time.Duration(s)*time.Second), maxRetryAfter)
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date")) // by the same clock
	if err != nil {
		now = a.d.opts.Clock()
	}
	return min(max(0, at.Sub(now)), maxRetryAfter)
}

// proxyReadFailure tells why there was no reply. What is not an error of the network means that it cannot be read.
func proxyReadFailure(err error, t *tap) *failure.Failure {
	if t.readErr != nil {
		err = t.readErr
	}
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, net.ErrClosed), hungUp(err) && t.read == 0:
		return failure.New(failure.ProxyNoAnswer, failure.StageProxy, err, "")
	case errors.Is(err, errTooMuch):
		return failure.New(failure.ProxyProtocol, failure.StageProxy, err, "")
	case hungUp(err) && (looksLikeHTTP(t.first) || t.first[0] == socksVersion):
		return failure.New(failure.ProxyNoAnswer, failure.StageProxy, err, "its reply has no end")
	}
	return failure.New(failure.ProxyProtocol, failure.StageProxy, nil, "it answers %s", shown(t.first))
}
