package wire

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// nothing is the error of a connection that would block.
type nothing struct{}

func (nothing) Error() string   { return "nothing to read" }
func (nothing) Timeout() bool   { return false }
func (nothing) Temporary() bool { return true }

// script is a connection that sends pieces, with an error that is temporary after each if it pauses, and then ends.
type script struct {
	net.Conn // nil: nothing else is called
	in       [][]byte
	pauses   bool
	joined   bool  // errors come together with the last bytes before
	end      error // io.EOF if nil
	sent     bytes.Buffer
	pause    bool
}

func (c *script) Read(p []byte) (int, error) {
	if c.pause {
		c.pause = false
		return 0, nothing{}
	}
	if len(c.in) == 0 {
		if c.end == nil {
			return 0, io.EOF
		}
		return 0, c.end
	}
	n := copy(p, c.in[0])
	if c.in[0] = c.in[0][n:]; len(c.in[0]) > 0 {
		return n, nil
	}
	c.in, c.pause = c.in[1:], c.pauses
	if c.joined {
		_, err := c.Read(nil)
		return n, err
	}
	return n, nil
}

func (c *script) Write(p []byte) (int, error)      { return c.sent.Write(p) }
func (c *script) SetDeadline(time.Time) error      { return nil }
func (c *script) SetWriteDeadline(time.Time) error { return nil }
func (c *script) Close() error                     { return nil }

// upgraded makes a WebSocket connection of one that accepts the handshake first.
func upgraded(t testing.TB, c net.Conn) *websocket.Conn {
	t.Helper()
	s := &shaking{Conn: c}
	dial := func(string, string) (net.Conn, error) { return s, nil }
	ws, resp, err := (&websocket.Dialer{NetDial: dial, ReadBufferSize: 256}).DialContext(t.Context(), "ws://cloud/", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // empty
	s.done = true
	return ws
}

// shaking answers a handshake.
type shaking struct {
	net.Conn
	answer []byte
	done   bool
}

func (s *shaking) Write(p []byte) (int, error) {
	if s.done {
		return s.Conn.Write(p)
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(p)))
	if err != nil {
		return 0, err
	}
	sum := sha1.Sum([]byte(req.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455, 1.3
	s.answer = []byte("HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
	return len(p), nil
}

func (s *shaking) Read(p []byte) (int, error) {
	if s.done {
		return s.Conn.Read(p)
	}
	n := copy(p, s.answer)
	s.answer = s.answer[n:]
	return n, nil
}

// newReader reads from a script.
func newReader(t testing.TB, c net.Conn, limit int64) *Reader {
	t.Helper()
	max := new(atomic.Int64)
	max.Store(limit)
	return NewReader(upgraded(t, c), max)
}

// result is all that reading yields.
type result struct {
	packets []string
	err     string
	sent    string // control frames, without their masks
}

func (r result) equal(o result) bool {
	return slices.Equal(r.packets, o.packets) && r.err == o.err && r.sent == o.sent
}

// read reads a script to its end.
func read(t testing.TB, c *script, limit int64) (result, error) {
	t.Helper()
	r := newReader(t, c, limit)
	var got result
	var kept []packets.ControlPacket
	for {
		p, err := r.Next()
		if in := &r.in; in.buf != nil && in.at == in.data && in.raw == in.end {
			t.Fatal("an empty buffer is kept")
		}
		if errors.Is(err, nothing{}) {
			if p != nil {
				t.Fatalf("%v with an error", p)
			}
			continue
		}
		if err != nil {
			for _, p := range kept {
				got.packets = append(got.packets, shown(p))
			}
			got.err, got.sent = fmt.Sprintf("%T %v", err, err), unmasked(t, c.sent.Bytes())
			return got, err
		}
		kept = append(kept, shallow(p))
	}
}

// shallow keeps a packet. What a PUBLISH holds has to stay as it is.
func shallow(p packets.ControlPacket) packets.ControlPacket {
	switch p := p.(type) {
	case *packets.PublishPacket:
		kept := *p
		return &kept
	case *packets.PubackPacket:
		kept := *p
		return &kept
	}
	return p
}

func shown(p packets.ControlPacket) string {
	switch p := p.(type) {
	case *packets.PublishPacket:
		return fmt.Sprintf("%+v %s %d %x", p.FixedHeader, p.TopicName, p.MessageID, p.Payload)
	case *Oversize:
		return fmt.Sprintf("oversize %+v %s %d %x", p.FixedHeader, p.TopicName, p.MessageID, p.Payload)
	}
	return fmt.Sprintf("%#v", p)
}

// unmasked is what a client sent, small frames only.
func unmasked(t testing.TB, b []byte) string {
	t.Helper()
	var all []byte
	for len(b) > 0 {
		n := int(b[1] & 0x7f)
		if b[1]&0x80 == 0 || n > maxControl {
			t.Fatalf("a frame %x", b)
		}
		all = fmt.Appendf(all, "%x ", b[0])
		for i := range n {
			all = append(all, b[6+i]^b[2+i%4])
		}
		all = append(all, '\n')
		b = b[6+n:]
	}
	return string(all)
}

// Frames of a server.
const (
	fin  = 0x80
	text = fin | websocket.TextMessage
	bin  = fin | websocket.BinaryMessage
	more = continuation
	last = fin | continuation
	end  = fin | websocket.CloseMessage
	ping = fin | websocket.PingMessage
	pong = fin | websocket.PongMessage
)

func frame(first byte, payload ...[]byte) []byte {
	p := bytes.Join(payload, nil)
	b := []byte{first}
	switch n := len(p); {
	case n < 126:
		b = append(b, byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, p...)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// fragmented spreads p over frames of a size, with a control frame after each if there is one.
func fragmented(p []byte, size int, control []byte) (b []byte) {
	first := byte(websocket.BinaryMessage)
	for piece := range slices.Chunk(p, size) {
		b = append(b, frame(first, piece)...)
		b = append(b, control...)
		first = more
	}
	return append(b, frame(last)...)
}

func publish(n int, qos byte, id uint16) []byte {
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	return AppendPublish(nil, "a/b", payload, qos, false, false, id)
}
