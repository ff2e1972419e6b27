package netconn

import (
	"errors"
	"io"
	"testing"
	"time"
)

const (
	stall = 400 * time.Millisecond
	// cutWithin allows for the watch's own grain, and for a busy machine.
	cutWithin = stall + stall/4 + 5*time.Second
)

// TestStall ends a connection whose peer takes nothing, far below the limit.
func TestStall(t *testing.T) {
	tests := map[string]func(t *testing.T, c *Conn){
		"much is pending": func(t *testing.T, c *Conn) {
			fill(t, c, newStream(), 200_000)
			if c.Pending() == 0 {
				t.Fatal("the kernel took everything: the test says little")
			}
		},
		"the kernel holds it all": func(t *testing.T, c *Conn) {
			settled := func() bool { return c.Taken() == c.Written() }
			for soon(settled) {
				if _, err := c.Write(make([]byte, 500)); err != nil {
					t.Fatal(err)
				}
			}
			if c.Pending() > 0 {
				t.Fatalf("%d bytes are pending", c.Pending())
			}
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := pair(t, Options{Limit: 1 << 20, Stall: stall}, small)
			c.OnDrain(func() { t.Error("OnDrain was called, but the peer took nothing") })
			begin := time.Now()
			prepare(t, c)
			within(t, "the reader notices", func() {
				if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Error("Read returned something")
				}
			})
			if took := time.Since(begin); took < stall || took > cutWithin {
				t.Errorf("it ended after %v, want %v", took, stall)
			}
			if err := c.Err(); !errors.Is(err, ErrSlow) {
				t.Errorf("it ended with %v, want ErrSlow", err)
			}
			within(t, "Wait returns", c.Wait)
			if n := c.Pending(); n != 0 {
				t.Errorf("%d bytes are still pending", n)
			}
		})
	}
}

// Taken tells what the peer has, Written what it is to get.
func TestWrittenAndTaken(t *testing.T) {
	c, peer := pair(t, Options{Limit: 1 << 20, Stall: time.Minute}, small)
	n := int64(fill(t, c, newStream(), 200_000))
	if c.Written() != n || c.Taken() >= c.Written()-int64(c.Pending()) {
		t.Fatalf("%d written, %d taken, want %d", c.Written(), c.Taken(), n)
	}
	if _, err := io.CopyN(io.Discard, peer, n); err != nil {
		t.Fatal(err)
	}
	within(t, "everything is taken", func() {
		for !soon(func() bool { return c.Taken() == n }) {
		}
	})
}

// TestSlowIsNotStalled has peers that read little at a time, but steadily. Each once met a rule that took them for
// stuck.
func TestSlowIsNotStalled(t *testing.T) {
	tests := map[string]struct {
		buffers
		step int // that the peer reads 20 times a second
	}{
		"a piece takes long":                      {buffers{send: 8 << 10, receive: 2 << 10}, 512},
		"the kernel accepts nothing for long":     {buffers{send: 512 << 10, receive: 16 << 10}, 8 << 10},
		"the window opens rarely, and never much": {buffers{send: 8 << 10, receive: 6 << 10}, 1 << 10},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, peer := pair(t, Options{Limit: 4 << 20, Stall: 2 * stall}, tt.buffers)
			stream, sent := newStream(), newStream()
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			written, read := 0, 0
			for begin := time.Now(); time.Since(begin) < 5*stall; {
				<-tick.C
				if c.Err() == nil {
					written += fill(t, c, sent, 40_000)
				}
				expect(t, peer, stream, tt.step)
				read += tt.step
				if err := c.Err(); err != nil {
					t.Fatalf("after %v and %d bytes: %v", time.Since(begin), read, err)
				}
			}
			expect(t, peer, stream, written-read)
			until(t, "nothing pending", func() bool { return c.Pending() == 0 })
		})
	}
}

// TestWatchRests makes sure that an idle connection is not cut, and is not looked at.
func TestWatchRests(t *testing.T) {
	c, peer := pair(t, Options{Limit: 1 << 20, Stall: 20 * time.Millisecond}, small)
	watching := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.lookAt != never
	}
	if watching() {
		t.Error("the watch runs before anything was sent")
	}
	stream, sent := newStream(), newStream()
	for range 5 {
		n := fill(t, c, sent, 1)
		if !watching() {
			t.Fatal("the watch does not run")
		}
		expect(t, peer, stream, n)
		until(t, "the watch rests", func() bool { return !watching() })
	}
	if err := c.Err(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
