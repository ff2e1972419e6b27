package cloudsim

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// writeTimeout is how long a client may not read before it counts as stuck.
	writeTimeout = time.Minute
	// finalTimeout is how long the last words of a connection may take.
	finalTimeout = 2 * time.Second
	// outboxFull in bytes: above, QoS 0 messages are dropped and the connection is not read.
	outboxFull = 256 << 10
)

// outbox is what is to be sent on a connection. Adding never blocks: a goroutine that lives while there is something to
// send writes it, and takes together what has gathered.
type outbox struct {
	mu      sync.Mutex // protects the following fields; taken inside Cloud.mu, never around it
	chunks  []chunk
	size    int
	due     time.Time // of the last chunk: order is kept when a delay ends
	writing bool
	closed  bool
	final   *final
	room    chan struct{} // closed when size falls below outboxFull, nil while nobody waits
}

// chunk is a number of MQTT packets.
type chunk struct {
	b   []byte
	due time.Time
	raw bool // bypasses WebSocket framing
}

// final is how the writer ends a connection once everything is sent.
type final struct {
	raw    []byte // sent as it is
	frame  []byte // payload of a close frame
	linger bool   // leave it open: the reader drains it first, so that the last words are not lost to a reset
}

// buffers are reused chunks of up to pooledBuffer bytes.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const pooledBuffer = 64 << 10

// add queues b after delay and reports whether a goroutine must be started to write it.
func (o *outbox) add(b []byte, delay time.Duration, raw bool) (start bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.final != nil {
		return false
	}
	now := time.Now()
	due := o.due
	if delay > 0 && now.Add(delay).After(due) {
		due = now.Add(delay)
	}
	o.due = due
	if !due.After(now) {
		due = time.Time{}
	}
	o.size += len(b)
	if n := len(o.chunks); n > 0 && !raw && !o.chunks[n-1].raw && due.Equal(o.chunks[n-1].due) {
		o.chunks[n-1].b = append(o.chunks[n-1].b, b...)
	} else {
		buf := *buffers.Get().(*[]byte)
		o.chunks = append(o.chunks, chunk{b: append(buf[:0], b...), due: due, raw: raw})
	}
	start, o.writing = !o.writing, true
	return start
}

// next returns the next thing to write. ok is false when there is none; the writer has ended then.
func (o *outbox) next() (c chunk, f *final, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed || len(o.chunks) == 0 && o.final == nil:
		o.writing = false
		return chunk{}, nil, false
	case len(o.chunks) == 0:
		o.closed, o.writing = true, false
		return chunk{}, o.final, true
	}
	c = o.chunks[0]
	o.chunks[0] = chunk{}
	o.chunks = o.chunks[1:]
	if len(o.chunks) == 0 {
		o.chunks = nil
	}
	return c, nil, true
}

// sent gives a chunk back.
func (o *outbox) sent(c chunk) {
	o.mu.Lock()
	o.size -= len(c.b)
	if o.size < outboxFull && o.room != nil {
		close(o.room)
		o.room = nil
	}
	o.mu.Unlock()
	if cap(c.b) <= pooledBuffer {
		b := c.b[:0]
		buffers.Put(&b)
	}
}

// finish has the writer end the connection when everything before is sent. Nothing is taken any more. It reports
// whether a goroutine must be started.
func (o *outbox) finish(f final) (start bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.final != nil {
		return false
	}
	o.final = &f
	start, o.writing = !o.writing, true
	return start
}

// close drops what is left.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.chunks = true, nil
}

// crowded says that the client reads too slowly.
func (o *outbox) crowded() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.size >= outboxFull
}

// full returns nil, or a channel that is closed when there is room again.
func (o *outbox) full() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.size < outboxFull || o.closed {
		return nil
	}
	if o.room == nil {
		o.room = make(chan struct{})
	}
	return o.room
}

// write is the writing goroutine.
func (cn *conn) write() {
	for {
		c, f, ok := cn.out.next()
		switch {
		case !ok:
			return
		case f != nil:
			cn.writeFinal(f)
			return
		}
		if !cn.waitDue(c.due) {
			continue
		}
		err := cn.writeChunk(c)
		cn.out.sent(c)
		if err != nil {
			cn.writeFailed(err)
		}
	}
}

// waitDue reports false when the connection ended first.
func (cn *conn) waitDue(due time.Time) bool {
	wait := time.Until(due)
	if due.IsZero() || wait <= 0 {
		return true
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-cn.done:
		return false
	}
}

func (cn *conn) writeChunk(c chunk) error {
	deadline := time.Now().Add(writeTimeout)
	if c.raw {
		if err := cn.ws.NetConn().SetWriteDeadline(deadline); err != nil {
			return err
		}
		_, err := cn.ws.NetConn().Write(c.b)
		return err
	}
	if err := cn.ws.SetWriteDeadline(deadline); err != nil {
		return err
	}
	size := cn.cloud.opts.FrameSize
	if size == 0 {
		size = len(c.b)
	}
	for b := c.b; len(b) > 0; {
		n := min(size, len(b))
		if err := cn.ws.WriteMessage(websocket.BinaryMessage, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (cn *conn) writeFinal(f *final) {
	deadline := time.Now().Add(finalTimeout)
	if f.raw != nil {
		if err := cn.ws.NetConn().SetWriteDeadline(deadline); err == nil {
			_, _ = cn.ws.NetConn().Write(f.raw) // it is being cut anyway
		}
	}
	if f.frame != nil {
		_ = cn.ws.WriteControl(websocket.CloseMessage, f.frame, deadline) // likewise
	}
	if !f.linger {
		cn.close(CutClose)
	}
}

func (cn *conn) writeFailed(err error) {
	reason := EndClosed
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		reason = EndStuck
	}
	c := cn.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(cn, reason, CutClose)
}
