package crash

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// tracer is an strace that is attached to a process and has its system calls fail, or take long.
type tracer struct {
	tb  testing.TB
	cmd *exec.Cmd
	out string // the file with the calls

	mu   sync.Mutex // protects the following field
	said bytes.Buffer
}

// tamper attaches to a process until restore is called. What is done to which calls is as strace has it after inject=.
func tamper(tb testing.TB, pid int, injections ...string) *tracer {
	tb.Helper()
	t := &tracer{tb: tb, out: filepath.Join(tb.TempDir(), "trace")}
	args := []string{"-f", "-p", fmt.Sprint(pid), "-o", t.out}
	var calls []string
	for _, i := range injections {
		call, _, _ := strings.Cut(i, ":")
		calls = append(calls, call)
		args = append(args, "-e", "inject="+i)
	}
	args = append(args, "-e", "trace="+strings.Join(calls, ","))
	t.cmd = exec.Command("strace", args...)
	t.cmd.Stderr = t
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := t.cmd.Start(); err != nil {
		tb.Skipf("install strace: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = t.cmd.Wait() // by a signal, or with the process
	}()
	tb.Cleanup(func() {
		_ = t.cmd.Process.Kill()
		<-ended
	})
	t.wait("strace is attached", func() bool {
		select {
		case <-ended:
			tb.Skipf("strace may not attach to a process, be root: %s", t.text())
		default:
		}
		return strings.Contains(t.text(), "attached")
	})
	return t
}

func (t *tracer) wait(what string, cond func() bool) {
	t.tb.Helper()
	until(t.tb, what, cond, t.text)
}

// restore lets go of the process.
func (t *tracer) restore() {
	t.tb.Helper()
	if err := t.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.tb.Fatal(err)
	}
	t.wait("strace has let go", func() bool { return strings.Contains(t.text(), "detached") })
}

// tampered is how many calls were.
func (t *tracer) tampered() int {
	t.tb.Helper()
	trace, err := os.ReadFile(t.out)
	if err != nil {
		t.tb.Fatal(err)
	}
	return strings.Count(string(trace), "(INJECTED)") + strings.Count(string(trace), "(DELAYED)")
}

// Write takes what strace says.
func (t *tracer) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.said.Write(b)
}

func (t *tracer) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.said.String()
}
