package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"

	"bridged/internal/failure"
)

// testLimit is the largest packet in these tests.
const testLimit = 20_000

var (
	connack  = []byte{0x20, 2, 1, 0}
	suback   = []byte{0x90, 4, 0, 9, 1, 0x80}
	pingresp = []byte{0xd0, 0}
	closing  = frame(end, []byte{0x03, 0xe8}, []byte("bye"))
)

func puback(id uint16) []byte { return AppendAck(nil, packets.Puback, id) }

// large is a SUBACK of a size.
func large(n int) []byte {
	b := appendLength([]byte{0x90}, n)
	return append(append(b, 0, 7), make([]byte, n-2)...)
}

// streams are what a server may send, with the packets in it.
var streams = []struct {
	name string
	b    []byte
	want [][]byte
}{
	{"nothing", nil, nil},
	{"an empty frame", frame(bin), nil},
	{"one of each", frame(bin, connack, suback, pingresp, puback(1), AppendAck(nil, packets.Pubrec, 2),
		AppendAck(nil, packets.Pubrel, 3), AppendAck(nil, packets.Pubcomp, 4), AppendAck(nil, packets.Unsuback, 5),
		publish(0, 0, 0), publish(5, 1, 6), publish(50, 2, 7)),
		[][]byte{connack, suback, pingresp, puback(1), AppendAck(nil, packets.Pubrec, 2),
			AppendAck(nil, packets.Pubrel, 3), AppendAck(nil, packets.Pubcomp, 4), AppendAck(nil, packets.Unsuback, 5),
			publish(0, 0, 0), publish(5, 1, 6), publish(50, 2, 7)}},
	{"one each", join(frame(bin, puback(1)), frame(bin, puback(2)), frame(bin, publish(200, 1, 3))),
		[][]byte{puback(1), puback(2), publish(200, 1, 3)}},
	{"across messages", join(frame(bin, puback(1), puback(2)[:1]), frame(bin, puback(2)[1:3]), frame(bin),
		frame(bin, puback(2)[3:], publish(300, 1, 3)[:2]), frame(bin, publish(300, 1, 3)[2:], puback(4))),
		[][]byte{puback(1), puback(2), publish(300, 1, 3), puback(4)}},
	{"control frames between", join(frame(ping), frame(bin, puback(1)), frame(pong, []byte("?")),
		fragmented(join(publish(200, 1, 3), puback(2)), 3, frame(ping, []byte("hello"))), frame(ping, make([]byte, 125))),
		[][]byte{puback(1), publish(200, 1, 3), puback(2)}},
	{"bytes in frames of their own", fragmented(join(puback(1), publish(130, 0, 0), suback), 1, nil),
		[][]byte{puback(1), publish(130, 0, 0), suback}},
	{"as large as in place", frame(bin, publish(maxInPlace-8, 0, 0), publish(maxInPlace-7, 0, 0), puback(1)),
		[][]byte{publish(maxInPlace-8, 0, 0), publish(maxInPlace-7, 0, 0), puback(1)}},
	{"as large as the buffer", frame(bin, publish(bufferSize-8, 0, 0), publish(bufferSize-7, 0, 0), puback(1)),
		[][]byte{publish(bufferSize-8, 0, 0), publish(bufferSize-7, 0, 0), puback(1)}},
	{"larger", join(frame(bin, publish(15_000, 1, 7), puback(1)), frame(bin, large(14_000), large(3990))),
		[][]byte{publish(15_000, 1, 7), puback(1), large(14_000), large(3990)}},
	{"larger in fragments", fragmented(join(publish(15_000, 1, 7), puback(1)), 4999, frame(ping, []byte("hello"))),
		[][]byte{publish(15_000, 1, 7), puback(1)}},
	{"a long frame", frame(bin, bytes.Repeat(publish(990, 1, 7), 70)),
		slices.Repeat([][]byte{publish(990, 1, 7)}, 70)},
	{"oversize", frame(bin, publish(testLimit, 0, 0), puback(1), publish(70_000, 2, 9), puback(2)),
		[][]byte{publish(testLimit, 0, 0), puback(1), publish(70_000, 2, 9), puback(2)}},
	{"oversize in fragments", fragmented(join(publish(testLimit, 1, 8), puback(1)), 3000, frame(ping)),
		[][]byte{publish(testLimit, 1, 8), puback(1)}},
	{"oversize by its topic", frame(bin, AppendPublish(nil, strings.Repeat("t", 60_000), nil, 1, true, true, 5)),
		[][]byte{AppendPublish(nil, strings.Repeat("t", 60_000), nil, 1, true, true, 5)}},
}

