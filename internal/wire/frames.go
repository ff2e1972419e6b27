package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

const (
	bufferSize = 4096
	// maxControl is how many bytes a control frame may hold (RFC 6455, 5.5).
	maxControl = 125
	// controlTimeout is how long the answer to a control frame may wait until it can be written.
	controlTimeout = time.Second

	continuation = 0 // an opcode, as websocket.BinaryMessage is one
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// frames makes a stream of bytes out of a server's WebSocket frames (RFC 6455, 5).
type frames struct {
	ws   *websocket.Conn // answers control frames
	conn net.Conn

	// buf is from the pool, nil when it is empty. buf[at:data] is payload that was not taken, moved together if it spans
	// frames; buf[raw:end] is what was read and not looked at yet.
	buf                []byte
	at, data, raw, end int

	left int64 // bytes of the present data frame from raw on
	open bool  // within a message that is fragmented
}

// payload is what there is of the stream.
func (f *frames) payload() []byte { return f.buf[f.at:f.data] }

// take removes the first bytes of the payload, which stay where they are until more is called.
func (f *frames) take(n int) { f.at += n }

// within says whether the connection may not end here: there is payload, or a frame or a message is incomplete.
func (f *frames) within() bool { return f.at < f.data || f.raw < f.end || f.left > 0 || f.open }

// release gives the buffer back if it is empty.
func (f *frames) release() {
	if f.buf != nil && f.at == f.data && f.raw == f.end {
		buffers.Put((*[bufferSize]byte)(f.buf))
		f.buf = nil
		f.at, f.data, f.raw, f.end = 0, 0, 0, 0
	}
}

// more adds to the payload, of which there may be maxInPlace bytes.
func (f *frames) more() error {
	for {
		if err := f.frame(); err != nil {
			return err
		}
		if n := int(min(f.left, int64(f.end-f.raw))); n > 0 {
			switch {
			case f.at == f.data:
				f.at, f.data = f.raw, f.raw
			case f.data < f.raw:
				copy(f.buf[f.data:], f.buf[f.raw:f.raw+n])
			}
			f.data += n
			f.raw += n
			f.left -= int64(n)
			return nil
		}
		if err := f.fill(); err != nil {
			return err
		}
	}
}

// read reads payload into p, which is large, past the buffer if possible. It may return 0, nil, but then there is
// payload in the buffer. There must be none before.
func (f *frames) read(p []byte) (int, error) {
	if f.raw < f.end || f.left < bufferSize {
		return 0, f.more()
	}
	f.release()
	n, err := f.readConn(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	return n, err
}

// fill reads from the connection. What is in the buffer moves to its beginning first.
func (f *frames) fill() error {
	if f.buf == nil {
		f.buf = buffers.Get().(*[bufferSize]byte)[:]
	}
	f.data = copy(f.buf, f.buf[f.at:f.data])
	f.end = f.data + copy(f.buf[f.data:], f.buf[f.raw:f.end])
	f.at, f.raw = 0, f.data
	n, err := f.readConn(f.buf[f.end:])
	f.end += n
	return err
}

// readConn leaves an error that comes together with bytes, as TLS does it, to the next call: one that is temporary may
// not be true any more when the bytes have been used.
func (f *frames) readConn(p []byte) (int, error) {
	n, err := f.conn.Read(p)
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// frame reads the header of the next data frame that is not empty, if it is there and the present one has ended, and
// deals with the control frames before it.
func (f *frames) frame() error {
	for f.left == 0 {
		b := f.buf[f.raw:f.end]
		if len(b) < 2 {
			return nil
		}
		final, opcode := b[0]&0x80 != 0, int(b[0]&0x0f)
		if wrong := f.check(b[0], b[1]); wrong != "" {
			return f.violation(wrong)
		}
		n, head := int64(b[1]), 2
		switch {
		case opcode == websocket.TextMessage: // MQTT 3.1.1, 6.0.0-1
			return ProtocolError(nil, "a text frame")
		case opcode > websocket.BinaryMessage:
			if len(b) < head+int(n) {
				return nil
			}
			f.raw += head + int(n)
			if err := f.control(opcode, b[head:head+int(n)]); err != nil {
				return err
			}
			continue
		case n == 126:
			if head = 4; len(b) < head {
				return nil
			}
			n = int64(binary.BigEndian.Uint16(b[2:]))
		case n == 127:
			if head = 10; len(b) < head {
				return nil
			}
			long := binary.BigEndian.Uint64(b[2:])
			if long > math.MaxInt64 {
				return f.violation("a frame with a malformed length")
			}
			n = int64(long)
		}
		f.raw += head
		f.left, f.open = n, !final
	}
	return nil
}

// check says what is wrong with the first two bytes of a frame, if anything is (RFC 6455, 5.1, 5.2, 5.4 and 5.5).
func (f *frames) check(first, second byte) string {
	switch opcode := int(first & 0x0f); {
	case first&0x70 != 0:
		return "a frame with reserved bits"
	case second&0x80 != 0:
		return "a frame with a mask"
	case opcode == continuation && !f.open:
		return "a continuation of no message"
	case (opcode == websocket.TextMessage || opcode == websocket.BinaryMessage) && f.open:
		return "a message within a message"
	case opcode <= websocket.BinaryMessage:
		return ""
	case opcode < websocket.CloseMessage || opcode > websocket.PongMessage:
		return "a frame of an unknown type"
	case first&0x80 == 0:
		return "a control frame in fragments"
	case second > maxControl:
		return "a control frame that is too long"
	}
	return ""
}

// violation tells the server, and the caller, what is wrong with the server's frames.
func (f *frames) violation(what string) error {
	f.answer(websocket.CloseProtocolError, what)
	return ProtocolError(nil, "%s", what)
}

// answer sends a close frame, a courtesy: the connection is at its end.
func (f *frames) answer(code int, text string) {
	_ = f.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text),
		time.Now().Add(controlTimeout))
}

// control deals with a control frame (RFC 6455, 5.5).
func (f *frames) control(opcode int, p []byte) error {
	switch opcode {
	case websocket.CloseMessage:
		return f.closed(p)
	case websocket.PingMessage:
		err := f.ws.WriteControl(websocket.PongMessage, p, time.Now().Add(controlTimeout))
		var network net.Error
		if errors.Is(err, websocket.ErrCloseSent) || errors.As(err, &network) && network.Timeout() {
			return nil // there is no need to answer, or no room, and the next ping may be answered
		}
		return err
	}
	return nil
}

// closed answers a close frame, and returns what it says.
func (f *frames) closed(p []byte) error {
	code, text := websocket.CloseNoStatusReceived, ""
	switch {
	case len(p) == 1:
		return f.violation("a close frame with half a code")
	case len(p) > 1:
		code, text = int(binary.BigEndian.Uint16(p)), string(p[2:])
		if !mayBeReceived(code) {
			return f.violation("a close frame with an invalid code")
		}
		if !utf8.ValidString(text) {
			return f.violation("a close frame with invalid text")
		}
	}
	f.answer(code, "")
	return &websocket.CloseError{Code: code, Text: text}
}

// mayBeReceived says whether a close frame may have such a code (RFC 6455, 7.4, and IANA's registry).
func mayBeReceived(code int) bool {
	return code >= websocket.CloseNormalClosure && code <= websocket.CloseUnsupportedData ||
		code >= websocket.CloseInvalidFramePayloadData && code <= websocket.CloseTryAgainLater ||
		code >= 3000 && code <= 4999
}
