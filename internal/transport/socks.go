package transport

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"strconv"

	"bridged/internal/failure"
)

// SOCKS5 (RFC 1928) with user name and password (RFC 1929). What it reads is counted in bytes, so that nothing is read
// beyond the reply.

const (
	socksVersion    = 5
	socksNoLogin    = 0
	socksPassword   = 2
	socksNoneOfThem = 0xFF
	socksDial       = 1
	socksIPv4       = 1
	socksName       = 3
	socksIPv6       = 4
	socksLogin      = 1   // the version of the login
	maxSocksReply   = 600 // more than all replies together can have
)

// socksReplies are the reply codes (RFC 1928, 6).
var socksReplies = []struct {
	kind failure.Kind
	says string
}{
	1: {failure.ProxyCloudUnknown, "general failure"},
	2: {failure.ProxyRefused, "not allowed by its rules"},
	3: {failure.ProxyCloudUnknown, "network unreachable"},
	4: {failure.ProxyCloudUnknown, "host unreachable"},
	5: {failure.ProxyCloudUnknown, "connection refused"},
	6: {failure.ProxyCloudUnknown, "no answer"},
	7: {failure.ProxyProtocol, "it does not know CONNECT"},
	8: {failure.ProxyProtocol, "it does not resolve names"},
}

// socksConnect asks a SOCKS5 proxy for a connection to host, which the proxy resolves, and port.
func (a *attempt) socksConnect(conn net.Conn, v *via, host string, port uint16) *failure.Failure {
	s := socks{newTap(conn, maxSocksReply)}
	if f := s.login(v); f != nil {
		return f
	}
	req, f := socksRequest(host, port)
	if f != nil {
		return f
	}
	head, f := s.exchange(req, 4)
	if f != nil {
		return f
	}
	code := int(head[1])
	if a.trace != nil {
		a.trace.ProxyReply = "SOCKS5 " + strconv.Itoa(code)
	}
	if head[0] != socksVersion || code >= len(socksReplies) && code < 0x80 {
		return s.garbage()
	}
	if code >= len(socksReplies) {
		return failure.New(failure.ProxyCloudUnknown, failure.StageProxy, nil, "SOCKS5 reply %d", code)
	}
	if code != 0 {
		r := socksReplies[code]
		return failure.New(r.kind, failure.StageProxy, nil, "SOCKS5 reply %d, %s", code, r.says)
	}
	return s.skipAddress(head[3])
}

type socks struct{ t *tap }

// exchange sends and then reads so many bytes.
func (s socks) exchange(send []byte, n int) ([]byte, *failure.Failure) {
	if len(send) > 0 {
		if _, err := s.t.Write(send); err != nil {
			return nil, proxyReadFailure(err, s.t)
		}
	}
	got := make([]byte, n)
	if _, err := io.ReadFull(s.t, got); err != nil {
		return nil, proxyReadFailure(err, s.t)
	}
	return got, nil
}

func (s socks) garbage() *failure.Failure {
	if bytes.HasPrefix(s.t.first, []byte("HT")) { // no more than two bytes are read at first
		return failure.New(failure.ProxyProtocol, failure.StageProxy, nil, "it speaks HTTP: write http:// in proxy")
	}
	return failure.New(failure.ProxyProtocol, failure.StageProxy, nil, "it answers %s", shown(s.t.first))
}

// login agrees on a way of logging in and does so.
func (s socks) login(v *via) *failure.Failure {
	hello := []byte{socksVersion, 1, socksNoLogin}
	if v.login {
		hello = []byte{socksVersion, 2, socksNoLogin, socksPassword}
	}
	got, f := s.exchange(hello, 2)
	switch {
	case f != nil:
		return f
	case got[0] != socksVersion:
		return s.garbage()
	case got[1] == socksNoLogin:
		return nil
	case got[1] == socksNoneOfThem && v.login:
		return failure.New(failure.ProxyAuthUnsupported, failure.StageProxy, nil, "")
	case got[1] == socksNoneOfThem:
		return failure.New(failure.ProxyAuthRequired, failure.StageProxy, nil, "")
	case got[1] != socksPassword || !v.login:
		return s.garbage()
	}
	password := v.Password.Reveal()
	req := []byte{socksLogin, byte(len(v.user))}
	req = append(req, v.user...)
	req = append(req, byte(len(password)))
	req = append(req, password...)
	got, f = s.exchange(req, 2)
	if f != nil {
		if hungUp(f.Err) { // some say no by hanging up
			f.Kind = failure.ProxyAuthRejected
		}
		return f
	}
	if got[1] != 0 {
		return failure.New(failure.ProxyAuthRejected, failure.StageProxy, nil, "")
	}
	return nil
}

func socksRequest(host string, port uint16) ([]byte, *failure.Failure) {
	req := []byte{socksVersion, socksDial, 0}
	if ip, err := netip.ParseAddr(host); err == nil {
		kind := byte(socksIPv4)
		if ip = ip.Unmap(); ip.Is6() {
			kind = socksIPv6
		}
		req = append(append(req, kind), ip.AsSlice()...)
	} else {
		if len(host) > 255 {
			return nil, failure.New(failure.Settings, failure.StageConfig, nil, "the host of url is longer than 255 bytes")
		}
		req = append(append(req, socksName, byte(len(host))), host...)
	}
	return append(req, byte(port>>8), byte(port)), nil
}

// skipAddress reads the rest of the reply, the address that the proxy connects from.
func (s socks) skipAddress(kind byte) *failure.Failure {
	var n int
	switch kind {
	case socksIPv4:
		n = 4
	case socksIPv6:
		n = 16
	case socksName:
		length, f := s.exchange(nil, 1)
		if f != nil {
			return f
		}
		n = int(length[0])
	default:
		return s.garbage()
	}
	_, f := s.exchange(nil, n+2)
	return f
}
