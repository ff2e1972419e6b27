package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Socket is the name of the socket in the state directory.
const Socket = "bridged.sock"

// ErrNotRunning means that nobody listens.
var ErrNotRunning = errors.New("no bridged is running")

// maxAddress is how many bytes the path of a socket may have (sun_path, without its last zero).
const maxAddress = 107

// address is a path of the socket that is not too long, until done is called.
func address(dir string) (path string, done func(), err error) {
	path = filepath.Join(dir, Socket)
	if len(path) <= maxAddress {
		return path, func() {}, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), Socket), func() { _ = d.Close() }, nil
}

const mode = 0o600

// Listen makes the socket in a directory, in place of any other.
func Listen(dir string) (net.Listener, error) {
	path, done, err := address(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// The file gets the mode that the socket has when it is bound, so that there is no moment with another one.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), mode) })
		return errors.Join(err, failed)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return l, nil
}

// dial connects to the process that has the directory.
func dial(ctx context.Context, dir string) (net.Conn, error) {
	path, done, err := address(dir)
	if err != nil {
		return nil, notRunning(err)
	}
	defer done()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	return conn, notRunning(err)
}

// notRunning recognises a socket, or a directory, that nobody has.
func notRunning(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	return err
}
