package netconn

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

func timedOut(t *testing.T, err error) {
	t.Helper()
	var ne net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("Read: %v, want that its deadline has passed", err)
	}
}

// TestReadDeadline moves the deadline while Read blocks.
func TestReadDeadline(t *testing.T) {
	var last *Conn
	for name, deadlines := range map[string][]time.Duration{
		"soon":                   {30 * time.Millisecond},
		"past":                   {-time.Hour},
		"far, then soon":         {time.Hour, 30 * time.Millisecond},
		"far, then past":         {time.Hour, -1},
		"soon, then a bit later": {30 * time.Millisecond, 60 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := pair(t, options, small)
			last = c
			read := make(chan error, 1)
			go func() {
				_, err := c.Read(make([]byte, 1))
				read <- err
			}()
			begin := time.Now()
			for _, d := range deadlines {
				if err := c.SetReadDeadline(begin.Add(d)); err != nil {
					t.Fatal(err)
				}
			}
			within(t, "Read returns", func() { timedOut(t, <-read) })
			if took := time.Since(begin); took < deadlines[len(deadlines)-1] {
				t.Errorf("Read returned after %v", took)
			}
			send(t, peer, newStream(), 10)
			_, err := c.Read(make([]byte, 1)) // though there is something
			timedOut(t, err)
			expect(t, c, newStream(), 10)
		})
	}
	if err := last.SetReadDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetReadDeadline after Close: %v", err)
	}
}

// TestReadDeadlineWakes makes sure that the loop does not sleep on when a deadline is set.
func TestReadDeadlineWakes(t *testing.T) {
	c, _ := pair(t, options, small)
	for range 20 {
		soon(func() bool { return false }) // it falls asleep
		begin := time.Now()
		if err := c.SetReadDeadline(begin.Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		within(t, "Read returns", func() {
			_, err := c.Read(make([]byte, 1))
			timedOut(t, err)
		})
		if time.Since(begin) < 300*time.Millisecond {
			return
		}
	}
	t.Error("the loop always sleeps on")
}

// TestReadDeadlineMovesAway sets a deadline and takes it back in time.
func TestReadDeadlineMovesAway(t *testing.T) {
	for name, later := range map[string]time.Time{"none": {}, "far": time.Now().Add(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			c, peer := pair(t, options, small)
			soon := time.Now().Add(200 * time.Millisecond)
			if err := errors.Join(c.SetReadDeadline(soon), c.SetReadDeadline(later)); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(time.Until(soon)+50*time.Millisecond, func() { send(t, peer, newStream(), 1) })
			within(t, "Read returns", func() {
				if _, err := c.Read(make([]byte, 1)); err != nil {
					t.Errorf("Read: %v", err)
				}
			})
		})
	}
}

// TestAttendedDeadline has the handler called for the deadline. What it leaves unread for that is not lost.
func TestAttendedDeadline(t *testing.T) {
	c, peer := pair(t, options, small)
	result := make(chan error, 100)
	c.Attend(handler(func() {
		_, err := c.Read(make([]byte, 1))
		result <- err
	}))
	next := func() (err error) {
		within(t, "a call", func() { err = <-result })
		return err
	}
	if err := next(); !errors.Is(err, ErrWouldBlock) {
		t.Errorf("Read: %v", err)
	}
	begin := time.Now()
	if err := c.SetReadDeadline(begin.Add(30 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	timedOut(t, next())
	if took := time.Since(begin); took < 30*time.Millisecond {
		t.Errorf("it was called after %v", took)
	}
	send(t, peer, newStream(), 1)
	timedOut(t, next())
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := next(); err != nil {
		t.Errorf("Read: %v", err)
	}
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	timedOut(t, next())
}
