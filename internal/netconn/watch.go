package netconn

import "time"

// The watch ends a connection whose peer takes nothing for Options.Stall. It looks from time to time, but only while
// the peer has something to take.
//
// Neither a write deadline nor TCP_USER_TIMEOUT would do. The kernel accepts nothing for long from a slow peer, until a
// good part of its own buffer is free. And its timeout hits peers that do read, if their window opens by less than the
// kernel has ready to send. What counts here is that the peer acknowledges bytes.

// watchLocked begins to watch. It comes before something is sent.
func (c *Conn) watchLocked() {
	if c.lookAt != never {
		return
	}
	c.taken, c.takenAt = c.sent, time.Since(start)
	c.lookAt = c.nextLook(c.takenAt)
	c.setAlarmLocked()
}

// lookLocked is a look.
func (c *Conn) lookLocked(now time.Duration) {
	taken := c.takenLocked()
	switch {
	case taken == c.sent && c.waiting == nil:
		c.lookAt = never // until something is sent again
		return
	case taken > c.taken:
		c.taken, c.takenAt = taken, now
	case now-c.takenAt >= c.opts.Stall:
		c.endLocked(ErrSlow)
		return
	}
	c.lookAt = c.nextLook(now)
}

// nextLook rounds the times of looks, so that many connections are looked at in one go. takenAt is late by the time
// between two looks, the end by the grain: a quarter of Stall together.
func (c *Conn) nextLook(now time.Duration) time.Duration {
	grain := min(250*time.Millisecond, c.opts.Stall/8)
	look := (now + c.opts.Stall/4 - grain).Truncate(grain)
	end := (c.takenAt + c.opts.Stall + grain - 1).Truncate(grain)
	return min(look, end)
}
