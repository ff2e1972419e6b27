package bridge

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

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/cloudsim"
	"bridged/internal/failure"
	"bridged/internal/testdevice"
)

// program runs something that listens on an address, and ends it with the test.
func program(t *testing.T, addr, name string, args ...string) {
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
	var wg sync.WaitGroup
	wg.Go(func() { _ = cmd.Wait() }) // it is killed
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		wg.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, out.String())
		}
	})
	until(t, name+" listens", func() bool {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = c.Close() // only to see that it listens
		}
		return err == nil
	})
}

// freeAddress is one where nobody listens.
func freeAddress(t *testing.T) (addr, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return l.Addr().String(), port
}

func tinyproxy(t *testing.T, lines ...string) (addr string) {
	t.Helper()
	addr, port := freeAddress(t)
	conf := filepath.Join(t.TempDir(), "tinyproxy.conf")
	text := fmt.Sprintf("Listen 127.0.0.1\nPort %s\nTimeout 30\nMaxClients 20\n%s\n", port, strings.Join(lines, "\n"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program(t, addr, "tinyproxy", "-d", "-c", conf)
	return addr
}

func microsocks(t *testing.T, args ...string) (addr string) {
	t.Helper()
	addr, port := freeAddress(t)
	program(t, addr, "microsocks", append([]string{"-i", "127.0.0.1", "-p", port}, args...)...)
	return addr
}

// A cloud is reached by way of a real proxy, or the log says what the proxy has against it.
func TestProxies(t *testing.T) {
	const secret = "hunter2-hunter2"
	open, login := tinyproxy(t), tinyproxy(t, "BasicAuth gw "+secret)
	socks, socksLogin := microsocks(t), microsocks(t, "-u", "gw", "-P", secret)
	gone, _ := freeAddress(t)
	file := filepath.Join(t.TempDir(), "proxy.password")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		proxy string
		kind  failure.Kind // empty: it connects
		says  string
	}{
		"HTTP":                     {"proxy: http://" + open, "", ""},
		"HTTP, password":           {"proxy: http://gw:" + secret + "@" + login, "", ""},
		"HTTP, password in a file": {fmt.Sprintf("proxy: http://gw@%s\n    proxy_password: {file: %s}", login, file), "", ""},
		"HTTP, password missing":   {"proxy: http://" + login, failure.ProxyAuthRequired, "407"},
		"HTTP, wrong password":     {"proxy: http://gw:no@" + login, failure.ProxyAuthRejected, ""},
		"SOCKS5":                   {"proxy: socks5://" + socks, "", ""},
		"SOCKS5, password":         {"proxy: socks5://gw:" + secret + "@" + socksLogin, "", ""},
		"SOCKS5, password missing": {"proxy: socks5://" + socksLogin, failure.ProxyAuthRequired, ""},
		"SOCKS5, wrong password":   {"proxy: socks5://gw:no@" + socksLogin, failure.ProxyAuthRejected, ""},
		"not running":              {"proxy: http://" + gone, failure.ProxyUnreachable, ""},
		"none":                     {"proxy: none", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
			r := run(t, strings.Replace(genericYAML(c, ""), "{provider: generic, url: \""+c.WSURL()+"\"}",
				fmt.Sprintf("\n    provider: generic\n    url: %s\n    %s", c.WSURL(), tc.proxy), 1))
			d := r.connect(dev)
			if tc.kind == "" {
				d.Publish("t", []byte("x"), 1)
				testdevice.Expect[*packets.PubackPacket](d)
				if n := len(c.Received()); n != 1 {
					t.Errorf("the cloud got %d messages", n)
				}
			} else {
				f := r.failure("dev")
				if f.Kind != tc.kind || f.Class() != failure.ClassProxy || !strings.Contains(f.Error(), tc.says) {
					t.Errorf("kind %s, %v; want %s, %q", f.Kind, f, tc.kind, tc.says)
				}
			}
			for _, e := range r.logs.All() {
				if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, secret) {
					t.Errorf("the log holds the password: %s", text)
				}
			}
		})
	}
}

// The environment's proxy is used unless NO_PROXY or the configuration says otherwise.
func TestProxyOfTheEnvironment(t *testing.T) {
	dead, _ := freeAddress(t)
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	_, port, err := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(c.WSURL(), "ws://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	// Loopback by its address or as localhost is never proxied; this name is, and the proxy resolves it.
	yaml := strings.ReplaceAll(genericYAML(c, ""), c.WSURL(), "ws://cloud.invalid:"+port)
	for _, v := range []string{"http_proxy", "https_proxy", "all_proxy", "no_proxy"} {
		t.Setenv(v, "")
		t.Setenv(strings.ToUpper(v), "")
	}
	t.Setenv("HTTP_PROXY", "http://"+dead)
	r := run(t, yaml)
	r.connect(dev)
	if f := r.failure("dev"); f.Kind != failure.ProxyUnreachable {
		t.Errorf("%v", f)
	}
	t.Setenv("NO_PROXY", ".invalid")
	r = run(t, yaml)
	r.connect(dev)
	if f := r.failure("dev"); f.Class() != failure.ClassNetwork || f.Stage != failure.StageDNS {
		t.Errorf("%v", f)
	}
}

// failure waits for a device's failure.
func (r *rig) failure(device string) (f *failure.Failure) {
	r.tb.Helper()
	until(r.tb, "a failure", func() bool { f = r.status(device).Session.Last; return f != nil })
	return f
}