// decoded is what paho's decoder makes of packets, as far as a Reader returns it.
func decoded(t testing.TB, raw [][]byte, limit int64) (all []string) {
	t.Helper()
	for _, b := range raw {
		p, err := packets.ReadPacket(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if pub, ok := p.(*packets.PublishPacket); ok && int64(pub.RemainingLength) > limit {
			pub.Payload = nil
			p = &Oversize{*pub}
		}
		all = append(all, shown(p))
	}
	return all
}

func TestReader(t *testing.T) {
	for _, tc := range streams {
		want := decoded(t, tc.want, testLimit)
		for _, c := range []*script{
			{in: [][]byte{tc.b}},
			{in: slices.Collect(slices.Chunk(tc.b, 1)), pauses: true},
			{in: slices.Collect(slices.Chunk(tc.b, 7)), pauses: true, joined: true},
			{in: slices.Collect(slices.Chunk(tc.b, 4999)), pauses: true},
			{in: slices.Collect(slices.Chunk(tc.b, 4096)), joined: true},
		} {
			name := fmt.Sprintf("%s, %d pieces", tc.name, len(c.in))
			got, err := read(t, c, testLimit)
			if !slices.Equal(got.packets, want) || err != io.EOF { //nolint:errorlint // it is to be just this
				t.Errorf("%s: %d packets and then %v; want %d", name, len(got.packets), err, len(want))
			}
		}
	}
}

// Whatever comes within a frame, a message or a packet, the end of the connection does not.
func TestReaderTruncated(t *testing.T) {
	// The ends of frames with whole packets.
	whole := []byte{}
	for _, part := range [][]byte{frame(bin, puback(1)), frame(ping, []byte("x")), frame(bin, publish(200, 1, 2))} {
		whole = append(whole, part...)
		if _, err := read(t, &script{in: [][]byte{whole}}, testLimit); err != io.EOF { //nolint:errorlint // just this
			t.Errorf("after %d bytes: %v", len(whole), err)
		}
		for n := len(whole) - len(part) + 1; n < len(whole); n++ {
			_, err := read(t, &script{in: [][]byte{whole[:n]}}, testLimit)
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("within %d bytes: %v", n, err)
			}
		}
	}
	for name, b := range map[string][]byte{
		"packet":   frame(bin, puback(1)[:3]),
		"message":  frame(websocket.BinaryMessage, puback(1)),
		"large":    frame(bin, publish(15_000, 0, 0)[:6000]),
		"oversize": frame(bin, publish(70_000, 0, 0)[:6000]),
	} {
		if _, err := read(t, &script{in: [][]byte{b}}, testLimit); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("within a %s: %v", name, err)
		}
	}
}

// Other errors of the connection are returned as they are.
func TestReaderError(t *testing.T) {
	for _, b := range [][]byte{nil, {bin}, frame(bin, puback(1)[:3]), frame(bin, publish(15_000, 0, 0)[:6000])} {
		for _, joined := range []bool{false, true} {
			_, err := read(t, &script{in: [][]byte{b}, end: net.ErrClosed, joined: joined}, testLimit)
			if err != net.ErrClosed { //nolint:errorlint // it is to be just this
				t.Errorf("after %d bytes: %v", len(b), err)
			}
		}
	}
}

