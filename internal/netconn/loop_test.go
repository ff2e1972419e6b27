package netconn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"bridged/internal/pulse"
)

// TestErrors makes sure that errors are like those of package net.
func TestErrors(t *testing.T) {
	c, peer := pair(t, options, small)
	if err := errors.Join(peer.SetLinger(0), peer.Close()); err != nil { // the end is a reset
		t.Fatal(err)
	}
	check := func(op string, want, err error) {
		t.Helper()
		var oe *net.OpError
		if !errors.Is(err, want) || !errors.As(err, &oe) || oe.Op != op || oe.Addr != c.RemoteAddr() {
			t.Errorf("%s: %v, want %v in a net.OpError", op, err, want)
		}
	}
	within(t, "Read returns", func() {
		_, err := c.Read(make([]byte, 1))
		check("read", syscall.ECONNRESET, err)
	})
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("Read into nothing: %d, %v", n, err)
	}
	_, err := c.Write([]byte{1})
	check("write", syscall.EPIPE, err)
	_, err = c.Read(make([]byte, 1))
	check("read", net.ErrClosed, err)
	check("close", net.ErrClosed, c.Close())
	check("set", net.ErrClosed, c.SetDeadline(time.Now()))
}

// TestHangUp has a peer that sends something and is gone at once.
func TestHangUp(t *testing.T) {
	for _, n := range []int{0, 1, 999, 1000, 1001, 5000} {
		for range 20 {
			c, peer := pair(t, options, buffers{send: 64 << 10, receive: 64 << 10})
			send(t, peer, newStream(), n)
			if err := peer.Close(); err != nil {
				t.Fatal(err)
			}
			var r io.Reader = c
			if n%2 == 0 {
				s := newSink(t, c)
				c.Attend(s)
				r = s
			}
			expect(t, r, newStream(), n)
			within(t, "the end", func() {
				if n, err := r.Read(make([]byte, 1000)); n != 0 || !errors.Is(err, io.EOF) {
					t.Errorf("Read: %d bytes, %v, want the end", n, err)
				}
			})
		}
	}
}

// hold has the loop wait until the returned function is called.
func hold(t *testing.T) (release func()) {
	t.Helper()
	c, _ := pair(t, options, small)
	held, end := make(chan struct{}), make(chan struct{})
	var first, last sync.Once
	c.Attend(handler(func() {
		first.Do(func() { close(held) })
		<-end
	}))
	release = func() { last.Do(func() { close(end) }) }
	t.Cleanup(release)
	within(t, "the loop waits", func() { <-held })
	return release
}

// TestHangUpInOneEvent has the loop learn of data and the end at once.
func TestHangUpInOneEvent(t *testing.T) {
	c, peer := pair(t, options, small)
	s := newSink(t, c)
	c.Attend(s)
	within(t, "the first call", func() { <-s.called })
	release := hold(t)
	send(t, peer, newStream(), 10)
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	release()
	if err := s.ended(); !errors.Is(err, io.EOF) {
		t.Errorf("it ended with %v", err)
	}
	expect(t, s, newStream(), 10)
}

// TestWaitForCall makes sure that Wait waits for the handler's last call also before that has begun.
func TestWaitForCall(t *testing.T) {
	c, _ := pair(t, options, small)
	s := newSink(t, c)
	c.Attend(s)
	within(t, "the first call", func() { <-s.called })
	release := hold(t)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan struct{})
	go func() {
		c.Wait()
		close(waited)
	}()
	select {
	case <-waited:
		t.Error("Wait does not wait")
	case <-time.After(10 * time.Millisecond):
	}
	release()
	within(t, "Wait returns", func() { <-waited })
	if err := s.ended(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it ended with %v", err)
	}
}

// TestNewTakesOver makes sure that nothing is left of the original.
func TestNewTakesOver(t *testing.T) {
	_, peer := pair(t, options, small)
	wrap(t, peer, options)
	if err := peer.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close of the original: %v", err)
	}
}

