package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// cloud says what kind of Mosquitto to run. The zero value is one that lets everybody do everything.
type cloud struct {
	// ws is added to the WebSocket listener's section of the configuration, global to the rest.
	ws, global string
	// tls gives the WebSocket listener a certificate of this authority.
	tls *authority
	// passwords are needed on the WebSocket listener if there are any.
	passwords map[string]string
	// acl are the rules of an ACL file for all listeners, if there are any.
	acl string
}

// mosquitto is a running Mosquitto. It has a WebSocket listener, for bridged, and a plain one, for whoever looks on. It
// keeps everything on disk when it is stopped.
type mosquitto struct {
	*process
	tb      testing.TB
	cloud   cloud
	conf    string
	dir     string
	tcp, ws int // ports
	earlier []*process
}

// startMosquitto starts a cloud.
func startMosquitto(tb testing.TB, c cloud) *mosquitto {
	tb.Helper()
	m := &mosquitto{tb: tb, cloud: c, dir: tb.TempDir()}
	m.conf = filepath.Join(m.dir, "mosquitto.conf")
	for range 10 {
		m.tcp, m.ws = freePort(tb), freePort(tb)
		writeFile(tb, m.conf, m.config())
		if m.run() {
			return m
		}
	}
	tb.Fatalf("mosquitto does not start:\n%s", m.output())
	return nil
}

// config is the configuration file.
func (m *mosquitto) config() string {
	var b strings.Builder
	// Mosquitto gives up root, and could not read a test's files then.
	fmt.Fprintf(&b, "user root\nlog_type all\npersistence true\npersistence_location %s/\nmax_queued_messages 0\n", m.dir)
	fmt.Fprintf(&b, "per_listener_settings true\n%s\n", m.cloud.global)
	acl := ""
	if m.cloud.acl != "" {
		file := filepath.Join(m.dir, "acl")
		writeFile(m.tb, file, m.cloud.acl)
		acl = "acl_file " + file + "\n"
	}
	fmt.Fprintf(&b, "listener %d 127.0.0.1\nallow_anonymous true\n%s", m.tcp, acl)
	fmt.Fprintf(&b, "listener %d 127.0.0.1\nprotocol websockets\n%s%s\n", m.ws, acl, m.cloud.ws)
	if m.cloud.tls != nil {
		cert, key := m.cloud.tls.issue(m.tb, "localhost")
		fmt.Fprintf(&b, "cafile %s\ncertfile %s\nkeyfile %s\n", m.cloud.tls.file, cert, key)
	}
	if m.cloud.passwords != nil {
		fmt.Fprintf(&b, "allow_anonymous false\npassword_file %s\n", m.passwordFile())
	} else {
		b.WriteString("allow_anonymous true\n")
	}
	return b.String()
}

func (m *mosquitto) passwordFile() string {
	file := filepath.Join(m.dir, "passwords")
	writeFile(m.tb, file, "")
	for user, password := range m.cloud.passwords {
		p := start(m.tb, command{name: "mosquitto_passwd", args: []string{"-b", file, user, password}})
		if code := p.wait(); code != 0 {
			m.tb.Fatalf("mosquitto_passwd: status %d", code)
		}
	}
	return file
}

// run starts the program and returns false if it ended again, as it does when a port is taken.
func (m *mosquitto) run() bool {
	m.tb.Helper()
	m.process = start(m.tb, command{name: "mosquitto", args: []string{"-c", m.conf}})
	_, ok := m.find(1, func(l string) bool { return strings.HasSuffix(l, " running") })
	return ok
}

// down ends Mosquitto. It writes down everything first.
func (m *mosquitto) down() {
	m.tb.Helper()
	if code := m.stop(); code != 0 {
		m.tb.Errorf("mosquitto ended with status %d", code)
	}
}

// up starts it again, on the same ports.
func (m *mosquitto) up() {
	m.tb.Helper()
	m.earlier = append(m.earlier, m.process)
	if !m.run() {
		m.tb.Fatal("mosquitto does not start again")
	}
}

// count says how many lines with a text it has logged since it was started first.
func (m *mosquitto) count(text string) (n int) {
	for _, p := range append(m.earlier, m.process) {
		n += strings.Count(p.output(), text)
	}
	return n
}

// addr is where to connect by TCP.
func (m *mosquitto) addr() string { return address(m.tcp) }

// url is where to connect by WebSocket.
func (m *mosquitto) url() string {
	if m.cloud.tls != nil {
		return fmt.Sprintf("wss://localhost:%d/mqtt", m.ws)
	}
	return fmt.Sprintf("ws://127.0.0.1:%d/mqtt", m.ws)
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePort returns a port that nothing listens on. It is none of those that the kernel gives to outgoing connections,
// so it is still free when a server comes back to it.
func freePort(tb testing.TB) int {
	tb.Helper()
	const low, high = 10000, 32000
	for range 100 {
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", address(port))
		if err == nil {
			if err := l.Close(); err != nil {
				tb.Fatal(err)
			}
			return port
		}
	}
	tb.Fatal("no free port")
	return 0
}

func writeFile(tb testing.TB, name, content string) {
	tb.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// freeze has a process stand still, as a device does that has lost power, and wakes it up when the test ends.
func (p *process) freeze() {
	p.tb.Helper()
	p.signal(syscall.SIGSTOP)
}
