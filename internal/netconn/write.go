package netconn

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// OnDrain sets a function that the loop calls each time when nothing is pending any more after something was.
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
	if len(p) == 0 {
		return 0, nil
	}
	c.watchLocked()
	rest := p
	if c.waiting == nil {
		rest = p[c.sendLocked(p):]
	}
	if c.err == nil && len(rest) > 0 {
		c.keepLocked(rest)
	}
	if c.err != nil {
		return 0, c.err
	}
	return len(p), nil
}

// sendLocked is one system call. If it takes less than p an event follows when there is room for more, see epoll(7).
func (c *Conn) sendLocked(p []byte) int {
	n, err := writeSocket(c.fd, p)
	if err != nil {
		if !errors.Is(err, unix.EAGAIN) {
			c.endLocked(c.failure("write", os.NewSyscallError("write", err)))
		}
		return 0
	}
	c.sent += int64(n)
	return n
}

// keepLocked keeps a copy of p to be sent later.
func (c *Conn) keepLocked(p []byte) {
	if int(c.pending.Load())+len(p) > c.opts.Limit {
		c.endLocked(ErrSlow)
		return
	}
	if c.begin > len(c.waiting)/2 && len(c.waiting)+len(p) > cap(c.waiting) {
		c.waiting = c.waiting[:copy(c.waiting, c.waiting[c.begin:])]
		c.begin = 0
	}
	c.waiting = append(c.waiting, p...)
	c.pending.Add(int64(len(p)))
}

// flushLocked sends what the kernel takes of what waits, of which there is some.
func (c *Conn) flushLocked() {
	n := c.sendLocked(c.waiting[c.begin:])
	if c.err != nil {
		return
	}
	c.begin += n
	c.pending.Add(-int64(n))
	if c.begin < len(c.waiting) {
		return
	}
	c.waiting, c.begin = nil, 0
	c.changed.Broadcast() // Drain
	if c.onDrain != nil {
		c.callLocked(c.onDrain)
	}
}

// Pending is how many bytes wait for the peer.
func (c *Conn) Pending() int { return int(c.pending.Load()) }

// Written is how many bytes were handed to Write so far.
func (c *Conn) Written() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent + c.pending.Load()
}

// Taken is how many of them the peer, or a proxy in between, has acknowledged to have.
func (c *Conn) Taken() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takenLocked()
}

// takenLocked takes everything for taken when the connection has ended.
func (c *Conn) takenLocked() int64 {
	if c.err != nil {
		return c.sent
	}
	unacknowledged, err := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ)
	if err != nil {
		return c.sent
	}
	return c.sent - int64(unacknowledged)
}

// Drain waits until nothing is pending any more, for at most so long. The loop must not call it.
func (c *Conn) Drain(timeout time.Duration) {
	expired := false
	timer := time.AfterFunc(timeout, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		expired = true
		c.changed.Broadcast()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting != nil && !expired {
		c.changed.Wait()
	}
}
