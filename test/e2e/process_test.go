package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program that a test has started. It is ended with the test at the latest.
type process struct {
	tb    testing.TB
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended and all its output was read

	status error // how it ended; set before ended is closed

	mu    sync.Mutex // protects the following fields
	lines []line
	more  chan struct{} // closed with each line
}

// line is a line of a process's output.
type line struct {
	text   string
	stderr bool
}

// command describes a process.
type command struct {
	name  string
	args  []string
	stdin []byte
	env   []string // in addition to the test's
}

// start starts a program. name is found in PATH.
func start(tb testing.TB, c command) *process {
	tb.Helper()
	p := &process{
		tb: tb, name: filepath.Base(c.name), cmd: exec.Command(c.name, c.args...),
		ended: make(chan struct{}), more: make(chan struct{}),
	}
	p.cmd.Stdin = bytes.NewReader(c.stdin)
	p.cmd.Env = append(p.cmd.Environ(), c.env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the test be killed
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { p.read(stdout, false) })
	reading.Go(func() { p.read(stderr, true) })
	go func() {
		defer close(p.ended)
		reading.Wait()
		p.status = p.cmd.Wait()
	}()
	tb.Cleanup(p.cleanup)
	return p
}

func (p *process) read(r io.Reader, stderr bool) {
	br := bufio.NewReader(r)
	for {
		text, err := br.ReadString('\n')
		if text != "" {
			p.mu.Lock()
			p.lines = append(p.lines, line{text: strings.TrimSuffix(text, "\n"), stderr: stderr})
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

func (p *process) cleanup() {
	p.tb.Helper()
	p.kill()
	if p.tb.Failed() {
		p.tb.Logf("output of %s:\n%s", p, middleOut(p.output()))
	}
}

// middleOut leaves out what is in the middle of a long output.
func middleOut(text string) string {
	const most = 30 << 10
	if len(text) <= most {
		return text
	}
	return text[:most/4] + "\n[...]\n" + text[len(text)-3*most/4:]
}

func (p *process) String() string { return fmt.Sprintf("%s[%d]", p.name, p.cmd.Process.Pid) }

// output is everything that it has said so far.
func (p *process) output() string {
	var b strings.Builder
	for _, l := range p.said() {
		b.WriteString(l.text)
		b.WriteByte('\n')
	}
	return b.String()
}

func (p *process) said() []line {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[:len(p.lines):len(p.lines)]
}

// signal sends a signal. The process may have ended.
func (p *process) signal(s syscall.Signal) {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !p.over() {
		p.tb.Errorf("%s: signal %s: %v", p, s, err)
	}
}

func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// kill ends it at once, and waits.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// stop asks it to end, waits, and returns its exit status, -1 if a signal ended it.
func (p *process) stop() int {
	p.tb.Helper()
	p.signal(syscall.SIGTERM)
	return p.wait()
}

// ends waits until it has ended by itself, for so long.
func (p *process) ends(within time.Duration) bool {
	select {
	case <-p.ended:
		return true
	case <-time.After(within):
		return false
	}
}

// wait waits until it has ended by itself and returns its exit status, -1 if a signal ended it.
func (p *process) wait() int {
	p.tb.Helper()
	if !p.ends(2 * patience) {
		p.tb.Errorf("%s does not end", p)
		p.signal(syscall.SIGQUIT) // a Go program shows its goroutines
		if !p.ends(patience) {
			p.kill()
		}
	}
	var exit *exec.ExitError
	switch {
	case errors.As(p.status, &exit):
		return exit.ExitCode()
	case p.status != nil:
		p.tb.Errorf("%s: %v", p, p.status)
	}
	return 0
}

// find waits for the nth line, from 1, for which match holds. ok is false if the process ends before.
func (p *process) find(n int, match func(line string) bool) (found string, ok bool) {
	p.tb.Helper()
	timeout := time.After(patience)
	next := 0
	for {
		p.mu.Lock()
		lines, more, over := p.lines, p.more, p.over()
		p.mu.Unlock()
		for ; next < len(lines); next++ {
			if match(lines[next].text) {
				if n--; n == 0 {
					return lines[next].text, true
				}
			}
		}
		if over {
			return "", false
		}
		select {
		case <-more:
		case <-p.ended:
		case <-timeout:
			p.tb.Fatalf("%s did not say within %s what it should", p, patience)
		}
	}
}

// expect waits for the nth line, from 1, that contains a text.
func (p *process) expect(n int, text string) string {
	p.tb.Helper()
	found, ok := p.find(n, func(l string) bool { return strings.Contains(l, text) })
	if !ok {
		p.tb.Fatalf("%s ended without saying %q", p, text)
	}
	return found
}

// withPrefix returns the lines so far that begin with a prefix, without it.
func (p *process) withPrefix(prefix string) (found []string) {
	for _, l := range p.said() {
		if rest, ok := strings.CutPrefix(l.text, prefix); ok {
			found = append(found, rest)
		}
	}
	return found
}