func TestReaderViolation(t *testing.T) {
	long := frame(ping, make([]byte, 126))
	wide := func(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{bin, 127}, n) }
	for name, tc := range map[string]struct {
		b    []byte
		says string
		tell bool // the server
	}{
		"reserved bit 1":           {frame(bin|0x40, puback(1)), "reserved bits", true},
		"reserved bit 2":           {frame(ping | 0x20), "reserved bits", true},
		"reserved bit 3":           {frame(bin | 0x10), "reserved bits", true},
		"mask":                     {[]byte{bin, 0x84, 0, 0, 0, 0, 0x40, 2, 0, 1}, "a mask", true},
		"type 3":                   {frame(fin | 3), "unknown type", true},
		"type 7":                   {frame(fin | 7), "unknown type", true},
		"type 11":                  {frame(fin | 11), "unknown type", true},
		"type 15":                  {frame(fin | 15), "unknown type", true},
		"continuation":             {frame(last, puback(1)), "continuation", true},
		"continuation of the last": {join(fragmented(nil, 1, nil)), "continuation", true},
		"message within":           {join(frame(websocket.BinaryMessage), frame(bin)), "within a message", true},
		"text within":              {join(frame(websocket.BinaryMessage), frame(text)), "within a message", true},
		"long ping":                {long, "too long", true},
		"ping in fragments":        {frame(websocket.PingMessage), "in fragments", true},
		"close in fragments":       {frame(websocket.CloseMessage), "in fragments", true},
		"negative length":          {wide(1 << 63), "malformed length", true},
		"half a close code":        {frame(end, []byte{3}), "half a code", true},
		"close code 0":             {frame(end, []byte{0, 0}), "invalid code", true},
		"close code 1004":          {frame(end, []byte{0x03, 0xec}), "invalid code", true},
		"close code 1005":          {frame(end, []byte{0x03, 0xed}), "invalid code", true},
		"close code 1006":          {frame(end, []byte{0x03, 0xee}), "invalid code", true},
		"close code 1015":          {frame(end, []byte{0x03, 0xf7}), "invalid code", true},
		"close code 5000":          {frame(end, []byte{0x13, 0x88}), "invalid code", true},
		"close text":               {frame(end, []byte{0x03, 0xe8, 0xff}), "invalid text", true},
		"HTTP":                     {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "reserved bits", true},
		"text":                     {frame(text, puback(1)), "a text frame", false},
		"text in fragments":        {frame(websocket.TextMessage), "a text frame", false},
		"type 0 of MQTT":           {frame(bin, []byte{0, 0}), "not MQTT", false},
		"type 15 of MQTT":          {frame(bin, []byte{0xf0, 0}), "not MQTT", false},
		"length of a packet":       {frame(bin, []byte{0x30, 0xff, 0xff, 0xff, 0xff}), "a malformed length", false},
		"no CONNACK":               {frame(bin, []byte{0x20, 1, 0}), "truncated packet of type 2", false},
		"no PUBLISH":               {frame(bin, []byte{0x30, 1, 0}), "truncated packet of type 3", false},
		"short PUBLISH":            {frame(bin, []byte{0x30, 4, 0, 3, 'a', 'b'}), "truncated packet of type 3", false},
		"PUBLISH without id":       {frame(bin, []byte{0x32, 4, 0, 1, 'a', 0}), "truncated packet of type 3", false},
		"large SUBACK":             {frame(bin, large(testLimit+1)), "type 9 with 20001 bytes", false},
		"malformed packet":         {frame(bin, []byte{0x82, 3, 0, 1, 0}), "malformed packet of type 8", false},
		"oversize QoS 3":           {frame(bin, []byte{0x36}, publish(70_000, 2, 1)[1:]), "malformed PUBLISH", false},
		"oversize without id":      {frame(bin, publish(70_000, 1, 0)), "malformed PUBLISH", false},
		"oversize topic": {frame(bin, appendLength([]byte{0x30}, testLimit+1), []byte{0xff, 0xff}),
			"malformed PUBLISH", false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, before := range [][]byte{nil, frame(bin, puback(7))} {
				b := join(before, tc.b)
				got, err := read(t, &script{in: [][]byte{b}}, testLimit)
				var f *failure.Failure
				if !errors.As(err, &f) || f.Kind != failure.ProtocolError || !strings.Contains(f.Detail, tc.says) {
					t.Errorf("%v; want %q", err, tc.says)
				}
				if told := strings.HasPrefix(got.sent, "88 \x03\xea"); told != tc.tell {
					t.Errorf("sent %q", got.sent)
				}
				if n := len(got.packets); n != len(before)/6 {
					t.Errorf("%d packets before", n)
				}
				cut, _ := read(t, &script{in: slices.Collect(slices.Chunk(b, 1)), pauses: true}, testLimit)
				if !got.equal(cut) {
					t.Errorf("in pieces: %q %q; as a whole: %q %q", cut.err, cut.sent, got.err, got.sent)
				}
			}
		})
	}
	// A limit below the least PUBLISH.
	if _, err := read(t, &script{in: [][]byte{frame(bin, []byte{0x30, 1, 0})}}, 0); err == nil ||
		!strings.Contains(err.Error(), "malformed PUBLISH") {
		t.Error(err)
	}
}