// TestHalfClose goes on in one direction after the other has ended.
func TestHalfClose(t *testing.T) {
	t.Run("the peer's", func(t *testing.T) {
		c, peer := pair(t, options, small)
		s := newSink(t, c)
		c.Attend(s)
		if err := peer.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := s.ended(); !errors.Is(err, io.EOF) {
			t.Errorf("it ended with %v", err)
		}
		n := fill(t, c, newStream(), 100_000)
		expect(t, peer, newStream(), n)
	})
	t.Run("ours", func(t *testing.T) {
		c, peer := pair(t, options, small)
		s := newSink(t, c)
		c.Attend(s)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := peer.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("the peer read %d bytes: %v, want the end", n, err)
		}
		go send(t, peer, newStream(), 100_000)
		expect(t, s, newStream(), 100_000)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("CloseWrite after Close: %v", err)
		}
	})
}

// TestCloseAttended closes while the handler runs, from elsewhere and by itself. It is told.
func TestCloseAttended(t *testing.T) {
	for _, itself := range []bool{false, true} {
		c, _ := pair(t, options, small)
		entered, leave, waited := make(chan struct{}), make(chan struct{}), make(chan struct{})
		calls, closed := 0, 0
		c.Attend(handler(func() {
			calls++
			if calls == 1 {
				close(entered)
				<-leave
				if itself {
					_ = c.Close() // the test looks what comes of it
				}
				return
			}
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, net.ErrClosed) {
				closed++
			}
		}))
		within(t, "the first call", func() { <-entered })
		if !itself {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		go func() {
			c.Wait()
			close(waited)
		}()
		select {
		case <-waited:
			t.Fatal("Wait returned while the handler runs")
		case <-time.After(10 * time.Millisecond):
		}
		close(leave)
		within(t, "Wait returns", func() { <-waited })
		if calls != 2 || closed != 1 {
			t.Errorf("%d calls, %d found it closed; want 2 and 1", calls, closed)
		}
		within(t, "Wait returns again", c.Wait)
	}
}

// TestAttendClosed has the handler called also if it comes late.
func TestAttendClosed(t *testing.T) {
	c, _ := pair(t, options, small)
	until(t, "the loop has begun", alive)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the loop has ended", func() bool { return !alive() })
	s := newSink(t, c)
	c.Attend(s)
	if err := s.ended(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it ended with %v", err)
	}
	within(t, "Wait returns", c.Wait)
}

