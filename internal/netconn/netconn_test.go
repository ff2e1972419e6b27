package netconn

import (
	"encoding/binary"
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

// TestStream sends more than fits anywhere to a reader that is slower, by a sender that waits when too much is pending.
func TestStream(t *testing.T) {
	const total, enough = 4 << 20, 64 << 10
	c, peer := pair(t, Options{Limit: enough + 40<<10, Stall: time.Minute}, small)
	drained := make(chan struct{}, 1)
	var drains atomic.Int64
	c.OnDrain(func() {
		drains.Add(1)
		select {
		case drained <- struct{}{}:
		default:
		}
	})
	sent := make(chan error, 1)
	go func() {
		stream, buf := newStream(), make([]byte, 40<<10)
		for left := total; left > 0; {
			for c.Pending() > enough {
				<-drained
			}
			p := buf[:min(left, rand.IntN(len(buf)+1))]
			if _, err := io.ReadFull(stream, p); err != nil {
				sent <- err
				return
			}
			if n, err := c.Write(p); err != nil || n != len(p) {
				sent <- errors.Join(err, io.ErrShortWrite)
				return
			}
			clear(p) // Write must not keep it
			left -= len(p)
		}
		sent <- nil
	}()
	stream := newStream()
	for left := total; left > 0; {
		n := min(left, 1+rand.IntN(20<<10))
		expect(t, peer, stream, n)
		left -= n
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	until(t, "nothing pending", func() bool { return c.Pending() == 0 })
	if drains.Load() == 0 {
		t.Error("nothing ever had to wait: the test says little")
	}
}

// TestSlow has a peer that never reads. Writing goes on without waiting until the limit is reached.
func TestSlow(t *testing.T) {
	const limit = 100_000
	c, peer := pair(t, Options{Limit: limit, Stall: time.Minute}, small)
	c.OnDrain(func() { t.Error("OnDrain was called, but the peer took nothing") })
	reader := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		reader <- err
	}()
	var err error
	written := 0
	within(t, "Write reaches the limit", func() {
		buf := make([]byte, 1000)
		for err == nil {
			if before := c.Pending(); before > limit {
				t.Errorf("%d bytes are pending, over the limit", before)
			}
			if _, err = c.Write(buf); err == nil {
				written += len(buf)
			}
		}
	})
	if !errors.Is(err, ErrSlow) || !errors.Is(c.Err(), ErrSlow) {
		t.Fatalf("Write: %v; Err: %v; want ErrSlow", err, c.Err())
	}
	if written < limit {
		t.Errorf("the connection ended after %d bytes, the limit is %d", written, limit)
	}
	if _, err := c.Write([]byte{1}); !errors.Is(err, ErrSlow) {
		t.Errorf("the next Write: %v", err)
	}
	within(t, "the reader notices", func() {
		if err := <-reader; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
	})
	within(t, "Wait returns", c.Wait)
	if n := c.Pending(); n != 0 {
		t.Errorf("%d bytes are still pending", n)
	}
	if err := peer.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, peer); errors.Is(err, os.ErrDeadlineExceeded) || n > int64(written) {
		t.Errorf("the peer read %d bytes: %v; want the end of the connection", n, err)
	}
}

