package netconn

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxReads is how many system calls a handler may make at a time. Then others have their turn.
const maxReads = 16

// Handler reads a connection that it attends.
type Handler interface {
	// Readable is called on the loop when there may be something to read, when the read deadline has passed, when the
	// connection was closed, and after Kick. Calls for one Conn never overlap. It must not block, and is to read until
	// Read returns ErrWouldBlock, or to call Kick before it returns.
	Readable()
}

// ErrWouldBlock means that there is nothing to read from an attended connection at the moment. It is a net.Error that
// is temporary and no timeout: crypto/tls can go on reading after it.
var ErrWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read at the moment" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// Attend has h read the connection: it is called when there is something to read, the first time soon, in any case.
// Read does not block any more.
func (c *Conn) Attend(h Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handler = h
	c.kickLocked()
	c.changed.Broadcast()
}

// Leave ends that. The handler is not called any more, but a call that runs may finish. Read blocks again.
func (c *Conn) Leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handler = nil
	c.changed.Broadcast()
}

// Kick has the handler called once more, soon. It may be called with locks held that the handler takes.
func (c *Conn) Kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kickLocked()
}

func (c *Conn) kickLocked() {
	if c.handler != nil && !c.kicked {
		c.kicked = true
		c.loop.post(c)
	}
}

// kick is called by the loop, for kickLocked.
func (c *Conn) kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kicked = false
	c.attendLocked()
}

// attendLocked calls the handler, if there is one.
func (c *Conn) attendLocked() {
	if c.handler != nil {
		c.reads = 0
		c.callLocked(c.handler.Readable)
	}
}

// Read reads what there is. If there is nothing it blocks, until the read deadline at most, or returns ErrWouldBlock if
// the connection is attended.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.err != nil:
			return 0, c.failure("read", net.ErrClosed)
		case c.expired:
			return 0, c.failure("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case c.handler != nil && c.ready && c.reads >= maxReads:
			c.kickLocked()
			return 0, ErrWouldBlock
		case c.ready && !c.peeking:
			c.reads++
			n, err := readSocket(c.fd, p)
			c.receivedLocked(n, len(p), err)
			if !errors.Is(err, unix.EAGAIN) {
				return c.readResult(n, err)
			}
		}
		if c.handler != nil {
			return 0, ErrWouldBlock
		}
		c.changed.Wait()
	}
}

// receivedLocked notes whether there may be more after a system call. If there was less than was asked for there is
// not, see epoll(7): an event follows what comes later. (Urgent data breaks that rule. It delays what comes behind it
// until still more comes, to the harm of nobody but the peer that uses it.)
func (c *Conn) receivedLocked(n, room int, err error) {
	switch {
	case errors.Is(err, unix.EAGAIN):
		c.ready = false
	case err != nil || n == 0:
		c.final = true
	case n < room && !c.final:
		c.ready = false
	}
}

func (c *Conn) readResult(n int, err error) (int, error) {
	switch {
	case err != nil:
		return 0, c.failure("read", os.NewSyscallError("read", err))
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// AwaitHangUp waits until the peer closes the connection, or the connection is lost, and returns true then. It returns
// false as soon as the peer has sent something instead, which is left to be read, and when the read deadline has passed
// or Close was called. Read waits for it to return. It is not for connections that are attended.
func (c *Conn) AwaitHangUp() (hungUp bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.peeking {
		c.changed.Wait()
	}
	c.peeking = true
	defer func() {
		c.peeking = false
		c.changed.Broadcast()
	}()
	var b [1]byte
	for c.err == nil && !c.expired {
		if !c.ready {
			c.changed.Wait()
			continue
		}
		n, _, err := unix.Recvfrom(c.fd, b[:], unix.MSG_PEEK)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			c.ready = false
		default:
			return err != nil || n == 0
		}
	}
	return false
}

// Lost says whether the connection is known to be lost, although something may still be unread: the peer has reset it,
// or does not answer at all. Readable is called when that happens.
func (c *Conn) Lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// SetDeadline sets the read deadline; writing does not block and has none.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline does nothing: writing does not block.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline sets the time after which Read fails. It applies to a Read that blocks already, and has a handler
// called that attends the connection.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.failure("set", net.ErrClosed)
	}
	was := c.expired
	c.deadline, c.expired = never, false
	if !t.IsZero() {
		now := time.Now()
		if left := t.Sub(now); left > 0 {
			c.deadline = now.Sub(start) + min(left, math.MaxInt64/2)
		} else {
			c.expired = true
		}
	}
	if c.expired || was {
		c.kickLocked() // it may have left something unread, for the deadline, or paid no heed to one that passed before
		c.changed.Broadcast()
	}
	c.setAlarmLocked()
	return nil
}

// tick is called by the loop when the alarm is due.
func (c *Conn) tick(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alarm = never
	if now >= c.deadline {
		c.deadline, c.expired = never, true
		c.kickLocked()
		c.changed.Broadcast()
	}
	if now >= c.lookAt {
		c.lookLocked(now)
	}
	c.setAlarmLocked()
}

// setAlarmLocked sees to it that tick is called in time. It may be called too early as well: a deadline that moves away
// all the time costs nothing.
func (c *Conn) setAlarmLocked() {
	if at := min(c.deadline, c.lookAt); at < c.alarm {
		c.alarm = at
		c.loop.wakeAt(c, at)
	}
}
