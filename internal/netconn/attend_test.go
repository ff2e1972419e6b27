package netconn

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// handler is a Handler.
type handler func()

func (f handler) Readable() { f() }

// sink is a Handler that reads to the end and keeps everything.
type sink struct {
	t      *testing.T
	r      io.Reader     // the Conn, or a layer over it
	echo   io.Writer     // gets everything, too, unless it is nil
	called chan struct{} // holds a value if there was a call
	end    chan struct{} // closed when reading has ended

	busy atomic.Bool

	mu    sync.Mutex
	got   bytes.Buffer
	calls int
	err   error
}

func newSink(t *testing.T, r io.Reader) *sink {
	return &sink{t: t, r: r, called: make(chan struct{}, 1), end: make(chan struct{})}
}

func (s *sink) Readable() {
	if s.busy.Swap(true) {
		s.t.Error("two calls overlap")
	}
	defer s.busy.Store(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	buf := make([]byte, 1000)
	for s.err == nil {
		n, err := s.r.Read(buf)
		s.got.Write(buf[:n])
		if s.echo != nil && n > 0 {
			if _, err := s.echo.Write(buf[:n]); err != nil {
				s.t.Error(err)
			}
		}
		if errors.Is(err, ErrWouldBlock) {
			break
		}
		if s.err = err; err != nil {
			close(s.end)
		}
	}
	select {
	case s.called <- struct{}{}:
	default:
	}
}

// Read takes what was kept. It waits for it.
func (s *sink) Read(p []byte) (n int, err error) {
	until(s.t, "something arrives", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n, err = s.got.Read(p); n == 0 {
			err = s.err
		} else {
			err = nil
		}
		return n > 0 || err != nil
	})
	return n, err
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *sink) ended() error {
	s.t.Helper()
	within(s.t, "reading ends", func() { <-s.end })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// send writes n bytes of the stream in pieces.
func send(t *testing.T, w io.Writer, stream io.Reader, n int) {
	for n > 0 {
		p := make([]byte, min(n, 1+rand.IntN(3000)))
		if _, err := io.ReadFull(stream, p); err != nil {
			t.Error(err)
		}
		if _, err := w.Write(p); err != nil {
			t.Error(err)
			return
		}
		n -= len(p)
	}
}

func TestAttend(t *testing.T) {
	c, peer := pair(t, options, small)
	s := newSink(t, c)
	c.Attend(s)
	within(t, "the first call", func() { <-s.called })
	if n := s.count(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	const total = 1 << 20
	go send(t, peer, newStream(), total)
	expect(t, s, newStream(), total)
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.ended(); !errors.Is(err, io.EOF) {
		t.Errorf("it ended with %v", err)
	}
}

func TestWouldBlock(t *testing.T) {
	c, _ := pair(t, options, small)
	s := newSink(t, c)
	c.Attend(s)
	within(t, "the first call", func() { <-s.called })
	buf := make([]byte, 10)
	_, err := c.Read(buf)
	var temporary interface{ Temporary() bool }
	if !errors.Is(err, ErrWouldBlock) || !errors.As(err, &temporary) || !temporary.Temporary() {
		t.Errorf("Read: %v, want something temporary", err)
	}
	var ne net.Error
	if !errors.As(err, &ne) || ne.Timeout() {
		t.Errorf("Read: %v, want a net.Error that is no timeout", err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = c.Read(buf) }); n != 0 {
		t.Errorf("Read allocates %v times", n)
	}
}

// splitter writes single bytes, and waits for each to be seen once step is set.
type splitter struct {
	net.Conn
	step atomic.Pointer[chan struct{}]
}

func (s *splitter) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := s.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
		if step := s.step.Load(); step != nil {
			<-*step
		}
	}
	return len(p), nil
}

// TestAttendTLS has TLS records arrive byte by byte.
func TestAttendTLS(t *testing.T) {
	cert, pool := certificate(t)
	client := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	server := &tls.Config{Certificates: []tls.Certificate{cert}}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, role := range []string{"server", "client"} {
			t.Run(tls.VersionName(version)+" "+role, func(t *testing.T) {
				c, peer := pair(t, options, buffers{})
				split := &splitter{Conn: peer}
				server, client := server.Clone(), client.Clone()
				server.MinVersion, server.MaxVersion = version, version
				ours, theirs := tls.Server(c, server), tls.Client(split, client)
				if role == "client" {
					ours, theirs = tls.Client(c, client), tls.Server(split, server)
				}
				testAttendTLS(t, c, ours, split, theirs)
			})
		}
	}
}

func testAttendTLS(t *testing.T, c *Conn, ours *tls.Conn, split *splitter, theirs *tls.Conn) {
	handshake := make(chan error, 1)
	go func() { handshake <- theirs.Handshake() }()
	within(t, "the handshake", func() {
		if err := errors.Join(ours.Handshake(), <-handshake); err != nil {
			t.Error(err)
		}
	})
	s := newSink(t, ours)
	s.echo = ours
	split.step.Store(&s.called)
	c.Attend(s)
	stream := newStream()
	for range 5 {
		within(t, "writing", func() { send(t, theirs, newStream(), 300) })
		expect(t, s, newStream(), 300)
		expect(t, theirs, newStream(), 300) // the echo
	}
	split.step.Store(nil)
	go send(t, theirs, newStream(), 20_000)
	expect(t, s, stream, 20_000)
	if err := theirs.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := s.ended(); !errors.Is(err, io.EOF) {
		t.Errorf("it ended with %v", err)
	}
}

