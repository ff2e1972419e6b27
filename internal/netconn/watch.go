package netconn

import "time"

// The watch ends a connection whose peer takes nothing for Options.Stall. It runs on a timer that is armed only while
// the peer has something to take.
//
// Neither a write deadline nor TCP_USER_TIMEOUT would do. The kernel accepts nothing for long from a slow peer, until a
// good part of its own buffer is free. And its timeout hits peers that do read, if their window opens by less than the
// kernel has ready to send. What counts here is that the peer acknowledges bytes.

// watchLocked begins to watch. It comes before something is sent.
func (c *Conn) watchLocked() {
	if c.watching {
		return
	}
	c.watching = true
	c.wg.Add(1)
	c.taken, c.takenAt = c.sent.Load(), time.Now()
	if c.timer == nil {
		c.timer = time.AfterFunc(c.opts.Stall/4, c.check)
	} else {
		c.timer.Reset(c.opts.Stall / 4)
	}
}

// check is called by the timer.
func (c *Conn) check() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		c.watchedLocked()
		return
	}
	sent := c.sent.Load()
	taken := sent - int64(unacknowledged(c.raw))
	switch {
	case taken == sent && !c.draining:
		c.watchedLocked() // until something is sent again
		return
	case taken > c.taken:
		c.taken, c.takenAt = taken, time.Now()
	case time.Since(c.takenAt) >= c.opts.Stall:
		c.failLocked(ErrSlow)
		c.watchedLocked()
		return
	}
	c.timer.Reset(c.opts.Stall / 4)
}

// unwatchLocked stops the timer, for good: c.err is set. If check is about to run it sees that.
func (c *Conn) unwatchLocked() {
	if c.timer != nil && c.timer.Stop() {
		c.watchedLocked()
	}
}

func (c *Conn) watchedLocked() {
	c.watching = false
	c.wg.Done()
}
