package doctor

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

// freeAddress is one where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it was only to have the port
	return l.Addr().String()
}

// tinyproxy runs one with these lines in its configuration until the test ends.
func tinyproxy(t *testing.T, lines ...string) (addr string) {
	t.Helper()
	addr = freeAddress(t)
	conf := filepath.Join(t.TempDir(), "tinyproxy.conf")
	_, port, _ := strings.Cut(addr, ":")
	text := fmt.Sprintf("Listen 127.0.0.1\nPort %s\nTimeout 30\nMaxClients 20\n%s\n", port, strings.Join(lines, "\n"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, addr, "tinyproxy", "-d", "-c", conf)
	return addr
}

// serve runs a program that listens at addr until the test ends.
func serve(t *testing.T, addr, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name // where Debian keeps it, which is not in everybody's path
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no %s: make setup installs it", name)
	}
	var out bytes.Buffer
	cmd := exec.Command(path, args...) //nolint:noctx // ended below, with a signal
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
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = c.Close() // only to see that it listens
			return
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%s does not listen: %v", name, err)
		}
	}
}

// mailServer greets whoever connects, as no proxy does.
func mailServer(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 mail.plant ESMTP\r\n"))
			_, _ = c.Read(make([]byte, 4096)) // what is asked for does not matter
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // ends the loop
		wg.Wait()
	})
	return l.Addr().String()
}

// by is the lab's cloud section with a proxy; yaml has "none".
func by(yaml, proxy string) string { return strings.Replace(yaml, "proxy: none", "proxy: "+proxy, 1) }

func TestProxies(t *testing.T) {
	cloud := sim(t, nil)
	yaml := lab("$WSS", trusted, "")
	open := "http://" + tinyproxy(t)
	report := newRig(t, cloud, by(yaml, open)).passes(Options{})
	text := report.text(DNS)
	if report.Proxy != open || report.ProxyVariable != "" || !strings.Contains(text, "from the configuration") {
		t.Errorf("%q, %q, %s", report.Proxy, report.ProxyVariable, text)
	}
	login := tinyproxy(t, "BasicAuth dev "+secret)
	newRig(t, cloud, by(yaml, "http://dev@"+login+", proxy_password: {file: secret}")).passes(Options{})
	newRig(t, cloud, by(yaml, "http://"+login)).fails(short, failure.ProxyAuthRequired, Proxy)
	newRig(t, cloud, by(yaml, "http://dev@"+login+", proxy_password: wrong")).
		fails(short, failure.ProxyAuthRejected, Proxy)
	ports := tinyproxy(t, "ConnectPort 443")
	newRig(t, cloud, by(yaml, "http://"+ports)).fails(short, failure.ProxyRefused, Proxy)
	gone := by(lab("ws://"+freeAddress(t), "", ""), open)
	newRig(t, cloud, gone).fails(short, failure.ProxyCloudUnknown, Proxy)

	newRig(t, cloud, by(yaml, "http://"+freeAddress(t))).fails(short, failure.ProxyUnreachable, TCP)
	newRig(t, cloud, by(yaml, strings.Replace(open, "http:", "socks5:", 1))).fails(short, failure.ProxyNoAnswer, Proxy)
	newRig(t, cloud, by(yaml, strings.Replace(open, "http:", "https:", 1))).examineProxyTLS()
	newRig(t, cloud, by(yaml, "http://"+mailServer(t))).fails(short, failure.ProxyProtocol, Proxy)
}

// examineProxyTLS expects that the proxy does not speak TLS. What it does instead is its own choice.
func (r *rig) examineProxyTLS() {
	r.t.Helper()
	report := r.examine(short)
	if f := report.Failure; f == nil || f.Kind != failure.ProxyTLS && f.Kind != failure.ProxyNoAnswer {
		r.t.Errorf("%+v", f)
	}
}

func TestProxyOfTheEnvironment(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"} {
		t.Setenv(name, "")
		t.Setenv(strings.ToLower(name), "")
	}
	cloud := sim(t, nil)
	yaml := by(lab("$WS", "", ""), "env")
	report := newRig(t, cloud, yaml).passes(Options{})
	if text := report.text(DNS); !strings.Contains(text, "no proxy: the environment of this shell names none") {
		t.Error(text)
	}
	// Loopback has none: another name is needed.
	yaml = by(lab("ws://cloud.invalid", "", ""), "env")
	t.Setenv("ALL_PROXY", "http://u:"+secret+"@"+tinyproxy(t))
	report = newRig(t, cloud, yaml).fails(short, failure.ProxyCloudUnknown, Proxy)
	if report.ProxyVariable != "ALL_PROXY" || !strings.Contains(report.text(DNS), "ALL_PROXY in the environment") {
		t.Errorf("%q, %s", report.ProxyVariable, report.text(DNS))
	}
	t.Setenv("ALL_PROXY", "http://u:"+secret+"@proxy:port")
	newRig(t, cloud, yaml).fails(short, failure.ProxyConfig, Proxy)
}
