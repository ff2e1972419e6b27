package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked means that another process uses the state directory.
var ErrLocked = errors.New("another bridged uses the state directory")

// dirLock keeps other processes off the state directory, by a lock that the kernel drops when the process ends. Its
// file names the process that has it, or had it last.
type dirLock struct {
	f      *os.File // nil where none can be made
	run    string   // tells this process from all others that had or will have the lock
	before struct {
		run   string    // of the process that had it last, empty if there was none
		until time.Time // until when it may have run
	}
}

// lockDir takes the state directory, and makes it if it is missing.
func lockDir(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// Devices whose cloud is well need no disk.
		reading, rerr := os.Open(path)
		if errors.Is(rerr, fs.ErrNotExist) {
			return &dirLock{}, nil // the spool locks the directory too
		}
		if rerr == nil {
			f, err = reading, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // only to say who
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			pid, _, _ := strings.Cut(strings.TrimSpace(string(holder)), " ")
			return nil, fmt.Errorf("state_dir %s: %w (process %s)", dir, ErrLocked, pid)
		}
		return nil, fmt.Errorf("state_dir %s: lock: %w", dir, err)
	}
	l := &dirLock{f: f}
	last, err := os.ReadFile(path)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	now, boot := time.Now(), bootID()
	l.run = fmt.Sprintf("%d %s %d", os.Getpid(), boot, now.UnixNano())
	if l.before.run = strings.TrimSpace(string(last)); l.before.run != "" {
		l.before.until = now
		if boot != "" && !strings.Contains(l.before.run, boot) { // the machine was started anew meanwhile
			l.before.until = now.Add(-uptime())
		}
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintln(f, l.run) // for what is said above; the lock holds without
	}
	return l, nil
}

// bootID is another one each time when the machine starts, empty if it is not known.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// uptime is for how long the machine has run, also while it was suspended.
func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func (l *dirLock) release() {
	if l.f != nil {
		_ = l.f.Close()
	}
}
