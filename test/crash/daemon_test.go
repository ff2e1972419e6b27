package crash

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// site is a place where bridged runs: a configuration, its state directory, and what its processes have logged.
type site struct {
	tb      testing.TB
	conf    string
	program string
	state   string // the state directory
	addr    string // where devices connect

	// fails says that the disk is made to fail, so that bridged may complain of that.
	fails bool

	process *process
	before  *process // the one before it, for its log
}

// settings are what differs between the tests' configurations.
type settings struct {
	cloud   string // its URL
	well    string // the URL of a second cloud, "" for none; each has to say then which one a device has
	state   string // the state directory; "" for a new one
	program string // "" for the one with the race detector
	queue   string // YAML of the section
	more    string // YAML of further sections
	devices []string
	each    func(i int) string // YAML of further keys of a device; may be nil
}

const lanPassword = "s3cr3t"

// newSite writes a configuration with a port and a state directory of its own.
func newSite(tb testing.TB, s settings) *site {
	tb.Helper()
	dir := tb.TempDir()
	st := &site{tb: tb, conf: filepath.Join(dir, "bridged.yaml"), state: s.state, program: s.program, addr: freeAddr(tb)}
	if st.state == "" {
		st.state = filepath.Join(dir, "state")
	}
	if st.program == "" {
		st.program = bridged
	}
	var y strings.Builder
	y.WriteString("admin: {listen: ''}\n")
	fmt.Fprintf(&y, "listen: [{url: 'tcp://%s'}]\nstate_dir: %s\nqueue: %s\n%s\n", st.addr, st.state, s.queue, s.more)
	fmt.Fprintf(&y, "clouds:\n  sim: {provider: generic, url: %q}\n", s.cloud)
	if s.well != "" {
		fmt.Fprintf(&y, "  well: {provider: generic, url: %q}\n", s.well)
	}
	fmt.Fprintf(&y, "defaults: {login: {username: lan, password: %s}}\ndevices:\n", lanPassword)
	for i, name := range s.devices {
		more := ""
		if s.each != nil {
			more = s.each(i)
		}
		fmt.Fprintf(&y, "  - {name: %s%s}\n", name, more)
	}
	if err := os.WriteFile(st.conf, []byte(y.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(st.cleanup)
	return st
}

// names makes names for devices.
func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("dev-%02d", i)
	}
	return all
}

// given are the addresses that freeAddr has returned.
var given sync.Map

// freeAddr returns an address on which nobody listens, with a port that no outgoing connection takes meanwhile, and no
// other test: what is away for a while must not be found elsewhere.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	const low, high = 10000, 32000
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low))
		if _, taken := given.LoadOrStore(addr, true); taken {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err == nil {
			if err := l.Close(); err != nil {
				tb.Fatal(err)
			}
			return addr
		}
	}
	tb.Fatal("no free port")
	return ""
}

// start starts bridged and does not wait until it is ready.
func (s *site) start() {
	s.tb.Helper()
	p, err := startProcess(s.program, s.conf)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.before, s.process = s.process, p
}

// kill kills bridged with SIGKILL, which must still be running.
func (s *site) kill() {
	s.tb.Helper()
	p := s.process
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // if it has ended, its status tells
	<-p.ended
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		s.tb.Errorf("bridged had ended by itself: %s", p.cmd.ProcessState)
	}
	s.checkLog()
}

// stop ends bridged with SIGTERM, which has to go well.
func (s *site) stop() {
	s.tb.Helper()
	p := s.process
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.tb.Errorf("SIGTERM: %v", err)
	}
	s.goodEnd()
}

// goodEnd waits until bridged has ended by itself.
func (s *site) goodEnd() {
	s.tb.Helper()
	p := s.process
	ended := func() bool {
		select {
		case <-p.ended:
			return true
		default:
			return false
		}
	}
	until(s.tb, "bridged has ended", ended, nil)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		s.tb.Errorf("bridged ended with %s", p.cmd.ProcessState)
	}
	s.checkLog()
}

// checkLog looks for what the log of a process that has ended must not have.
func (s *site) checkLog() {
	s.tb.Helper()
	for _, l := range strings.Split(strings.TrimSuffix(s.process.said(), "\n"), "\n") {
		var entry struct{ Level, Msg string }
		err := json.Unmarshal([]byte(l), &entry)
		if s.fails && strings.HasPrefix(entry.Msg, cannotStore) {
			continue
		}
		if err != nil && l != "" || entry.Level == "error" {
			s.tb.Errorf("bridged said: %s", l)
		}
	}
}

func (s *site) cleanup() {
	if s.process == nil {
		return
	}
	_ = s.process.cmd.Process.Kill() // it may have ended
	<-s.process.ended
	if !s.tb.Failed() {
		return
	}
	for _, p := range []*process{s.before, s.process} {
		if p != nil {
			s.tb.Logf("the log of process %d:\n%s", p.cmd.Process.Pid, middleOut(p.said()))
		}
	}
}

// middleOut leaves out what is in the middle of a long text.
func middleOut(text string) string {
	const most = 8 << 10
	if len(text) <= most {
		return text
	}
	return text[:most/4] + "\n[...]\n" + text[len(text)-3*most/4:]
}

// process is a bridged.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended and its log was read

	mu  sync.Mutex // protects the following field
	log bytes.Buffer
}

func startProcess(program, conf string) (*process, error) {
	p := &process{cmd: exec.Command(program, "run", "-c", conf), ended: make(chan struct{})}
	p.cmd.Env = append(p.cmd.Environ(), "GORACE=atexit_sleep_ms=50")     // it would sleep for a second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the test be killed
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	err = p.cmd.Start()
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	go p.read(r)
	return p, nil
}

func (p *process) read(r *os.File) {
	defer close(p.ended)
	_, _ = io.Copy(p, r) // until it ends, however that is
	_ = r.Close()
	_ = p.cmd.Wait() // ProcessState has it
}

// Write takes what the process says.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// ready waits until bridged accepts devices.
func (s *site) ready() {
	s.tb.Helper()
	s.logged("bridged is running")
}

// logged waits until bridged has said something.
func (s *site) logged(text string) {
	s.tb.Helper()
	p := s.process
	until(s.tb, fmt.Sprintf("bridged says %q", text), func() bool { return strings.Contains(p.said(), text) }, p.said)
}
