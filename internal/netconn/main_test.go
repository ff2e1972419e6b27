package netconn

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	loops = loops[:1] // many tests hold the loop up
	goleak.VerifyTestMain(m)
}

// patience is how long a state may take to come. It only matters when a test fails.
const patience = 20 * time.Second

// buffers of the kernel in bytes, about: it doubles them, and counts its own overhead.
type buffers struct{ send, receive int }

// small buffers are filled soon.
var small = buffers{send: 8 << 10, receive: 8 << 10}

// sockets returns what sets up a socket before it connects. The segments are those of Ethernet: with loopback's own
// of 64 KiB and small buffers, sender and receiver wait for timers all the time.
func sockets(size buffers) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var opt error
		err := c.Control(func(fd uintptr) {
			opt = errors.Join(
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, size.send),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size.receive))
		})
		return errors.Join(err, opt)
	}
}

// pair connects a Conn and a plain TCP connection. Both are closed at the end of the test.
func pair(t *testing.T, opts Options, size buffers) (*Conn, *net.TCPConn) {
	t.Helper()
	ln := listen(t, size)
	d := net.Dialer{Control: sockets(size)}
	peer, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() }) // some tests close it themselves
	tcp, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	return wrap(t, tcp, opts), peer.(*net.TCPConn)
}

func listen(t *testing.T, size buffers) *net.TCPListener {
	t.Helper()
	lc := net.ListenConfig{Control: sockets(size)}
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() }) // a server may have closed it
	return ln.(*net.TCPListener)
}

func wrap(t *testing.T, tcp *net.TCPConn, opts Options) *Conn {
	t.Helper()
	c, err := New(tcp, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close() // again, mostly
		within(t, "Wait returns", func() {
			c.Wait()
		})
	})
	return c
}

// within fails the test if f does not return in time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("not in time: %s", what)
	}
}

// until waits for a state.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// soon waits a little for a state.
func soon(ok func() bool) bool {
	deadline := time.After(100 * time.Millisecond)
	for !ok() {
		select {
		case <-deadline:
			return false
		case <-time.After(time.Millisecond):
		}
	}
	return true
}

// fill writes until n bytes are pending, and returns how much it wrote.
func fill(t *testing.T, c *Conn, stream io.Reader, n int) (written int) {
	t.Helper()
	buf := make([]byte, 1000)
	for c.Pending() < n {
		if _, err := io.ReadFull(stream, buf); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(buf); err != nil {
			t.Fatalf("after %d bytes: %v", written, err)
		}
		written += len(buf)
	}
	return written
}

// newStream is an endless stream of bytes, always the same.
func newStream() io.Reader { return rand.NewChaCha8([32]byte{1}) }

// expect reads n bytes and compares them with the stream.
func expect(t *testing.T, r, stream io.Reader, n int) {
	t.Helper()
	got, want := make([]byte, n), make([]byte, n)
	if c, ok := r.(net.Conn); ok {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("read %d of %d bytes: %v", m, n, err)
	}
	if _, err := io.ReadFull(stream, want); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("what arrived is not what was sent")
	}
}
