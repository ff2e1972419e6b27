package transport

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"bridged/internal/failure"
)

// script answers what a SOCKS client sends, step by step: it reads a number of bytes and then writes.
type step struct {
	read  int
	write string
}

func script(steps ...step) func(net.Conn) {
	return func(c net.Conn) {
		for _, s := range steps {
			if _, err := io.ReadFull(c, make([]byte, s.read)); err != nil {
				return
			}
			if _, err := io.WriteString(c, s.write); err != nil {
				return
			}
		}
	}
}

func TestSOCKSReplies(t *testing.T) {
	type steps = []step
	const hello, login = 3, 4
	free, ask := step{hello, "\x05\x00"}, step{login, "\x05\x02"}
	request := 4 + 1 + len("cloud.test") + 2
	user := 3 + len("dev") + len(secret)
	ok := "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"
	ok6 := "\x05\x00\x00\x04" + strings.Repeat("x", 18)
	reply := func(code byte) string { return "\x05" + string(rune(code)) + "\x00\x01\x00\x00\x00\x00\x00\x00" }
	wrong := "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n" // the cloud's answer, so that it ends there
	for name, tc := range map[string]struct {
		login bool
		steps steps
		kind  failure.Kind
		says  string
	}{
		"granted":          {false, steps{free, {request, ok + wrong}}, failure.HTTP404, ""},
		"granted, IPv6":    {false, steps{free, {request, ok6 + wrong}}, failure.HTTP404, ""},
		"granted, a name":  {false, steps{free, {request, "\x05\x00\x00\x03\x03abc\x00\x50" + wrong}}, failure.HTTP404, ""},
		"granted, login":   {true, steps{ask, {user, "\x01\x00"}, {request, ok + wrong}}, failure.HTTP404, ""},
		"login not wanted": {true, steps{{login, "\x05\x00"}, {request, ok + wrong}}, failure.HTTP404, ""},
		"login required":   {false, steps{{hello, "\x05\xff"}}, failure.ProxyAuthRequired, ""},
		"login by others":  {true, steps{{login, "\x05\xff"}}, failure.ProxyAuthUnsupported, ""},
		"login wrong":      {true, steps{ask, {user, "\x01\x01"}}, failure.ProxyAuthRejected, ""},
		"login, hangs up":  {true, steps{ask, {user, ""}}, failure.ProxyAuthRejected, ""},
		"not offered":      {false, steps{{hello, "\x05\x02"}}, failure.ProxyProtocol, ""},
		"general":          {false, steps{free, {request, reply(1)}}, failure.ProxyCloudUnknown, "general"},
		"rules":            {false, steps{free, {request, reply(2)}}, failure.ProxyRefused, "rules"},
		"network":          {false, steps{free, {request, reply(3)}}, failure.ProxyCloudUnknown, "network"},
		"host":             {false, steps{free, {request, reply(4)}}, failure.ProxyCloudUnknown, "host"},
		"refused":          {false, steps{free, {request, reply(5)}}, failure.ProxyCloudUnknown, "refused"},
		"TTL":              {false, steps{free, {request, reply(6)}}, failure.ProxyCloudUnknown, "no answer"},
		"command":          {false, steps{free, {request, reply(7)}}, failure.ProxyProtocol, "CONNECT"},
		"address type":     {false, steps{free, {request, reply(8)}}, failure.ProxyProtocol, "names"},
		"unassigned":       {false, steps{free, {request, reply(9)}}, failure.ProxyProtocol, ""},
		"private":          {false, steps{free, {request, "\x05\x90\x00\x01"}}, failure.ProxyCloudUnknown, "144"},
		"odd address":      {false, steps{free, {request, "\x05\x00\x00\x09"}}, failure.ProxyProtocol, ""},
		"HTTP":             {false, steps{{hello, "HTTP/1.1 400 No\r\n\r\n"}}, failure.ProxyProtocol, "write http://"},
		"SOCKS4":           {false, steps{{hello, "\x00\x5b"}}, failure.ProxyProtocol, ""},
		"hangs up":         {false, steps{{hello, ""}}, failure.ProxyNoAnswer, ""},
		"hangs up later":   {false, steps{free, {request, "\x05\x00"}}, failure.ProxyNoAnswer, ""},
		"silent":           {false, steps{free, {request + 1, ""}}, failure.ProxyNoAnswer, ""},
	} {
		t.Run(name, func(t *testing.T) {
			user := ""
			if tc.login {
				user = "dev:" + secret + "@"
			}
			o := Options{Timeouts: brief(tc.kind)}
			d := proxied(t, "socks5://"+user+raw(t, script(tc.steps...)), o)
			stage := failure.StageProxy
			if tc.kind == failure.HTTP404 {
				stage = failure.StageUpgrade
			}
			says(t, fails(t, d, at("ws", "cloud.test"), tc.kind, stage), tc.says)
		})
	}
}

func TestSOCKSRequest(t *testing.T) {
	for host, want := range map[string]string{
		"cloud.test":  "\x05\x01\x00\x03\x0acloud.test\x01\xbb",
		"10.0.0.1":    "\x05\x01\x00\x01\x0a\x00\x00\x01\x01\xbb",
		"2001:db8::1": "\x05\x01\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x01\xbb",
	} {
		if got, f := socksRequest(host, 443); f != nil || !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s: %q, %v", host, got, f)
		}
	}
	long := at("ws", strings.Repeat("a", 256))
	fails(t, proxied(t, "socks5://"+raw(t, script(step{3, "\x05\x00"}, step{1, ""})), Options{}), long,
		failure.Settings, failure.StageConfig)
}
