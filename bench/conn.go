package main

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6455, 4.2.2 has it
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// conn carries MQTT packets, over TCP or over WebSocket as its server. One goroutine reads.
type conn struct {
	net.Conn
	ws  bool
	raw []byte // read and not yet understood
	mq  []byte // the MQTT stream, as far as it is not handled

	mu   sync.Mutex // protects the following field, and keeps writes apart
	sent []byte     // a buffer
}

const readSize = 4 << 10

var (
	errClosed = errors.New("closed by the other side")
	errFrame  = errors.New("a frame that is not expected")
)

// serve has each packet handled, until the connection ends. After what came at once has been handled, flush is called.
func (c *conn) serve(handle func(head byte, body []byte) error, flush func() error) error {
	for {
		if cap(c.raw)-len(c.raw) < readSize/2 {
			c.raw = append(make([]byte, 0, 2*cap(c.raw)+readSize), c.raw...)
		}
		n, err := c.Read(c.raw[len(c.raw):cap(c.raw)])
		c.raw = c.raw[:len(c.raw)+n]
		if err != nil {
			return err
		}
		stream := c.raw
		if c.ws {
			if err := c.unframe(); err != nil {
				return err
			}
			stream = c.mq
		}
		rest := stream
		for {
			head, body, after, ok := split(rest)
			if !ok {
				break
			}
			rest = after
			if err := handle(head, body); err != nil {
				return err
			}
		}
		left := copy(stream, rest)
		if c.ws {
			c.mq = c.mq[:left]
		} else {
			c.raw = c.raw[:left]
		}
		if err := flush(); err != nil {
			return err
		}
	}
}

// unframe moves the payload of whole frames from raw to mq (RFC 6455, 5.2).
func (c *conn) unframe() error {
	b := c.raw
	for len(b) >= 2 {
		n, at := int(b[1]&0x7f), 2
		switch n {
		case 126:
			if len(b) < 4 {
				n = len(b) // not complete in any case
			} else {
				n = int(binary.BigEndian.Uint16(b[2:]))
			}
			at = 4
		case 127:
			if len(b) < 10 {
				n = len(b)
			} else {
				n = int(binary.BigEndian.Uint64(b[2:]))
			}
			at = 10
		}
		if b[1]&0x80 == 0 {
			return errFrame // clients mask
		}
		if len(b) < at+4+n {
			break
		}
		payload := b[at+4 : at+4+n]
		unmask(payload, b[at:at+4])
		switch b[0] & 0x0f {
		case 0, 2:
			c.mq = append(c.mq, payload...)
		case 8:
			return errClosed
		case 9, 10: // nobody here waits for a pong
		default:
			return errFrame
		}
		b = b[at+4+n:]
	}
	c.raw = c.raw[:copy(c.raw, b)]
	return nil
}

func unmask(p, key []byte) {
	k32 := binary.LittleEndian.Uint32(key)
	k64 := uint64(k32)<<32 | uint64(k32)
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^k64)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= key[i&3]
	}
}

// send writes packets at once, in one frame if there are frames.
func (c *conn) send(p []byte) error {
	if !c.ws {
		_, err := c.Write(p)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent[:0], 0x82)
	switch n := len(p); {
	case n < 126:
		c.sent = append(c.sent, byte(n))
	case n < 1<<16:
		c.sent = append(c.sent, 126, byte(n>>8), byte(n))
	default:
		c.sent = binary.BigEndian.AppendUint64(append(c.sent, 127), uint64(n))
	}
	c.sent = append(c.sent, p...)
	_, err := c.Write(c.sent)
	return err
}

// upgrade is the server's part of the WebSocket handshake (RFC 6455, 4.2).
func (c *conn) upgrade() error {
	const most = 8 << 10
	c.raw = make([]byte, 0, readSize)
	for {
		n, err := c.Read(c.raw[len(c.raw):cap(c.raw)])
		if err != nil {
			return err
		}
		c.raw = c.raw[:len(c.raw)+n]
		if end := bytes.Index(c.raw, []byte("\r\n\r\n")); end >= 0 {
			key := headerOf(c.raw[:end], "sec-websocket-key")
			c.raw = c.raw[:copy(c.raw, c.raw[end+4:])]
			h := sha1.New() //nolint:gosec // see above
			_, _ = io.WriteString(h, key+"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
			_, err := io.WriteString(c.Conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
				"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(h.Sum(nil))+
				"\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
			c.ws = true
			return err
		}
		if len(c.raw) > most {
			return errMalformed
		}
		if len(c.raw) == cap(c.raw) {
			c.raw = append(make([]byte, 0, most+readSize), c.raw...)
		}
	}
}

func headerOf(request []byte, name string) string {
	for line := range bytes.SplitSeq(request, []byte("\r\n")) {
		if k, v, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.ToLower(k)) == name {
			return string(bytes.TrimSpace(v))
		}
	}
	return ""
}
