package pack

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manager is a service manager: it listens where its service tells it how it is.
type manager struct {
	tb      testing.TB
	conn    *net.UnixConn
	service *exec.Cmd
	log     *os.File // the service's end of the pipe is open until it has started
	state   map[string]string
}

// watchdog is how long the service manager waits for a sign of life.
const watchdog = 4 * time.Second

// serve starts bridged with a configuration, as systemd would.
func serve(tb testing.TB, yaml string) *manager {
	tb.Helper()
	dir := tb.TempDir()
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte("state_dir: state\nadmin: {listen: ''}\n"+yaml), 0o600); err != nil {
		tb.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "notify")})
	if err != nil {
		tb.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	m := &manager{tb: tb, conn: conn, log: write, state: make(map[string]string)}
	m.service = exec.Command(bridged, "run", "-c", config)
	m.service.Stderr = write
	m.service.Env = []string{
		"PATH=" + os.Getenv("PATH"), "NOTIFY_SOCKET=" + conn.LocalAddr().String(),
		fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds()),
	}
	if err := m.service.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = m.service.Process.Kill() // if the test has failed before its end
		_ = m.service.Wait()
		_ = errors.Join(conn.Close(), read.Close(), write.Close())
	})
	return m
}

// hear waits for the next notification, and keeps what it says. It returns false if none comes in time.
func (m *manager) hear(within time.Duration) (assignments []string, ok bool) {
	m.tb.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		m.tb.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	n, err := m.conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, false
	}
	if err != nil {
		m.tb.Fatal(err)
	}
	assignments = strings.Split(string(buf[:n]), "\n")
	for _, a := range assignments {
		name, value, found := strings.Cut(a, "=")
		if !found {
			m.tb.Errorf("told %q", a)
		}
		m.state[name] = value
	}
	return assignments, true
}

// until waits until it was told something.
func (m *manager) until(want string) (before []string) {
	m.tb.Helper()
	for end := time.Now().Add(patience); ; {
		assignments, ok := m.hear(time.Until(end))
		if !ok {
			m.tb.Fatalf("not told in time: %s; told: %q", want, before)
		}
		before = append(before, assignments...)
		if slices.Contains(assignments, want) {
			return before
		}
	}
}

// ended waits for the service's end.
func (m *manager) ended() *os.ProcessState {
	m.tb.Helper()
	hangs := time.AfterFunc(patience, func() { _ = m.service.Process.Kill() })
	defer hangs.Stop()
	_ = m.service.Wait() // the state says more
	return m.service.ProcessState
}

func freeAddr(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

const idle = `
clouds: {lab: {provider: generic, url: "ws://127.0.0.1:1"}}
devices: [{name: d, cloud: lab, login: {username: u, password: p}}, {name: e, cloud: lab, login: {username: u}}]
`

func TestNotify(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	m := serve(t, idle+"listen: [{url: 'tcp://"+addr+"'}]\nshutdown_timeout: 200ms\n")
	if before := m.until("READY=1"); !strings.HasPrefix(before[0], "STATUS=opening what is stored in ") {
		t.Errorf("told before %q", before)
	}
	c, err := net.Dial("tcp", addr) // what is ready listens
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	m.until("STATUS=0 of 2 devices online, 0 messages stored")
	m.until("WATCHDOG=1")
	m.until("WATCHDOG=1")

	if err := m.service.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	m.until("RELOADING=1")
	if m.state["MONOTONIC_USEC"] == "" {
		t.Error("not told when the reload began")
	}
	m.until("READY=1")

	if err := m.service.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.until("STOPPING=1")
	if got := m.state["EXTEND_TIMEOUT_USEC"]; got != "65200000" {
		t.Errorf("stops within %s microseconds", got)
	}
	if st := m.ended(); !st.Success() {
		t.Errorf("ended with %s", st)
	}
}

// A goroutine that hangs ends the signs of life. Here it is the one that accepts connections: it wants to say something
// in the log, which nobody reads.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	m := serve(t, idle+"listen: [{url: 'tcp://"+addr+"'}]\nlimits: {max_connections: 1}\nlog: {level: warn}\n")
	m.until("READY=1")
	for range 3 {
		m.until("WATCHDOG=1")
	}
	fill(t, m.log)
	for range 2 { // the second is one too many
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	for end := time.Now().Add(patience); ; {
		told, ok := m.hear(watchdog)
		if !ok {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("signs of life still come: %q", told)
		}
	}
}

// fill fills a pipe, so that the next who writes into it hangs.
func fill(tb testing.TB, pipe *os.File) {
	tb.Helper()
	fd, err := syscall.Open(fmt.Sprintf("/proc/self/fd/%d", pipe.Fd()), syscall.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = syscall.Close(fd) }()
	for size := 4096; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = syscall.Write(fd, make([]byte, size))
		}
		if !errors.Is(err, syscall.EAGAIN) {
			tb.Fatal(err)
		}
	}
}