func TestKick(t *testing.T) {
	c, _ := pair(t, options, small)
	var mu sync.Mutex
	calls := 0
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return calls
	}
	c.Kick() // nobody attends
	c.Attend(handler(func() {
		mu.Lock()
		defer mu.Unlock()
		calls++
	}))
	for range 20 {
		mu.Lock()
		before := calls
		c.Kick() // with a lock held that the handler takes
		c.Kick()
		mu.Unlock()
		until(t, "a call after Kick", func() bool { return count() > before })
	}
	if n := count(); n > 41 {
		t.Errorf("%d calls, more than there were reasons for", n)
	}
}

// TestKickIsFair has a handler that always kicks itself. Others are called nevertheless.
func TestKickIsFair(t *testing.T) {
	busy, _ := pair(t, options, small)
	var end atomic.Bool
	busy.Attend(handler(func() {
		if !end.Load() {
			busy.Kick()
		}
	}))
	defer end.Store(true)
	c, peer := pair(t, options, small)
	s := newSink(t, c)
	s.echo = c
	c.Attend(s)
	stream, sent := newStream(), newStream()
	for range 20 {
		send(t, peer, sent, 100)
		expect(t, peer, stream, 100)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := s.ended(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it ended with %v", err)
	}
}

// TestLeave leaves from within the handler, in the middle of what has arrived.
func TestLeave(t *testing.T) {
	c, peer := pair(t, options, small)
	send(t, peer, newStream(), 1000)
	left := make(chan []byte, 10)
	c.Attend(handler(func() {
		p := make([]byte, 10)
		n, err := c.Read(p)
		if errors.Is(err, ErrWouldBlock) {
			return
		}
		if err != nil {
			t.Error(err)
		}
		c.Kick()
		c.Leave()
		left <- p[:n]
	}))
	stream := newStream()
	within(t, "the call", func() { expect(t, bytes.NewReader(<-left), stream, 10) })
	c.Kick()
	expect(t, c, stream, 990)
	if len(left) > 0 {
		t.Error("it was called after Leave")
	}
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, "Read returns", func() {
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
	})
	within(t, "Wait returns", c.Wait)
	if len(left) > 0 {
		t.Error("it was called after Leave")
	}
}

// TestSwitch goes from one way of reading to the other at random, while data arrive all the time.
func TestSwitch(t *testing.T) {
	const total = 300_000
	c, peer := pair(t, options, small)
	go send(t, peer, newStream(), total)
	var got bytes.Buffer // belongs to whoever reads
	attended := make(chan error)
	attend := func() error {
		reads := rand.IntN(4)
		c.Attend(handler(func() {
			var err error
			for ; reads > 0 && err == nil && got.Len() < total; reads-- {
				p := make([]byte, 1+rand.IntN(2000))
				var n int
				n, err = c.Read(p)
				got.Write(p[:n])
			}
			if errors.Is(err, ErrWouldBlock) && reads > 0 {
				return
			}
			c.Leave()
			if errors.Is(err, ErrWouldBlock) {
				err = nil
			}
			attended <- err
		}))
		return <-attended
	}
	within(t, "everything arrives", func() {
		for got.Len() < total {
			if err := attend(); err != nil {
				t.Error(err)
				return
			}
			for range rand.IntN(4) {
				if got.Len() == total {
					break
				}
				p := make([]byte, 1+rand.IntN(2000))
				n, err := c.Read(p)
				if err != nil {
					t.Error(err)
					return
				}
				got.Write(p[:n])
			}
		}
	})
	expect(t, &got, newStream(), total)
}

// TestAttendEndsBlocking has Read block when the connection begins to be attended.
func TestAttendEndsBlocking(t *testing.T) {
	c, _ := pair(t, options, small)
	read := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	select {
	case err := <-read:
		t.Fatalf("Read does not block: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	c.Attend(handler(func() {}))
	within(t, "Read returns", func() {
		if err := <-read; !errors.Is(err, ErrWouldBlock) {
			t.Errorf("Read: %v", err)
		}
	})
}

// TestBackPressure has a handler that stops reading while much is pending. OnDrain's function has it go on.
func TestBackPressure(t *testing.T) {
	const total, enough = 2 << 20, 50_000
	c, peer := pair(t, options, small)
	var stops atomic.Int64
	var on sync.Mutex // held by whatever runs on the loop
	c.OnDrain(func() {
		if !on.TryLock() {
			t.Error("two calls overlap")
			return
		}
		defer on.Unlock()
		c.Kick()
	})
	c.Attend(handler(func() {
		if !on.TryLock() {
			t.Error("two calls overlap")
			return
		}
		defer on.Unlock()
		p := make([]byte, 4000)
		for c.Pending() < enough {
			n, err := c.Read(p)
			if err != nil {
				return
			}
			if _, err := c.Write(p[:n]); err != nil {
				t.Error(err)
			}
		}
		stops.Add(1)
	}))
	go send(t, peer, newStream(), total)
	until(t, "much is pending", func() bool { return stops.Load() > 0 })
	if n := c.Pending(); n > enough+4000 {
		t.Errorf("%d bytes are pending", n)
	}
	expect(t, peer, newStream(), total)
}

// TestLost tells a connection that was reset from one whose peer has hung up.
func TestLost(t *testing.T) {
	for reset, linger := range map[bool]int{false: -1, true: 0} {
		c, peer := pair(t, options, small)
		called := make(chan struct{}, 100)
		c.Attend(handler(func() { called <- struct{}{} }))
		within(t, "a first call", func() { <-called })
		if err := peer.SetLinger(linger); err != nil {
			t.Fatal(err)
		}
		if err := peer.Close(); err != nil {
			t.Fatal(err)
		}
		within(t, "a call", func() { <-called })
		if c.Lost() != reset {
			t.Errorf("reset %v: lost %v", reset, c.Lost())
		}
		c.Leave()
	}
}
