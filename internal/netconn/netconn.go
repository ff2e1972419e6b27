// Package netconn wraps TCP connections so that writing to them never blocks.
//
// Messages for one side of the bridge are written by goroutines that serve the other side. A Conn keeps a peer that
// does not read from holding them up: Write hands the kernel what it takes and keeps the rest, which a goroutine that
// lives only as long as there is a rest writes out. How much may be kept is bounded: senders look at Pending before
// they go on, and a peer that lets even the bound run over, or takes nothing for too long, loses the connection.
package netconn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrSlow means that the peer did not read what was sent to it.
var ErrSlow = errors.New("the peer does not read what is sent to it")

// Options of a Conn. All fields are needed.
type Options struct {
	// Limit is how many bytes may wait for the peer. A Write beyond it ends the connection with ErrSlow.
	Limit int
	// Stall is how long the peer may take nothing at all, though there is something to take, before the connection is
	// ended with ErrSlow; a quarter more at most. That is how a peer that vanished is noticed, too.
	Stall time.Duration
}

// Conn is a TCP connection whose Write does not block. Read is that of the connection it wraps.
//
// All methods are safe for concurrent use.
type Conn struct {
	net.Conn
	tcp     *net.TCPConn // the same
	opts    Options
	raw     syscall.RawConn
	attempt func(fd uintptr) bool // writes c.p to the socket, once
	sent    atomic.Int64          // bytes that the kernel took
	in      incoming              // belongs to the reader

	mu       sync.Mutex // protects the following fields; held over system calls that do not block, only
	p        []byte     // argument of attempt
	n        int        // its results
	errno    error
	waiting  []byte // what the drainer has yet to fetch
	spare    []byte // a buffer for waiting, to use again
	writing  int    // bytes that the drainer has fetched and not written
	draining bool
	err      error // why writing ended
	onDrain  func()
	drained  sync.Cond
	wg       sync.WaitGroup // the drainer and the watch

	watching bool // the timer is armed, or check is running
	timer    *time.Timer
	taken    int64     // bytes that the peer had taken
	takenAt  time.Time // at this time, when it last took some
}

// New wraps a TCP connection and turns on TCP keepalive, so that a peer that vanished is noticed on an idle connection.
func New(c *net.TCPConn, opts Options) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("socket of %s: %w", c.RemoteAddr(), err)
	}
	if err := c.SetKeepAliveConfig(keepalive); err != nil {
		return nil, fmt.Errorf("keepalive of %s: %w", c.RemoteAddr(), err)
	}
	conn := &Conn{Conn: c, tcp: c, opts: opts, raw: raw}
	conn.drained.L = &conn.mu
	conn.in.attempt = conn.read
	conn.attempt = func(fd uintptr) bool {
		conn.n, conn.errno = conn.write(fd, conn.p)
		return true
	}
	return conn, nil
}

// ReadInto is a Read into a buffer that is asked for only when there is something to read: give takes it back if there
// is not, or if reading ends with an error. One goroutine may read at a time.
func (c *Conn) ReadInto(take func() []byte, give func([]byte)) (p []byte, n int, err error) {
	c.in.take, c.in.give = take, give
	err = c.raw.Read(c.in.attempt)
	if err == nil {
		err = c.in.err
	}
	p, c.in.p = c.in.p, nil
	if err != nil {
		if p != nil {
			give(p)
		}
		return nil, 0, err
	}
	return p, c.in.n, nil
}

// incoming is what ReadInto works with.
type incoming struct {
	attempt func(fd uintptr) bool
	take    func() []byte
	give    func([]byte)
	p       []byte
	n       int
	err     error
}

// read is one system call. It returns false if there is nothing to read.
func (c *Conn) read(fd uintptr) bool {
	in := &c.in
	in.p = in.take()
	var err error
	for {
		if in.n, err = syscall.Read(int(fd), in.p); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	switch {
	case errors.Is(err, syscall.EAGAIN):
		in.give(in.p)
		in.p = nil
		return false
	case err != nil:
		in.n, in.err = 0, &net.OpError{Op: "read", Net: "tcp", Addr: c.RemoteAddr(), Err: err}
	case in.n == 0:
		in.err = io.EOF
	default:
		in.err = nil
	}
	return true
}

// OnDrain sets a function that is called, on a goroutine of its own, each time when nothing is pending any more after
// something was. A call may begin before an earlier one has returned.
func (c *Conn) OnDrain(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onDrain = f
}

// Write sends p or keeps a copy of it to be sent. It returns an error if the connection cannot be written to any more.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if len(p) > 0 {
		c.watchLocked()
	}
	rest := p
	if !c.draining {
		var err error
		if rest, err = c.tryLocked(p); err != nil {
			c.failLocked(err)
			return 0, c.err
		}
	}
	if len(rest) == 0 {
		return len(p), nil
	}
	if c.writing+len(c.waiting)+len(rest) > c.opts.Limit {
		c.failLocked(ErrSlow)
		return 0, c.err
	}
	c.waiting = append(c.waiting, rest...)
	if !c.draining {
		c.draining = true
		c.wg.Add(1)
		go c.drain()
	}
	return len(p), nil
}

