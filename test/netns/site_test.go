package netns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const lanUser, lanPassword = "lan", "s3cr3t"

// site is a gateway: bridged in a namespace, and what it logs.
type site struct {
	tb   testing.TB
	addr string // where devices connect
	cmd  *exec.Cmd

	ended chan struct{} // closed when bridged has ended and its log was read

	mu   sync.Mutex // protects the following fields
	rest []byte     // of the log, after its last whole line
	log  []entry
}

// entry is a line of the log.
type entry struct {
	Time                              time.Time
	Level, Msg, Device, State, Reason string
	Class, Err                        string
	text                              string
}

// settings are what differs between gateways.
type settings struct {
	space  *space
	lan    string   // the address where devices connect
	resolv string   // a resolv.conf, "" for the machine's
	clouds []string // YAML: NAME: {...}
	// devices are the names, with the cloud of each.
	devices [][2]string
}

// newSite starts bridged and waits until it accepts devices.
func newSite(tb testing.TB, o settings) *site {
	tb.Helper()
	dir := tb.TempDir()
	s := &site{tb: tb, addr: o.lan + ":1883", ended: make(chan struct{})}
	var y strings.Builder
	y.WriteString("admin: {listen: ''}\n")
	fmt.Fprintf(&y, "listen: [{url: 'tcp://%s'}]\nstate_dir: %s\n", s.addr, filepath.Join(dir, "state"))
	fmt.Fprintf(&y, "log: {level: debug}\nclouds:\n")
	for _, c := range o.clouds {
		fmt.Fprintf(&y, "  %s\n", c)
	}
	fmt.Fprintf(&y, "defaults: {login: {username: %s, password: %s}}\ndevices:\n", lanUser, lanPassword)
	for _, d := range o.devices {
		fmt.Fprintf(&y, "  - {name: %s, cloud: %s}\n", d[0], d[1])
	}
	conf := filepath.Join(dir, "bridged.yaml")
	if err := os.WriteFile(conf, []byte(y.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	s.start(o, conf)
	s.said("that it is running", func(e entry) bool { return e.Msg == "bridged is running" })
	return s
}

// start starts bridged in its namespace, where it has a resolv.conf of its own, too. The process is bridged in the end.
func (s *site) start(o settings, conf string) {
	s.tb.Helper()
	args := []string{"netns", "exec", o.space.name}
	if o.resolv != "" {
		args = append(args, "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, o.resolv)
	}
	s.cmd = exec.Command("ip", append(args, bridged, "run", "-c", conf)...)
	// netdns: a program that was built for the race detector could ask the C library, which ours do not have.
	s.cmd.Env = append(s.cmd.Environ(), "GORACE=atexit_sleep_ms=50", "GODEBUG=netdns=go")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the test be killed
	r, w, err := os.Pipe()
	if err != nil {
		s.tb.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = w, w
	started := make(chan error)
	go func() {
		defer close(s.ended)
		runtime.LockOSThread() // Pdeathsig is about the thread, and threads end here, see space.do
		defer runtime.UnlockOSThread()
		err := errors.Join(s.cmd.Start(), w.Close())
		if started <- err; err == nil {
			_, _ = io.Copy(s, r) // until it ends, however that is
			_ = s.cmd.Wait()     // ProcessState has it
		}
		_ = r.Close()
	}()
	if err := <-started; err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(s.stop)
}

// stop ends bridged, which has to go well.
func (s *site) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // if it has ended, its status tells
	limit := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
	<-s.ended
	limit.Stop()
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		s.tb.Errorf("bridged ended with %s", s.cmd.ProcessState)
	}
	for _, e := range s.entries() {
		if e.Level == "" || e.Level == "error" {
			s.tb.Errorf("bridged said: %s", e.text)
		}
	}
	if s.tb.Failed() {
		s.tb.Logf("bridged's log:\n%s", s.tail(200))
	}
}

// Write takes what bridged says.
func (s *site) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, b...)
	for {
		line, rest, whole := bytes.Cut(s.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		e := entry{text: string(line)}
		_ = json.Unmarshal(line, &e) // if it fails there is no level, and stop complains
		s.log, s.rest = append(s.log, e), rest
	}
}

func (s *site) entries() []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log[:len(s.log):len(s.log)]
}

func (s *site) tail(n int) string {
	var b strings.Builder
	all := s.entries()
	for _, e := range all[max(0, len(all)-n):] {
		fmt.Fprintln(&b, e.text)
	}
	return b.String()
}

// said waits until bridged has logged something, and returns the first such line.
func (s *site) said(what string, match func(entry) bool) entry {
	s.tb.Helper()
	return s.saidSince(time.Time{}, what, match)
}

func (s *site) saidSince(start time.Time, what string, match func(entry) bool) (found entry) {
	s.tb.Helper()
	start = start.Truncate(time.Millisecond) // as the log's times are
	looked := 0
	has := func() bool {
		all := s.entries()
		for ; looked < len(all); looked++ {
			if e := all[looked]; !e.Time.Before(start) && match(e) {
				found = e
				return true
			}
		}
		return false
	}
	until(s.tb, "bridged says "+what, has, func() string { return "\n" + s.tail(40) })
	return found
}

// lost says whether a device's session has ended since then because of the network, and when.
func (s *site) lost(device string, since time.Time) (at time.Time, lost bool) {
	s.tb.Helper()
	for _, e := range s.entries() {
		if e.Device == device && e.Class != "" && !e.Time.Before(since) {
			if e.Class != "network" {
				s.tb.Errorf("the reason is not the network: %s", e.text)
			}
			return e.Time, true
		}
	}
	return time.Time{}, false
}

// online waits until a device's session is online.
func (s *site) online(device string, since time.Time) time.Time {
	s.tb.Helper()
	return s.saidSince(since, device+" is online", func(e entry) bool {
		return e.Device == device && (e.Msg == "state" && e.State == "online" || e.Msg == "back online")
	}).Time
}

// keepalive is what most tests have for their clouds.
const keepalive = 10 * time.Second

// generic is the YAML of a cloud like any MQTT broker.
func generic(name, url string, c *cloud, keepalive time.Duration) string {
	more := ""
	if strings.HasPrefix(url, "wss:") {
		more = fmt.Sprintf(", tls: {ca_file: %q}", c.ca)
	}
	return fmt.Sprintf("%s: {provider: generic, url: %q, keepalive: %s%s}", name, url, keepalive, more)
}
