package broker

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/lane"
	"bridged/internal/netconn"
)

// pieces is read in pieces, with nothing to read in between.
type pieces struct {
	rest []byte
	rand *rand.Rand // nil: as much as fits
	dry  bool
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := min(len(b), len(p.rest))
	if p.rand != nil {
		if p.dry = !p.dry; p.dry {
			return 0, netconn.ErrWouldBlock
		}
		n = 1 + p.rand.IntN(n)
	}
	n = copy(b, p.rest[:n])
	p.rest = p.rest[n:]
	return n, nil
}

// all returns the packets of a stream, and what it ends with.
func all(p *pieces, limit int) (found [][]byte, err error) {
	var in input
	for {
		for {
			_, size, err := in.packet(limit)
			if err != nil {
				return found, err
			}
			if size == 0 {
				break
			}
			found = append(found, bytes.Clone(in.rest[:size]))
			in.used(size)
		}
		if len(in.rest) == 0 && in.buf != nil {
			return found, errors.New("it holds a buffer for nothing")
		}
		if err := in.fill(p); err != nil && !errors.Is(err, netconn.ErrWouldBlock) {
			return found, err
		}
	}
}

// FuzzInput finds the same packets however a stream is cut.
func FuzzInput(f *testing.F) {
	ping := []byte{0xc0, 0}
	large := encode(f, &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, ProtocolVersion: 4,
		TopicName: "t", Payload: make([]byte, 3*inputSize)})
	for _, stream := range [][]byte{
		ping, slices.Concat(ping, large, ping), large[:len(large)-1], slices.Repeat(ping, inputSize),
		{0x30}, {0x30, 0x80}, {0x30, 0x80, 0x80, 0x80, 0x80, 0x01}, {0x30, 0xff, 0xff, 0xff, 0x7f}, {0xff, 0},
	} {
		f.Add(stream, uint64(1))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		const limit = 4 * inputSize
		want, wantErr := all(&pieces{rest: stream}, limit)
		got, gotErr := all(&pieces{rest: stream, rand: rand.New(rand.NewPCG(seed, 0))}, limit)
		if !slices.EqualFunc(got, want, bytes.Equal) || !errors.Is(gotErr, wantErr) {
			t.Errorf("in pieces %d packets and %v, as a whole %d and %v", len(got), gotErr, len(want), wantErr)
		}
		if errors.Is(wantErr, io.EOF) && !bytes.Equal(bytes.Join(want, nil), stream) {
			t.Error("something is missing")
		}
	})
}

// sink takes what is written.
type sink struct {
	net.Conn
	bytes int
}

func (s *sink) Write(p []byte) (int, error) {
	s.bytes += len(p)
	return len(p), nil
}

// However much of a device's is at hand, others have their turn after so many packets.
func TestHandlesPacketsInTurns(t *testing.T) {
	const before, n = 10, 3 * maxPackets
	up, down, out := lane.New(lane.Config{}), lane.New(lane.Config{}), &sink{}
	d := &device{}
	d.cfg.Store(&Device{Up: up})
	l := &link{Conn: out, b: &Broker{cfg: Config{MaxPacketSize: 10}}, device: d, deadlineSet: time.Now()}
	l.reader = down.Attach(l, lane.Window{})
	l.input.buf = bytes.Repeat([]byte{0xc0, 0}, n)
	l.input.rest = l.input.buf
	for done, turn := 0, 0; done < n; turn++ {
		handled := before * (1 - min(turn, 1)) // in the first turn
		got, err := l.handleInput(handled)
		if want := min(maxPackets-handled, n-done); err != nil || got != want {
			t.Fatalf("handled %d packets, %v, want %d", got, err, want)
		}
		l.uncork()
		done += got
	}
	if out.bytes != n*len(pingresp) {
		t.Errorf("answered %d bytes", out.bytes)
	}
}

// What is left for the next turn is not forgotten, though nothing more is to be read.
func TestManyPacketsAtOnce(t *testing.T) {
	r, cl := one(t)
	c, _ := r.connect(4, "dev")
	ping := encode(t, &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	large := encode(t, &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, ProtocolVersion: 4,
		TopicName: "t", Payload: make([]byte, 200<<10)})
	const n = 20 * maxPackets
	go func() { _, _ = c.conn.Write(append(large, bytes.Repeat(ping, n)...)) }() // reading shows whether it went well
	for range n {
		c.expect(packets.Pingresp)
	}
	cl.receive(1)
}
