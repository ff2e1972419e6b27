package netconn

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestTimers compares timers with a list.
func TestTimers(t *testing.T) {
	var q timers
	conns := make([]*Conn, 20)
	for i := range conns {
		conns[i] = &Conn{timer: timer{at: never, index: -1}}
	}
	for range 10_000 {
		c := conns[rand.IntN(len(conns))]
		switch rand.IntN(3) {
		case 0, 1:
			q.set(c, time.Duration(rand.IntN(100)))
		case 2:
			q.remove(c)
			c.timer.at = never
		}
		want := never
		for _, c := range conns {
			want = min(want, c.timer.at)
		}
		if q.first() != want {
			t.Fatalf("the first one is at %v, want %v", q.first(), want)
		}
		if want < 20 {
			c := q.pop()
			if c.timer.at != want {
				t.Fatalf("the first one was at %v, want %v", c.timer.at, want)
			}
			c.timer.at = never
		}
	}
}

// TestLooks follows the watch of a peer that takes something all the time, and from some moment on nothing more.
func TestLooks(t *testing.T) {
	for _, stall := range []time.Duration{20 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second, time.Minute} {
		grain := min(250*time.Millisecond, stall/8)
		for range 1000 {
			now := time.Duration(rand.Int64N(int64(time.Hour)))
			last := now + time.Duration(rand.Int64N(int64(3*stall)))
			c := &Conn{opts: Options{Stall: stall}, takenAt: now}
			for now-c.takenAt < stall {
				before := now
				if now = c.nextLook(before); now <= before || now%grain != 0 {
					t.Fatalf("stall %v: after the look at %v one is at %v", stall, before, now)
				}
				if before < last {
					c.takenAt = now
				}
			}
			if took := now - last; took < stall || took > stall+stall/4 {
				t.Fatalf("stall %v: it ended after %v", stall, took)
			}
		}
	}
}
