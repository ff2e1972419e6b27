package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// mochi reads CONNECT and writes CONNACK. Then the link lets it go and reads packets itself, with mochi's decoders:
// mochi would keep a second goroutine, buffers and a large stack for each connection.

// errLoggedIn ends mochi's part.
var errLoggedIn = errors.New("the link goes on by itself")

// input is what was read from the connection and not used yet. It belongs to the reading goroutine.
type input struct {
	buf  []byte // nil while there is nothing
	rest []byte // of buf

	// How much of its first packet mochi has got, and is yet to get.
	header, left int
	complete     bool // the packet's header
}

// inputSize is how many bytes are read from a connection at once.
const inputSize = 4 << 10

// inputs has the buffers of connections that have something to read. The others have none.
var inputs = sync.Pool{New: func() any { return new([inputSize]byte) }}

func takeInput() []byte { return inputs.Get().(*[inputSize]byte)[:] }

func giveInput(b []byte) {
	if len(b) == inputSize {
		inputs.Put((*[inputSize]byte)(b))
	}
}

// fill reads more.
func (l *link) fill() error {
	in := &l.input
	var n int
	var err error
	switch {
	case in.buf == nil && l.Conn == l.nc:
		in.buf, n, err = l.nc.ReadInto(takeInput, giveInput)
		in.rest = in.buf[:n]
		return err
	case in.buf == nil:
		in.buf = takeInput()
	case len(in.rest) == len(in.buf): // a large packet
		in.buf = append(make([]byte, 0, 2*len(in.buf)), in.buf...)
		in.buf = in.buf[:cap(in.buf)]
	default:
		copy(in.buf, in.rest)
	}
	have := len(in.rest)
	n, err = l.Conn.Read(in.buf[have:])
	in.rest = in.buf[:have+n]
	if n > 0 {
		return nil // the next Read has the error again
	}
	return err
}

// used takes n bytes off the input.
func (in *input) used(n int) {
	if in.rest = in.rest[n:]; len(in.rest) == 0 {
		giveInput(in.buf)
		in.buf, in.rest = nil, nil
	}
}

// Read gives mochi its packet, and nothing behind it.
func (l *link) Read(p []byte) (int, error) {
	in := &l.input
	if in.complete && in.left == 0 {
		l.detached = true
		return 0, errLoggedIn
	}
	if len(in.rest) == 0 {
		if err := l.fill(); err != nil {
			return 0, err
		}
	}
	n := 1
	if in.complete {
		n = min(len(p), len(in.rest), in.left)
		in.left -= n
	} else {
		b := in.rest[0]
		if in.header > 0 {
			in.left |= int(b&0x7f) << (7 * (in.header - 1))
			in.complete = b&0x80 == 0 || in.header == 4 // mochi refuses what is longer
		}
		in.header++
	}
	copy(p, in.rest[:n])
	in.used(n)
	return n, nil
}

// logIn has mochi handle CONNECT. It returns nil if the link goes on.
func (l *link) logIn() error {
	err := l.guard(func() error { return l.b.server.EstablishConnection("lan", l) })
	if l.client != nil { // mochi leaves it when it panics
		l.b.server.Clients.Delete(l.client.ID)
		l.client = nil
	}
	if errors.Is(err, errLoggedIn) {
		return nil
	}
	return err
}

// guard calls f, which calls mochi's decoder. That panics on some malformed packets, for instance a SUBSCRIBE of MQTT 5
// that ends before the options of a filter. It is the device's fault and ends its connection. A panic in our own code
// is not caught.
func (l *link) guard(f func() error) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		fault, ok := p.(runtime.Error)
		if !ok || l.ours {
			panic(p)
		}
		err = fmt.Errorf("%w: %w", packets.ErrMalformedPacket, fault)
	}()
	return f()
}

// read reads packets until the connection ends.
func (l *link) read() error {
	return l.guard(func() error {
		for {
			if err := l.handleInput(); err != nil {
				return err
			}
			_ = l.SetDeadline(time.Time{}) // fails only if the link has ended, as reading will
			if err := l.awaitPacket(); err != nil {
				return err
			}
		}
	})
}