// connect is pair for many goroutines, each of which has a listener.
func connect(ln *net.TCPListener) (*Conn, *net.TCPConn, error) {
	d := net.Dialer{Control: sockets(small)}
	peer, err := d.DialContext(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	tcp, err := ln.AcceptTCP()
	if err != nil {
		return nil, nil, errors.Join(err, peer.Close())
	}
	c, err := New(tcp, options)
	if err != nil {
		return nil, nil, errors.Join(err, peer.Close())
	}
	return c, peer.(*net.TCPConn), nil
}

// TestReuse opens and closes connections as fast as it can, so that file descriptors and slots are used again at once.
// Nobody sees another one's data or end.
func TestReuse(t *testing.T) {
	var wg sync.WaitGroup
	for worker := range 8 {
		ln := listen(t, small)
		wg.Go(func() {
			for i := range 150 {
				if err := reuse(t, ln, byte(worker), i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	within(t, "all cycles", wg.Wait)
}

func reuse(t *testing.T, ln *net.TCPListener, mark byte, i int) error {
	c, peer, err := connect(ln)
	if err != nil {
		return err
	}
	defer func() {
		_ = c.Close() // again, mostly
		c.Wait()
		_ = peer.Close() // as above
	}()
	own := bytes.Repeat([]byte{mark}, 1+rand.IntN(3000))
	arrived := make(chan error, 1)
	check := func(r io.Reader) error {
		p := make([]byte, len(own))
		if _, err := io.ReadFull(r, p); err != nil {
			return err
		}
		if !bytes.Equal(p, own) {
			return errors.New("something of another connection arrived")
		}
		return nil
	}
	if i%2 == 0 {
		var got []byte
		c.Attend(handler(func() {
			p := make([]byte, 1000)
			for {
				n, err := c.Read(p)
				got = append(got, p[:n]...)
				switch {
				case len(got) >= len(own):
					c.Leave()
					arrived <- check(bytes.NewReader(got))
					return
				case errors.Is(err, ErrWouldBlock):
					return
				case err != nil:
					c.Leave()
					arrived <- err
					return
				}
			}
		}))
	} else {
		go func() { arrived <- check(c) }()
	}
	if _, err := c.Write(own); err != nil {
		return err
	}
	if _, err := peer.Write(own); err != nil {
		return err
	}
	if err := errors.Join(check(peer), <-arrived); err != nil {
		return err
	}
	if i%3 == 0 {
		_, _ = peer.Write(own) // an event that is stale soon
		_ = peer.Close()
	}
	return nil
}

// TestMany has 500 connections with traffic in both directions at once, on one loop and on several.
func TestMany(t *testing.T) {
	was := loops
	defer func() { loops = was }()
	for _, n := range []int{1, 3} {
		loops = makeLoops(n)
		t.Run(fmt.Sprint(n), many)
	}
}

func many(t *testing.T) {
	const many, total = 500, 10_000
	ln := listen(t, small)
	var ends []*Conn
	defer func() {
		for _, c := range ends {
			_ = c.Close() // what matters was tested
			c.Wait()
		}
	}()
	for range many {
		c, peer, err := connect(ln)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, c)
		other, err := New(peer, options)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, other)
	}
	for _, l := range loops {
		if n, share := int(l.conns.Load()), len(ends)/len(loops); n < share || n > share+1 {
			t.Errorf("a loop has %d connections, want %d", n, share)
		}
	}
	var arrived sync.WaitGroup
	for i, c := range ends {
		arrived.Add(1)
		want, left := rand.NewChaCha8([32]byte{1, byte(i ^ 1), byte(i >> 8)}), total
		c.Attend(handler(func() {
			p, q := make([]byte, 2000), make([]byte, 2000)
			for left > 0 {
				n, err := c.Read(p)
				_, _ = want.Read(q[:n]) // it never fails
				if err == nil && bytes.Equal(p[:n], q[:n]) {
					if left -= n; left <= 0 {
						arrived.Done()
					}
					continue
				}
				if !errors.Is(err, ErrWouldBlock) {
					t.Errorf("not what was sent, or %v", err)
					left = 0
					arrived.Done()
				}
				return
			}
		}))
	}
	const writers = 4
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			type source struct {
				c      *Conn
				stream io.Reader
				left   int
			}
			var sources []source
			for i := w; i < len(ends); i += writers {
				stream := rand.NewChaCha8([32]byte{1, byte(i), byte(i >> 8)})
				sources = append(sources, source{ends[i], stream, total})
			}
			for len(sources) > 0 {
				i := rand.IntN(len(sources))
				s := &sources[i]
				n := min(s.left, 1+rand.IntN(2000))
				send(t, s.c, s.stream, n)
				if s.left -= n; s.left == 0 {
					sources = append(sources[:i], sources[i+1:]...)
				}
			}
		})
	}
	wg.Wait()
	within(t, "everything arrives", arrived.Wait)
}

func alive() bool { return loops[0].pulse.Stuck(time.Now().Add(time.Hour), time.Minute) }

// TestPulse makes sure that the loop beats while there is a Conn, and that it ends with the last one.
func TestPulse(t *testing.T) {
	for i := range 20 {
		until(t, "the loop has ended", func() bool { return !alive() })
		c, _ := pair(t, options, small)
		until(t, "the loop has begun", alive)
		for begin := time.Now(); i == 0 && time.Since(begin) < 2*pulse.Every; {
			if loops[0].pulse.Stuck(time.Now(), pulse.Every+patience/2) {
				t.Fatal("the loop does not beat")
			}
			soon(func() bool { return false })
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the loop has ended", func() bool { return !alive() })
}
