package transport

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bridged/internal/failure"
)

// run starts a program that listens on an address, and ends it with the test.
func run(t *testing.T, addr, name string, args ...string) {
	t.Helper()
	bin, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: scripts/setup installs it", err)
	}
	var out bytes.Buffer
	cmd := exec.Command(bin, args...) //nolint:noctx // ended below, with a signal
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		wg.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, out.String())
		}
	})
	deadline := time.Now().Add(patience)
	for {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = c.Close() // only to see that it listens
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", name, out.String())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v", name, err)
		}
	}
}

// freeAddress is one where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l := listen(t)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func tinyproxy(t *testing.T, lines ...string) (addr string) {
	t.Helper()
	addr = freeAddress(t)
	conf := filepath.Join(t.TempDir(), "tinyproxy.conf")
	text := fmt.Sprintf("Listen 127.0.0.1\nPort %s\nTimeout 30\nMaxClients 20\n", portOf(t, addr))
	text += strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, addr, "tinyproxy", "-d", "-c", conf)
	return addr
}

func TestTinyproxy(t *testing.T) {
	ca := newAuthority(t, "plant")
	u := serve(t, echo("mqtt"), ca.conf(nil))
	o := Options{TLS: TLS{CAFile: ca.file}}
	target := Target{URL: u}

	open := tinyproxy(t)
	connects(t, proxied(t, "http://"+open, o), target)
	connects(t, proxied(t, "http://"+open, o), Target{URL: serve(t, echo("mqtt"), nil)})
	gone := at("ws", freeAddress(t))
	says(t, fails(t, proxied(t, "http://"+open, o), gone, failure.ProxyCloudUnknown, failure.StageProxy), "HTTP 500")
	unknown := at("ws", "no-such-name.invalid")
	fails(t, proxied(t, "http://"+open, o), unknown, failure.ProxyCloudUnknown, failure.StageProxy)
	short := Options{Timeouts: brief(failure.ProxyNoAnswer)} // it waits for the end of a line
	fails(t, proxied(t, "socks5://"+open, short), target, failure.ProxyNoAnswer, failure.StageProxy)

	login := tinyproxy(t, "BasicAuth dev "+secret)
	connects(t, proxied(t, "http://dev:"+secret+"@"+login, o), target)
	fails(t, proxied(t, "http://"+login, o), target, failure.ProxyAuthRequired, failure.StageProxy)
	fails(t, proxied(t, "http://dev:x@"+login, o), target, failure.ProxyAuthRejected, failure.StageProxy)

	ports := tinyproxy(t, "ConnectPort 443")
	fails(t, proxied(t, "http://"+ports, o), target, failure.ProxyRefused, failure.StageProxy)
	hosts := tinyproxy(t, "Allow 127.0.0.2")
	fails(t, proxied(t, "http://"+hosts, o), target, failure.ProxyRefused, failure.StageProxy)
}

func TestMicrosocks(t *testing.T) {
	ca := newAuthority(t, "plant")
	u := serve(t, echo("mqtt"), ca.conf(nil))
	o := Options{TLS: TLS{CAFile: ca.file}}
	target := Target{URL: u}
	named := at("ws", "localhost:"+serve(t, echo("mqtt"), nil).Port()) // it resolves the name

	open := freeAddress(t)
	run(t, open, "microsocks", "-i", "127.0.0.1", "-p", portOf(t, open))
	connects(t, proxied(t, "socks5://"+open, o), target)
	connects(t, proxied(t, "socks5h://"+open, o), named)
	says(t, fails(t, proxied(t, "socks5://"+open, o), at("ws", freeAddress(t)), failure.ProxyCloudUnknown,
		failure.StageProxy), "refused")
	unknown := at("ws", "no-such-name.invalid")
	fails(t, proxied(t, "socks5://"+open, o), unknown, failure.ProxyCloudUnknown, failure.StageProxy)
	fails(t, proxied(t, "http://"+open, o), target, failure.ProxyNoAnswer, failure.StageProxy)

	login := freeAddress(t)
	run(t, login, "microsocks", "-i", "127.0.0.1", "-p", portOf(t, login), "-u", "dev", "-P", secret)
	connects(t, proxied(t, "socks5://dev:"+secret+"@"+login, o), named)
	fails(t, proxied(t, "socks5://"+login, o), target, failure.ProxyAuthRequired, failure.StageProxy)
	fails(t, proxied(t, "socks5://dev:x@"+login, o), target, failure.ProxyAuthRejected, failure.StageProxy)
}

// Mosquitto says that it speaks MQTT.
func TestMosquittoSubprotocol(t *testing.T) {
	addr := freeAddress(t)
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	const listeners = "user root\nlistener %s 127.0.0.1\nlistener %s 127.0.0.1\nprotocol websockets\n" +
		"allow_anonymous true\n"
	text := fmt.Sprintf(listeners, portOf(t, freeAddress(t)), portOf(t, addr)) // it wants one that is not for WebSocket
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, addr, "mosquitto", "-c", conf)
	target := at("ws", addr)
	target.Trace = &Trace{}
	_, nc, err := newDialer(t, Options{}).Dial(limited(t), target)
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.Close() // that it was made is all
	nc.Wait()
	if got := target.Trace.Header.Get("Sec-Websocket-Protocol"); got != "mqtt" || len(target.Trace.Notes) > 0 {
		t.Errorf("%q, notes %q", got, target.Trace.Notes)
	}
}