// awaitPacket reads until there is a whole packet.
func (l *link) awaitPacket() error {
	for {
		if err := l.fill(); err != nil {
			if errors.Is(err, io.EOF) && len(l.input.rest) > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		if _, size, err := l.frame(); err != nil || size > 0 && size <= len(l.input.rest) {
			return err
		}
	}
}

// frame looks at the header of the next packet. size is that of the whole packet, 0 if it is not known yet.
func (l *link) frame() (header, size int, err error) {
	b := l.input.rest
	if len(b) == 0 {
		return 0, 0, nil
	}
	var fh packets.FixedHeader
	if err := fh.Decode(b[0]); err != nil {
		return 0, 0, err
	}
	n := 0
	for i := 1; i < len(b); i++ {
		n |= int(b[i]&0x7f) << (7 * (i - 1))
		switch {
		case b[i]&0x80 == 0 && n+1 > l.b.cfg.MaxPacketSize:
			return 0, 0, packets.ErrPacketTooLarge
		case b[i]&0x80 == 0:
			return 1 + i, 1 + i + n, nil
		case i == 4: // MQTT 3.1.1, 2.2.3
			return 0, 0, packets.ErrMalformedVariableByteInteger
		}
	}
	return 0, 0, nil
}

// handleInput handles the packets that are complete. What comes of several goes to the cloud in one piece.
func (l *link) handleInput() error {
	defer l.uncork()
	for {
		header, size, err := l.frame()
		if err != nil {
			return err
		}
		if size == 0 || size > len(l.input.rest) {
			return nil
		}
		if size < len(l.input.rest) {
			l.cork()
		}
		if err := l.handle(l.input.rest[0], l.input.rest[header:size]); err != nil {
			return err
		}
		l.input.used(size)
	}
}

// corker is an Uplink that gathers what it has to write from Cork to Uncork.
type corker interface {
	Cork()
	Uncork()
}

func (l *link) cork() {
	if l.corked == nil {
		if c, ok := l.device.setup().Up.(corker); ok {
			l.corked = c
			l.asOurs(c.Cork)
		}
	}
}

// uncork must come before the goroutine waits for anything.
func (l *link) uncork() {
	if c := l.corked; c != nil {
		l.corked = nil
		l.asOurs(c.Uncork)
	}
}

// asOurs calls f, whose panics guard does not blame on the device.
func (l *link) asOurs(f func()) {
	was := l.ours
	l.ours = true
	f()
	l.ours = was
}

// handle decodes a packet and handles it. The body is in a buffer that is used again.
func (l *link) handle(head byte, body []byte) error {
	pk := packets.Packet{ProtocolVersion: l.req.version}
	_ = pk.FixedHeader.Decode(head) // frame has looked
	pk.FixedHeader.Remaining = len(body)
	if err := decode(&pk, body); err != nil {
		return err
	}
	l.ours = true
	err := l.received(&pk)
	l.ours = false
	return err
}

func decode(pk *packets.Packet, body []byte) error {
	switch pk.FixedHeader.Type {
	case packets.Puback:
		return pk.PubackDecode(body)
	case packets.Pubrec:
		return pk.PubrecDecode(body)
	case packets.Pubrel:
		return pk.PubrelDecode(body)
	case packets.Pubcomp:
		return pk.PubcompDecode(body)
	case packets.Pingreq:
		return nil
	}
	body = bytes.Clone(body) // topic and payload stay there
	switch pk.FixedHeader.Type {
	case packets.Publish:
		return pk.PublishDecode(body)
	case packets.Subscribe:
		return pk.SubscribeDecode(body)
	case packets.Unsubscribe:
		return pk.UnsubscribeDecode(body)
	case packets.Disconnect:
		return pk.DisconnectDecode(body)
	case packets.Connect:
		return pk.ConnectDecode(body)
	case packets.Connack:
		return pk.ConnackDecode(body)
	case packets.Suback:
		return pk.SubackDecode(body)
	case packets.Unsuback:
		return pk.UnsubackDecode(body)
	case packets.Auth:
		return pk.AuthDecode(body)
	case packets.Pingresp:
		return nil
	}
	return fmt.Errorf("invalid packet type; %v", pk.FixedHeader.Type)
}
