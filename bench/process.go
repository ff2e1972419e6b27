package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program under test.
type process struct {
	pid  int
	stop func()
}

// start starts a program whose output goes to a file. It has to be called on a thread that stays.
func start(log, program string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the bench be killed
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{pid: cmd.Process.Pid, stop: func() {
		_ = cmd.Process.Kill() // whether or not it has ended
		_ = cmd.Wait()         // it was killed
	}}, nil
}

// usage is what a process has used so far.
type usage struct {
	cpu     time.Duration
	written int64 // bytes to disk; -1 if that is not known
}

func (p *process) usage() (u usage, err error) {
	if u.cpu, err = cpuTime(p.pid); err != nil {
		return u, err
	}
	u.written = -1
	if n, err := procField(p.pid, "io", "write_bytes:"); err == nil {
		u.written = n
	}
	return u, nil
}

// cpuTime is what /proc/PID/stat has as utime and stime, to the nanosecond: the kernel's clock of that process
// (clock_getcpuclockid(3)).
func cpuTime(pid int) (time.Duration, error) {
	const scheduled = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// resident is the process's resident memory in bytes.
func (p *process) resident() (int64, error) {
	n, err := procField(p.pid, "status", "VmRSS:")
	return n << 10, err
}

var errNoField = errors.New("no such field")

func procField(pid int, file, name string) (int64, error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s in %s: %w", name, path, errNoField)
}
