package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrLocked means that another process uses the state directory.
var ErrLocked = errors.New("another bridged uses the state directory")

// dirLock keeps other processes off the state directory, by a lock that the kernel drops when the process ends.
type dirLock struct{ f *os.File } // nil where none can be made

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
			return nil, fmt.Errorf("state_dir %s: %w (process %s)", dir, ErrLocked, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("state_dir %s: lock: %w", dir, err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintln(f, os.Getpid()) // for the error above; the lock holds without
	}
	return &dirLock{f: f}, nil
}

func (l *dirLock) release() {
	if l.f != nil {
		_ = l.f.Close()
	}
}