// A close frame is answered, and returned.
func TestReaderClosed(t *testing.T) {
	for _, tc := range []struct {
		b    []byte
		want websocket.CloseError
		sent string
	}{
		{closing, websocket.CloseError{Code: 1000, Text: "bye"}, "88 \x03\xe8\n"},
		{frame(end), websocket.CloseError{Code: 1005}, "88 \n"},
		{frame(end, []byte{0x03, 0xf5}), websocket.CloseError{Code: 1013}, "88 \x03\xf5\n"},
		{frame(end, []byte{0x0f, 0xa0}), websocket.CloseError{Code: 4000}, "88 \x0f\xa0\n"},
	} {
		got, err := read(t, &script{in: [][]byte{frame(bin, puback(1)), tc.b}}, testLimit)
		var closed *websocket.CloseError
		if !errors.As(err, &closed) || *closed != tc.want || got.sent != tc.sent || len(got.packets) != 1 {
			t.Errorf("%v, sent %q after %d packets", err, got.sent, len(got.packets))
		}
	}
}

// Pings are answered with what they hold, and no longer after a close frame.
func TestReaderPing(t *testing.T) {
	got, _ := read(t, &script{in: [][]byte{join(frame(ping), frame(ping, []byte("hello")), frame(pong))}}, testLimit)
	if got.sent != "8a \n8a hello\n" {
		t.Errorf("sent %q", got.sent)
	}
	c := &script{in: [][]byte{join(frame(ping), frame(bin, puback(1)))}}
	r := newReader(t, c, testLimit)
	r.in.answer(websocket.CloseNormalClosure, "")
	c.sent.Reset()
	if p, err := r.Next(); err != nil || c.sent.Len() > 0 {
		t.Errorf("%v, %v, sent %d bytes", p, err, c.sent.Len())
	}
}

// A large packet gets no more memory than it says, and needs no buffer while it is awaited.
func TestReaderLargeHoldsNoBuffer(t *testing.T) {
	b := frame(bin, publish(15_000, 0, 0))
	c := &script{in: [][]byte{b[:7000], b[7000:]}, pauses: true}
	r := newReader(t, c, testLimit)
	if _, err := r.Next(); !errors.Is(err, nothing{}) || r.in.buf != nil {
		t.Fatalf("%v, with a buffer: %t", err, r.in.buf != nil)
	}
	p, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if pub := p.(*packets.PublishPacket); len(pub.Payload) != 15_000 || r.in.buf != nil {
		t.Errorf("%d bytes, with a buffer: %t", len(pub.Payload), r.in.buf != nil)
	}
}

