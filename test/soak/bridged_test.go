package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"bridged/internal/cli"
)

// asBridged is the environment variable that has the test's binary be bridged.
const asBridged = "BRIDGED_SOAK"

// bridgedMain does what main does, and measures itself when it gets SIGUSR1.
func bridgedMain() int {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() {
		for range asked {
			fmt.Fprintln(os.Stderr, measureSelf())
		}
	}()
	return cli.Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.LookupEnv)
}

const measuredMsg = "measured"

// measured is what bridged holds when everything is calm.
type measured struct {
	Msg        string
	Goroutines int
	Heap       int64 // bytes of live objects
	Files      int
	Anonymous  int64 // bytes of its memory that are no file's
}

// measureSelf returns a line of JSON.
func measureSelf() string {
	runtime.GC() // finalizers run
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	line, err := json.Marshal(measured{Msg: measuredMsg, Goroutines: runtime.NumGoroutine(), Heap: int64(m.HeapAlloc)})
	if err != nil {
		return err.Error()
	}
	return string(line)
}

func (m measured) String() string {
	return fmt.Sprintf("%d goroutines, %d files, heap %.1f MiB, memory %.1f MiB",
		m.Goroutines, m.Files, float64(m.Heap)/(1<<20), float64(m.Anonymous)/(1<<20))
}

// process is bridged.
type process struct {
	tb    testing.TB
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended and its log was read

	mu       sync.Mutex // protects the following fields
	rest     []byte     // of the log, after its last whole line
	last     [][]byte   // the newest lines
	errors   []string   // those that complain, the first few
	measured []measured
}

func startProcess(tb testing.TB, conf string) *process {
	tb.Helper()
	program, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	p := &process{tb: tb, cmd: exec.Command(program, "run", "-c", conf), ended: make(chan struct{})}
	p.cmd.Env = append(p.cmd.Environ(), asBridged+"=1", "GORACE=atexit_sleep_ms=50")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the test be killed
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	started := make(chan error)
	go func() {
		defer close(p.ended)
		runtime.LockOSThread() // Pdeathsig is about the thread
		defer runtime.UnlockOSThread()
		err := errors.Join(p.cmd.Start(), w.Close())
		if started <- err; err == nil {
			_, _ = io.Copy(p, r) // until it ends, however that is
			_ = p.cmd.Wait()     // ProcessState has it
		}
		_ = r.Close()
	}()
	if err := <-started; err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
	})
	return p
}

// Write takes what bridged says.
func (p *process) Write(b []byte) (int, error) {
	const keep, complaints = 5000, 20
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, b...)
	for {
		line, rest, whole := bytes.Cut(p.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		p.rest = rest
		var entry struct {
			measured
			Level string
		}
		err := json.Unmarshal(line, &entry)
		switch {
		case err == nil && entry.Msg == measuredMsg:
			p.measured = append(p.measured, entry.measured)
			continue
		case (err != nil || entry.Level == "error") && len(p.errors) < complaints:
			p.errors = append(p.errors, string(line))
		}
		if p.last = append(p.last, bytes.Clone(line)); len(p.last) > keep {
			p.last = p.last[1:]
		}
	}
}

func (p *process) tail() string { return p.about("", 100) }

// about is the newest lines that mention something.
func (p *process) about(what string, most int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var lines [][]byte
	for _, l := range p.last {
		if bytes.Contains(l, []byte(what)) {
			lines = append(lines, l)
		}
	}
	return string(bytes.Join(lines[max(0, len(lines)-most):], []byte("\n")))
}

// measure asks bridged what it holds.
func (p *process) measure() measured {
	p.tb.Helper()
	count := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.measured)
	}
	had := count()
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		p.tb.Fatal(err)
	}
	until(p.tb, "bridged has measured itself", func() bool { return count() > had }, p.tail)
	p.mu.Lock()
	m := p.measured[had]
	p.mu.Unlock()
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	files, err := os.ReadDir(dir + "fd")
	if err != nil {
		p.tb.Fatal(err)
	}
	m.Files = len(files)
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		p.tb.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, err := strconv.ParseInt(strings.Fields(kb)[0], 10, 64)
			if err != nil {
				p.tb.Fatal(err)
			}
			m.Anonymous = n << 10
		}
	}
	return m
}

// stop ends bridged, which has to go well.
func (p *process) stop() {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.tb.Errorf("SIGTERM: %v", err)
	}
	ended := func() bool {
		select {
		case <-p.ended:
			return true
		default:
			return false
		}
	}
	until(p.tb, "bridged has ended", ended, p.tail)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.tb.Errorf("bridged ended with %s:\n%s", p.cmd.ProcessState, p.tail())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.errors {
		p.tb.Errorf("bridged said: %s", line)
	}
}
