package netconn

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestDrain(t *testing.T) {
	c, peer := pair(t, Options{Limit: 1 << 20, Stall: time.Minute}, small)
	within(t, "Drain of an idle connection", func() { c.Drain(time.Hour) })

	n := fill(t, c, newStream(), 100_000)
	begin := time.Now()
	within(t, "Drain gives up", func() { c.Drain(50 * time.Millisecond) })
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("Drain waited for %v only", took)
	}
	if c.Pending() == 0 {
		t.Fatal("the kernel took everything: the test says little")
	}

	drained := make(chan struct{})
	go func() {
		defer close(drained)
		c.Drain(time.Hour)
		if n := c.Pending(); n != 0 {
			t.Errorf("%d bytes are pending after Drain", n)
		}
	}()
	stream := newStream()
	expect(t, peer, stream, 1000)
	select {
	case <-drained:
		t.Fatal("Drain returned too early")
	default:
	}
	expect(t, peer, stream, n-1000)
	within(t, "Drain", func() { <-drained })
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := c.Err(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Err: %v", err)
	}
	if n, err := peer.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the peer read %d bytes after the end: %v", n, err)
	}
}

// TestClose closes while much is pending. Everybody who waits comes back.
func TestClose(t *testing.T) {
	c, _ := pair(t, Options{Limit: 1 << 20, Stall: time.Minute}, small)
	c.OnDrain(func() { t.Error("OnDrain was called") })
	fill(t, c, newStream(), 50_000)
	var wg sync.WaitGroup
	wg.Go(func() { c.Drain(time.Hour) })
	wg.Go(func() {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
	})
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	within(t, "Drain and Read return", wg.Wait)
	within(t, "Wait returns", c.Wait)
	if n := c.Pending(); n != 0 {
		t.Errorf("%d bytes are still pending", n)
	}
	if _, err := c.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if err := c.Err(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Err: %v", err)
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

// TestCloseStorm closes at any moment of writing, draining and waiting.
func TestCloseStorm(t *testing.T) {
	for range 30 {
		c, peer := pair(t, Options{Limit: 1 << 20, Stall: time.Minute}, small)
		c.OnDrain(func() { _, _ = c.Write(make([]byte, 20_000)) })
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for {
					if _, err := c.Write(make([]byte, 3000)); err != nil {
						return
					}
					if c.Pending() > 500_000 {
						c.Drain(time.Millisecond)
					}
				}
			})
		}
		wg.Go(func() { _, _ = io.CopyN(io.Discard, peer, 200_000) })
		wg.Go(func() {
			soon(func() bool { return c.Pending() > 0 || c.Err() != nil })
			_ = c.Close() // a writer may have ended it
			c.Wait()
			if n := c.Pending(); n != 0 {
				t.Errorf("%d bytes are pending after Wait", n)
			}
			_ = peer.Close()
		})
		within(t, "everybody returns", wg.Wait)
	}
}

// TestPeerGone makes sure that a write error ends the connection for good, whether a rest is pending or not.
func TestPeerGone(t *testing.T) {
	tests := map[string]struct{ pending int }{"idle": {0}, "draining": {50_000}}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, peer := pair(t, Options{Limit: 1 << 20, Stall: time.Minute}, small)
			fill(t, c, newStream(), tt.pending)
			if err := peer.SetLinger(0); err != nil { // the end is a reset
				t.Fatal(err)
			}
			if err := peer.Close(); err != nil {
				t.Fatal(err)
			}
			until(t, "Write fails", func() bool {
				_, err := c.Write([]byte{1})
				return err != nil
			})
			if err := c.Err(); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("it ended with %v", err)
			}
			within(t, "Wait returns", c.Wait)
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read: %v, want that the connection is closed", err)
			}
			if n := c.Pending(); n != 0 {
				t.Errorf("%d bytes are still pending", n)
			}
		})
	}
}

func TestNewOnClosed(t *testing.T) {
	_, tcp := pair(t, Options{Limit: 1, Stall: time.Minute}, small)
	if err := tcp.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := New(tcp, Options{Limit: 1, Stall: time.Minute}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("New on a closed connection: %v", err)
	}
}