// FuzzReader reads a stream as a whole and in pieces, which makes no difference. Where it is valid, gorilla's reader
// and paho's decoder read the same.
func FuzzReader(f *testing.F) {
	for _, tc := range streams {
		if len(tc.b) < 1<<16 {
			f.Add(tc.b, []byte{1}, uint16(testLimit))
			f.Add(tc.b, []byte{0, 3, 250}, uint16(100))
		}
	}
	for _, b := range [][]byte{
		closing, frame(end), frame(text), frame(fin | 3), frame(bin|0x40, puback(1)), frame(last), {bin, 0x80, 0, 0, 0, 0},
		{bin, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, {bin, 127, 0x7f, 0xff, 0, 0, 0, 0, 0, 0, 0x30}, frame(bin, []byte{0x30, 0xff}),
		frame(bin, []byte{0x82, 3, 0, 1, 0}), join(frame(websocket.BinaryMessage, puback(1)[:2]), closing),
		frame(bin, publish(300, 1, 0)), frame(bin, publish(300, 2, 1)), frame(end, []byte{3}),
	} {
		f.Add(b, []byte{2, 0, 1}, uint16(200))
	}
	f.Fuzz(func(t *testing.T, b, cuts []byte, limit uint16) {
		whole, err := read(t, &script{in: [][]byte{b}}, int64(limit))
		c := &script{pauses: true, joined: len(cuts)%2 == 1}
		for i, rest := 0, b; len(rest) > 0; i++ {
			n := 1
			if len(cuts) > 0 {
				n = min(1+int(cuts[i%len(cuts)])*int(cuts[i%len(cuts)]), len(rest))
			}
			c.in, rest = append(c.in, rest[:n]), rest[n:]
		}
		cut, _ := read(t, c, int64(limit))
		if !whole.equal(cut) {
			t.Errorf("in pieces: %d packets, %s, %q; as a whole: %d packets, %s, %q",
				len(cut.packets), cut.err, cut.sent, len(whole.packets), whole.err, whole.sent)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // paho's decoder fails with them, too
			if want := decoded(t, others(t, b), int64(limit)); !slices.Equal(whole.packets, want) {
				t.Errorf("%d packets, want %d", len(whole.packets), len(want))
			}
		}
	})
}

// others splits into packets what gorilla reads from a stream. What is incomplete at its end is left out.
func others(t testing.TB, stream []byte) (all [][]byte) {
	t.Helper()
	ws := upgraded(t, &script{in: [][]byte{stream}})
	var b []byte
	for {
		_, r, err := ws.NextReader()
		if err != nil {
			break
		}
		p, _ := io.ReadAll(r) // what there is of the last message
		b = append(b, p...)
	}
	for len(b) > 1 {
		n, k := binary.Uvarint(b[1:])
		if k == 0 || uint64(len(b)-1-k) < n {
			break
		}
		all, b = append(all, b[:1+k+int(n)]), b[1+k+int(n):]
	}
	return all
}

// endless sends the same over and over.
type endless struct {
	script
	b  []byte
	at int
}

func (c *endless) Read(p []byte) (int, error) {
	n := copy(p, c.b[c.at:])
	c.at = (c.at + n) % len(c.b)
	return n, nil
}

func BenchmarkReader(b *testing.B) {
	for _, bm := range []struct {
		name   string
		packet []byte
	}{
		{"PUBACK", puback(7)},
		{"PUBLISH", publish(100, 1, 7)},
		{"PUBLISH of 64 KiB", publish(64<<10, 1, 7)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			c := &endless{b: bytes.Repeat(frame(bin, bm.packet), 8)}
			r := newReader(b, c, 1<<20)
			b.ReportAllocs()
			b.SetBytes(int64(len(bm.packet)))
			for b.Loop() {
				if _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestReaderAllocs: a PUBACK takes no memory, and a PUBLISH one piece.
func TestReaderAllocs(t *testing.T) {
	for _, tc := range []struct {
		packet []byte
		want   float64
	}{{puback(7), 0}, {publish(100, 1, 7), 1}, {publish(15_000, 1, 7), 1}} {
		c := &endless{b: frame(bin, tc.packet)}
		r := newReader(t, c, testLimit)
		got := testing.AllocsPerRun(500, func() {
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		})
		if got != tc.want {
			t.Errorf("%d bytes: %v allocations, want %v", len(tc.packet), got, tc.want)
		}
	}
}

// Buffered says whether there is more to come of what was read.
func TestBuffered(t *testing.T) {
	var limit atomic.Int64
	limit.Store(testLimit)
	c := &script{in: [][]byte{join(frame(bin, puback(1)), frame(bin, puback(2))), frame(bin, puback(3))}}
	r := NewReader(upgraded(t, c), &limit)
	for i, want := range []bool{true, false, false} {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if got := r.Buffered(); got != want {
			t.Errorf("after packet %d: %v", i+1, got)
		}
	}
}