// TestLimitCountsWhatWaits makes sure that what the peer has taken counts no more, even if it came in one large piece.
func TestLimitCountsWhatWaits(t *testing.T) {
	const limit = 1 << 20
	c, peer := pair(t, Options{Limit: limit, Stall: time.Minute}, small)
	stream, sent := newStream(), newStream()
	first := make([]byte, 900<<10)
	if _, err := io.ReadFull(sent, first); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(first); err != nil {
		t.Fatal(err)
	}
	before := c.Pending()
	if before < 500<<10 {
		t.Fatalf("only %d bytes are pending", before)
	}
	expect(t, peer, stream, 800<<10)
	until(t, "less is pending", func() bool { return c.Pending() < before-700<<10 })
	if n := c.Pending(); n == 0 || n > 100<<10 {
		t.Fatalf("%d bytes are pending, want some of the last 100 KiB", n)
	}
	second := make([]byte, 900<<10)
	if _, err := io.ReadFull(sent, second); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(second); err != nil {
		t.Fatalf("a Write within the limit: %v", err)
	}
	if n := c.Pending(); n <= before-800<<10 || n > limit {
		t.Fatalf("%d bytes are pending", n)
	}
	expect(t, peer, stream, 1000<<10)
	until(t, "nothing pending", func() bool { return c.Pending() == 0 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting != nil {
		t.Errorf("an idle connection keeps a buffer of %d bytes", cap(c.waiting))
	}
}

// TestLimit makes sure that what waits counts, as well as what comes.
func TestLimit(t *testing.T) {
	c, _ := pair(t, Options{Limit: 1 << 20, Stall: time.Minute}, small)
	if _, err := c.Write(make([]byte, 800<<10)); err != nil {
		t.Fatal(err)
	}
	if n := c.Pending(); n < 600<<10 {
		t.Fatalf("only %d bytes are pending", n)
	}
	if _, err := c.Write(make([]byte, 200<<10)); err != nil {
		t.Fatalf("within the limit: %v", err)
	}
	if _, err := c.Write(make([]byte, 300<<10)); !errors.Is(err, ErrSlow) {
		t.Fatalf("beyond the limit: %v", err)
	}
}

// TestOnDrain fills and empties the connection many times: each time there is exactly one call, when nothing is
// pending.
func TestOnDrain(t *testing.T) {
	c, peer := pair(t, Options{Limit: 1 << 20, Stall: time.Minute}, small)
	calls := make(chan int, 100)
	c.OnDrain(func() { calls <- c.Pending() })
	stream, sent := newStream(), newStream()
	for range 20 {
		n := fill(t, c, sent, 20_000)
		select {
		case <-calls:
			t.Fatal("OnDrain was called while much is pending")
		default:
		}
		expect(t, peer, stream, n)
		within(t, "OnDrain is called", func() {
			if n := <-calls; n != 0 {
				t.Errorf("%d bytes are pending in OnDrain", n)
			}
		})
	}
	within(t, "Drain", func() { c.Drain(patience) })
	if len(calls) > 0 {
		t.Error("OnDrain was called twice")
	}
}

// TestOnDrainWrites has the callback fill the connection again, as a sender does that has more to send.
func TestOnDrainWrites(t *testing.T) {
	c, peer := pair(t, Options{Limit: 1 << 20, Stall: time.Minute}, small)
	sent := newStream()
	var written, rounds atomic.Int64
	done := make(chan struct{})
	more := func() {
		buf := make([]byte, 1000)
		for c.Pending() < 20_000 {
			if _, err := io.ReadFull(sent, buf); err != nil {
				t.Error(err)
			}
			if _, err := c.Write(buf); err != nil {
				t.Error(err)
				return
			}
			written.Add(int64(len(buf)))
		}
	}
	// One call may begin before an earlier one has returned: they take turns.
	var mu sync.Mutex
	c.OnDrain(func() {
		mu.Lock()
		defer mu.Unlock()
		switch n := rounds.Add(1); {
		case n < 50:
			more()
		case n == 50:
			close(done)
		}
	})
	mu.Lock()
	more()
	mu.Unlock()
	stream, read := newStream(), 0
	for rounds.Load() < 50 {
		if int64(read+1000) > written.Load() {
			until(t, "more is written, or the end", func() bool {
				return int64(read+1000) <= written.Load() || rounds.Load() >= 50
			})
			continue
		}
		expect(t, peer, stream, 1000)
		read += 1000
	}
	within(t, "all rounds", func() { <-done })
	expect(t, peer, stream, int(written.Load())-read)
}

// TestConcurrentWriters makes sure that one Write is never torn by another, and that each writer's order is kept.
func TestConcurrentWriters(t *testing.T) {
	const writers, each = 8, 400
	c, peer := pair(t, Options{Limit: 64 << 20, Stall: time.Minute}, small)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := c.Write(record(w, i)); err != nil {
					t.Error(err)
					return
				}
				c.Pending()
			}
		})
	}
	var next [writers]int
	head := make([]byte, 12)
	if err := peer.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for range writers * each {
		if _, err := io.ReadFull(peer, head); err != nil {
			t.Fatal(err)
		}
		w, i := binary.BigEndian.Uint32(head), binary.BigEndian.Uint32(head[4:])
		if w >= writers || int(i) != next[w] {
			t.Fatalf("record %d of writer %d came, which is not the next one", i, w)
		}
		next[w]++
		body := make([]byte, binary.BigEndian.Uint32(head[8:]))
		if _, err := io.ReadFull(peer, body); err != nil {
			t.Fatal(err)
		}
		for _, b := range body {
			if b != byte(w) {
				t.Fatalf("a record of writer %d is torn", w)
			}
		}
	}
	wg.Wait()
}

