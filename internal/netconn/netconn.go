// Package netconn wraps TCP connections so that writing to them never blocks.
//
// Messages for one side of the bridge are written by goroutines that serve the other side. A Conn keeps a peer that does
// not read from holding them up: Write hands the kernel what it takes and keeps the rest, which a goroutine that lives
// only as long as there is a rest writes out. How much may be kept is bounded: senders look at Pending before they go on,
// and a peer that lets even the bound run over, or takes nothing for too long, loses the connection.
package netconn

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// ErrSlow means that the peer did not read what was sent to it.
var ErrSlow = errors.New("the peer does not read what is sent to it")

// Options of a Conn. All fields are needed.
type Options struct {
	// Limit is how many bytes may wait for the peer. A Write beyond it ends the connection with ErrSlow.
	Limit int
	// Stall is how long the peer may take nothing at all before the connection is ended.
	Stall time.Duration
}

// Conn is a TCP connection whose Write does not block. Read is that of the connection it wraps.
//
// All methods are safe for concurrent use.
type Conn struct {
	net.Conn
	opts    Options
	raw     syscall.RawConn
	attempt func(fd uintptr) bool // writes c.p to the socket, once

	mu       sync.Mutex // protects the following fields; held over system calls that do not block, only
	p        []byte     // argument of attempt
	n        int        // its results
	errno    error
	waiting  []byte // what the drainer has yet to fetch
	spare    []byte // a buffer for waiting, to use again
	writing  int    // bytes that the drainer is writing
	draining bool
	err      error // why writing ended
	onDrain  func()
	drained  sync.Cond
	wg       sync.WaitGroup // the drainer
}

// New wraps a TCP connection and turns on TCP keepalive, so that a peer that vanished is noticed on an idle connection.
func New(c *net.TCPConn, opts Options) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("socket of %s: %w", c.RemoteAddr(), err)
	}
	if err := tune(c, opts.Stall); err != nil {
		return nil, fmt.Errorf("socket options of %s: %w", c.RemoteAddr(), err)
	}
	conn := &Conn{Conn: c, opts: opts, raw: raw}
	conn.drained.L = &conn.mu
	conn.attempt = func(fd uintptr) bool {
		conn.n, conn.errno = syscall.Write(int(fd), conn.p)
		return true
	}
	return conn, nil
}

// OnDrain sets a function that is called, on a goroutine of its own, each time when the peer has taken everything after
// some of it had to wait.
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

// tryLocked gives the kernel what it takes of p without waiting and returns the rest.
func (c *Conn) tryLocked(p []byte) (rest []byte, err error) {
	for len(p) > 0 {
		c.p = p
		if err := c.raw.Write(c.attempt); err != nil {
			return nil, err
		}
		c.p = nil
		switch {
		case c.errno == nil:
			p = p[c.n:]
		case errors.Is(c.errno, syscall.EAGAIN):
			return p, nil
		case errors.Is(c.errno, syscall.EINTR):
		default:
			return nil, &net.OpError{Op: "write", Net: "tcp", Addr: c.RemoteAddr(), Err: c.errno}
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
		c.mu.Unlock()
		err := c.writeOut(buf)
		c.mu.Lock()
		c.spare, c.writing = buf, 0
		if err != nil {
			c.failLocked(err)
		}
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

// writeOut writes in pieces, so that the deadline is one for progress, not for the whole.
func (c *Conn) writeOut(buf []byte) error {
	const piece = 16 << 10
	for len(buf) > 0 {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.opts.Stall)); err != nil {
			return err
		}
		n, err := c.Conn.Write(buf[:min(len(buf), piece)])
		if err != nil {
			return err
		}
		buf = buf[n:]
	}
	return c.Conn.SetWriteDeadline(time.Time{})
}

// failLocked ends the connection; the reader notices by its own error.
func (c *Conn) failLocked(err error) {
	if c.err == nil {
		c.err = err
		_ = c.Conn.Close() // what matters is err
	}
}

// Pending is how many bytes wait for the peer.
func (c *Conn) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writing + len(c.waiting)
}

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
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// Wait returns when no goroutine of the Conn is left. Call it after Close.
func (c *Conn) Wait() { c.wg.Wait() }
