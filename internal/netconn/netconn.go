// Package netconn has TCP connections that one goroutine serves, and that can be written to without blocking.
//
// Messages for one side of the bridge are written by goroutines that serve the other side. A Conn keeps a peer that
// does not read from holding them up: Write hands the kernel what it takes and keeps the rest, which is written as soon
// as the peer makes room. How much may be kept is bounded: senders look at Pending before they go on, and a peer that
// lets even the bound run over, or takes nothing for too long, loses the connection.
//
// A Conn is read in one of two ways. By default Read blocks, which suits handshakes. A Conn that is attended does not
// need a goroutine: its Handler is called when there is something to read, and Read does not block.
//
// All Conns of the process share a few event loops on epoll, at most one for each processor, and each stays with its
// loop. A loop begins with its first Conn and ends with the last one. It writes what waits, calls handlers and the
// functions of OnDrain, and keeps all times. So these must not block: all other Conns of the loop would wait. A Conn's
// own calls from the loop never overlap.
package netconn

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
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

// Conn is a TCP connection whose Write does not block.
//
// All methods are safe for concurrent use.
type Conn struct {
	opts          Options
	local, remote net.Addr
	loop          *eventLoop
	slot          int32 // in its table

	mu      sync.Mutex // protects the following fields; held over system calls that do not block, only
	fd      int        // -1 when the connection has ended
	err     error      // why it has
	changed sync.Cond  // wakes whoever waits for anything
	calling bool       // the loop calls the handler or onDrain

	ready    bool // there may be something to read
	final    bool // no more than that will come: the peer has hung up, or the connection is lost
	lost     bool // the latter
	expired  bool // the read deadline has passed
	peeking  bool // AwaitHangUp waits
	handler  Handler
	kicked   bool // the loop has yet to call it
	reads    int  // system calls since the loop has called it
	deadline time.Duration

	sent    int64  // bytes that the kernel took
	waiting []byte // what it has not taken, from begin on; nil if there is nothing
	begin   int
	pending atomic.Int64 // how much that is; written under mu
	onDrain func()

	lookAt  time.Duration // when the watch looks next, never while it rests
	taken   int64         // bytes that the peer had taken
	takenAt time.Duration // at this time, when it last took some

	alarm time.Duration // when the loop calls tick

	timer timer // belongs to the loop
}

// New takes a TCP connection over: c is closed, also if New fails. It turns on TCP keepalive, so that a peer that
// vanished is noticed on an idle connection.
func New(c *net.TCPConn, opts Options) (*Conn, error) {
	defer c.Close() // the file descriptor's duplicate goes on; Go's own poller is to forget it
	if err := c.SetKeepAliveConfig(keepalive); err != nil {
		return nil, fmt.Errorf("keepalive of %s: %w", c.RemoteAddr(), err)
	}
	fd, err := duplicate(c)
	if err != nil {
		return nil, fmt.Errorf("socket of %s: %w", c.RemoteAddr(), err)
	}
	conn := &Conn{
		opts: opts, local: c.LocalAddr(), remote: c.RemoteAddr(), loop: idlest(), fd: fd,
		ready: true, deadline: never, lookAt: never, alarm: never, timer: timer{index: -1},
	}
	conn.changed.L = &conn.mu
	if err := conn.loop.add(conn); err != nil {
		_ = unix.Close(fd) // it is of no use
		return nil, fmt.Errorf("events of %s: %w", c.RemoteAddr(), err)
	}
	return conn, nil
}

func duplicate(c *net.TCPConn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var failed error
	err = raw.Control(func(original uintptr) { fd, failed = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = os.NewSyscallError("fcntl", failed)
	}
	return fd, err
}

// LocalAddr is the address on this side.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Err is why writing ended, nil while it goes on.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// CloseWrite says that nothing more will be written.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.failure("close", net.ErrClosed)
	}
	if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil {
		return c.failure("close", os.NewSyscallError("shutdown", err))
	}
	return nil
}

// Close ends the connection. What is pending is lost: see Drain.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.failure("close", net.ErrClosed)
	}
	c.endLocked(net.ErrClosed)
	return nil
}

// endLocked closes the connection. Readers find it closed, whatever the reason.
func (c *Conn) endLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.waiting, c.begin = nil, 0
	c.pending.Store(0)
	c.deadline, c.lookAt = never, never
	c.kickLocked()
	c.loop.remove(c)
	_ = unix.Close(c.fd) // what matters is err
	c.fd = -1
	c.changed.Broadcast()
}

// Wait returns when the loop calls neither the handler nor OnDrain's function, and has no reason left to. Call it after
// Close. The loop must not call it.
func (c *Conn) Wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.calling || c.kicked && c.handler != nil {
		c.changed.Wait()
	}
}

// happened is called by the loop with events of the socket.
func (c *Conn) happened(events uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	const final = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	read := events&(unix.EPOLLIN|final) != 0
	if read {
		c.ready = true
		c.final = c.final || events&final != 0
		c.lost = c.lost || events&unix.EPOLLERR != 0
		c.changed.Broadcast()
	}
	if c.waiting != nil && events&^unix.EPOLLIN != 0 {
		c.flushLocked()
	}
	if read {
		c.attendLocked()
	}
}

// callLocked calls f, which may call methods of c.
func (c *Conn) callLocked(f func()) {
	c.calling = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock() // also for the sake of the caller's deferred Unlock, if f panics
		c.calling = false
		c.changed.Broadcast() // Wait
	}()
	f()
}

// failure makes the same error as package net.
func (c *Conn) failure(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}