// record is a header and a body of up to 4 KiB.
func record(writer, n int) []byte {
	size := rand.IntN(4 << 10)
	p := binary.BigEndian.AppendUint32(nil, uint32(writer))
	p = binary.BigEndian.AppendUint32(p, uint32(n))
	p = binary.BigEndian.AppendUint32(p, uint32(size))
	for range size {
		p = append(p, byte(writer))
	}
	return p
}

// TestDeadlines makes sure that deadlines, which TLS and WebSocket set, concern reading only.
func TestDeadlines(t *testing.T) {
	c, peer := pair(t, Options{Limit: 1 << 20, Stall: time.Minute}, small)
	past := time.Unix(1, 0)
	if err := c.SetWriteDeadline(past); err != nil {
		t.Fatal(err)
	}
	stream, sent := newStream(), newStream()
	n := fill(t, c, sent, 50_000)
	if err := c.SetDeadline(past); err != nil {
		t.Fatal(err)
	}
	n += fill(t, c, sent, 100_000)
	expect(t, peer, stream, n)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read after its deadline: %v", err)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Write([]byte{42}); err != nil {
		t.Fatal(err)
	}
	within(t, "Read", func() {
		buf := make([]byte, 1)
		if _, err := c.Read(buf); err != nil || buf[0] != 42 {
			t.Errorf("Read: %v, %v", buf, err)
		}
	})
	if n, err := c.Write(nil); n != 0 || err != nil {
		t.Errorf("Write of nothing: %d, %v", n, err)
	}
}

func TestAwaitHangUp(t *testing.T) {
	await := func(c *Conn) <-chan bool {
		hungUp := make(chan bool, 1)
		go func() { hungUp <- c.AwaitHangUp() }()
		return hungUp
	}
	for name, test := range map[string]struct {
		do   func(c *Conn, peer *net.TCPConn) error
		want bool
	}{
		"closed":   {func(_ *Conn, peer *net.TCPConn) error { return peer.Close() }, true},
		"reset":    {func(_ *Conn, peer *net.TCPConn) error { return errors.Join(peer.SetLinger(0), peer.Close()) }, true},
		"sent":     {func(_ *Conn, peer *net.TCPConn) error { _, err := peer.Write([]byte("x")); return err }, false},
		"deadline": {func(c *Conn, _ *net.TCPConn) error { return c.SetReadDeadline(time.Unix(1, 0)) }, false},
		"own end":  {func(c *Conn, _ *net.TCPConn) error { return c.Close() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := pair(t, Options{Limit: 1, Stall: time.Minute}, buffers{})
			hungUp := await(c)
			select {
			case <-hungUp:
				t.Fatal("it does not wait")
			case <-time.After(10 * time.Millisecond):
			}
			if err := test.do(c, peer); err != nil {
				t.Fatal(err)
			}
			within(t, "AwaitHangUp returns", func() {
				if got := <-hungUp; got != test.want {
					t.Errorf("hung up: %v", got)
				}
			})
			if name != "sent" {
				return
			}
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 2)); n != 1 || err != nil {
				t.Errorf("read %d, %v", n, err)
			}
		})
	}
}