// write is one system call, which takes n bytes of p.
func (c *Conn) write(fd uintptr, p []byte) (n int, errno error) {
	if n, errno = syscall.Write(int(fd), p); errno != nil {
		return 0, errno
	}
	c.sent.Add(int64(n))
	return n, nil
}

// tryLocked gives the kernel what it takes of p without waiting and returns the rest.
func (c *Conn) tryLocked(p []byte) (rest []byte, err error) {
	for len(p) > 0 {
		c.p = p
		err := c.raw.Write(c.attempt)
		c.p = nil
		if err != nil {
			return nil, err
		}
		p = p[c.n:]
		if errors.Is(c.errno, syscall.EAGAIN) {
			return p, nil
		}
		if err := c.writeError(c.errno); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// drain writes what waits until nothing does.
func (c *Conn) drain() {
	defer c.wg.Done()
	c.mu.Lock()
	for len(c.waiting) > 0 && c.err == nil {
		buf := c.waiting
		c.waiting, c.writing = c.spare[:0], len(buf)
		for c.writing > 0 && c.err == nil {
			rest := buf[len(buf)-c.writing:]
			c.mu.Unlock()
			n, err := c.writeSome(rest)
			c.mu.Lock()
			c.writing -= n
			if err != nil {
				c.failLocked(err)
			}
		}
		c.spare, c.writing = buf, 0
	}
	c.draining = false
	c.waiting, c.spare = nil, nil
	c.drained.Broadcast()
	f := c.onDrain
	if c.err != nil {
		f = nil
	}
	c.mu.Unlock()
	if f != nil {
		f()
	}
}

// writeSome waits until the kernel takes some of p.
func (c *Conn) writeSome(p []byte) (n int, err error) {
	var errno error
	err = c.raw.Write(func(fd uintptr) bool {
		n, errno = c.write(fd, p)
		return !errors.Is(errno, syscall.EAGAIN)
	})
	if err == nil {
		err = c.writeError(errno)
	}
	return n, err
}

// writeError says what ends the connection.
func (c *Conn) writeError(errno error) error {
	if errno == nil || errors.Is(errno, syscall.EINTR) {
		return nil
	}
	return &net.OpError{Op: "write", Net: "tcp", Addr: c.RemoteAddr(), Err: errno}
}

// failLocked ends the connection; the reader notices by its own error.
func (c *Conn) failLocked(err error) {
	if c.err == nil {
		c.err = err
		c.unwatchLocked()
		_ = c.Conn.Close() // what matters is err
	}
}

// Pending is how many bytes wait for the peer.
func (c *Conn) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writing + len(c.waiting)
}

// Written is how many bytes were handed to Write so far.
func (c *Conn) Written() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent.Load() + int64(c.writing+len(c.waiting))
}

// Taken is how many of them the peer, or a proxy in between, has acknowledged to have.
func (c *Conn) Taken() int64 { return c.sent.Load() - int64(unacknowledged(c.raw)) }

// AwaitHangUp waits until the peer closes the connection, or the connection is lost, and returns true then. It returns
// false as soon as the peer has sent something instead, which is left to be read, and when the read deadline has passed
// or Close was called. Read waits for it to return.
func (c *Conn) AwaitHangUp() (hungUp bool) {
	var b [1]byte
	_ = c.raw.Read(func(fd uintptr) bool { // an error means that it was told to stop
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
			return false
		}
		hungUp = err != nil || n == 0
		return true
	})
	return hungUp
}

// CloseWrite says that nothing more will be written.
func (c *Conn) CloseWrite() error { return c.tcp.CloseWrite() }

// Err is why writing ended, nil while it goes on.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Drain waits until nothing is pending any more, for at most so long.
func (c *Conn) Drain(timeout time.Duration) {
	expired := false
	timer := time.AfterFunc(timeout, func() {
		c.mu.Lock()
		expired = true
		c.mu.Unlock()
		c.drained.Broadcast()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.draining && !expired {
		c.drained.Wait()
	}
}

// SetDeadline sets the read deadline; writing does not block and has none.
func (c *Conn) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }

// SetWriteDeadline does nothing: writing does not block.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// Close ends the connection. What is pending is lost: see Drain.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.err == nil {
		c.err = net.ErrClosed
		c.unwatchLocked()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// Wait returns when no goroutine of the Conn is left. Call it after Close.
func (c *Conn) Wait() { c.wg.Wait() }
