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

	"bridged/internal/netconn"
)

// mochi reads CONNECT and writes CONNACK. Then the link lets it go and reads packets itself, with mochi's decoders:
// mochi would keep a second goroutine, buffers and a large stack for each connection.

// errLoggedIn ends mochi's part.
var errLoggedIn = errors.New("the link goes on by itself")

// input is what was read from the connection and not used yet. It belongs to whoever reads.
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
func (in *input) fill(r io.Reader) error {
	switch {
	case in.buf == nil:
		in.buf = takeInput()
	case len(in.rest) == len(in.buf): // a large packet
		in.buf = append(make([]byte, 0, 2*len(in.buf)), in.buf...)
		in.buf = in.buf[:cap(in.buf)]
	case cap(in.rest) < cap(in.buf): // it does not begin where the buffer does
		copy(in.buf, in.rest)
	}
	have := len(in.rest)
	n, err := r.Read(in.buf[have:])
	in.rest = in.buf[:have+n]
	in.used(0)
	if n > 0 {
		return nil // the next Read has the error again
	}
	if errors.Is(err, io.EOF) && have > 0 {
		return io.ErrUnexpectedEOF
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
		if err := in.fill(l.Conn); err != nil {
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

// maxPackets is how many packets are handled at a time. Then other connections have their turn: the least packets take
// two bytes, and each its answer.
const maxPackets = 64

// read handles what has come, and returns nil when there is nothing more for now.
func (l *link) read() error {
	defer l.uncork()
	if err := l.unhold(); err != nil {
		return l.paused(err)
	}
	for handled := 0; ; {
		if l.deaf() {
			return nil // drained has it read again
		}
		n, err := l.handleInput(handled)
		if err != nil {
			return l.paused(err)
		}
		if handled += n; handled >= maxPackets {
			l.nc.Kick()
			return nil
		}
		if err := l.input.fill(l.Conn); err != nil {
			return l.paused(err)
		}
	}
}

// deaf says that the device does not read the answers to what it sends.
func (l *link) deaf() bool {
	return int64(l.nc.Pending()) > l.largest.Load()+l.b.unread && !l.over() && l.nc.Err() == nil
}

// paused is nil for an error after which reading goes on later.
func (*link) paused(err error) error {
	if errors.Is(err, netconn.ErrWouldBlock) || errors.Is(err, errHeld) {
		return nil
	}
	return err
}

// packet looks at the next packet, which may have so many bytes. header is the size of its fixed header, size that of
// all of it, 0 while it is not there.
func (in *input) packet(limit int) (header, size int, err error) {
	b := in.rest
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
		case b[i]&0x80 == 0 && n+1 > limit:
			return 0, 0, packets.ErrPacketTooLarge
		case b[i]&0x80 == 0 && 1+i+n > len(b):
			return 0, 0, nil
		case b[i]&0x80 == 0:
			return 1 + i, 1 + i + n, nil
		case i == 4: // MQTT 3.1.1, 2.2.3
			return 0, 0, packets.ErrMalformedVariableByteInteger
		}
	}
	return 0, 0, nil
}

// handleInput handles the packets that are complete, and returns how many there were, maxPackets at most together with
// those that were handled just before.
func (l *link) handleInput(before int) (n int, err error) {
	for {
		header, size, err := l.input.packet(l.b.cfg.MaxPacketSize)
		if err != nil {
			return n, err
		}
		if size == 0 || before+n >= maxPackets {
			if n > 0 {
				_ = l.SetDeadline(time.Time{}) // fails only if the link has ended, as reading will
			}
			return n, nil
		}
		if before+n > 0 || size < len(l.input.rest) {
			l.cork(l.input.rest[0] >> 4)
		}
		err = l.handle(l.input.rest[0], l.input.rest[header:size])
		l.input.used(size)
		if err != nil {
			return n, err
		}
		n++
	}
}

// corker is one of the device's lanes.
type corker interface {
	Cork()
	Uncork()
}

// cork has a lane gather, until uncork or a packet that is for the other one, what comes of packets of this kind.
// Several in a row go on in one piece, and all in the order in which they came.
func (l *link) cork(kind byte) {
	var lane corker
	switch kind {
	case packets.Publish:
		lane = l.device.setup().Up
	case packets.Puback, packets.Pubrec, packets.Pubcomp:
		lane = l.reader
	}
	if lane == l.corked {
		return
	}
	l.uncork()
	if l.corked = lane; lane != nil {
		l.asOurs(lane.Cork)
	}
}

// uncork ends what cork began.
func (l *link) uncork() {
	if lane := l.corked; lane != nil {
		l.corked = nil
		l.asOurs(lane.Uncork)
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
	_ = pk.FixedHeader.Decode(head) // packet has looked
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
