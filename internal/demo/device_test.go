package demo

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// bench is a device without a connection, and the faults of its books.
func bench(t *testing.T) (d *device, faults func() string) {
	t.Helper()
	add, faults := collect()
	a, _ := newAccount(Style{})
	d = &device{
		deviceSpec: fleet()[0], acct: a, up: newBook(add), down: newBook(add), upEpoch: func() int64 { return cloud1 },
		ready: make(chan struct{}), orders: make(chan int, 1), numbers: make(map[uint16]int),
	}
	return d, faults
}

func puback(id uint16) packets.ControlPacket {
	p := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	p.MessageID = id
	return p
}

func TestDeviceChecksAcknowledgements(t *testing.T) {
	for name, test := range map[string]struct {
		acks []uint16
		want string
	}{
		"in order":     {[]uint16{1, 2, 3}, ""},
		"out of order": {[]uint16{1, 3, 2}, "message 3 was acknowledged before older ones"},
		"unknown":      {[]uint16{1, 2, 3, 4}, "PUBACK 4 came for nothing that was sent"},
		"twice":        {[]uint16{1, 1, 2, 3}, "PUBACK 1 came for nothing that was sent"},
	} {
		t.Run(name, func(t *testing.T) {
			d, faults := bench(t)
			for range 3 {
				if err := d.publish(d.telemetry, numbered); err != nil {
					t.Fatal(err)
				}
			}
			for _, id := range test.acks {
				if err := d.handle(puback(id)); err != nil {
					t.Fatal(err)
				}
			}
			if faults() != test.want {
				t.Errorf("faults %q, want %q", faults(), test.want)
			}
			if got, _, _ := d.up.result(); got.acked != 3 || len(d.inFlight) != 0 || len(d.numbers) != 0 {
				t.Errorf("%+v, %d in flight", got, len(d.inFlight))
			}
		})
	}
}

// Packet identifiers in use are passed over, also when they begin anew.
func TestDevicePacketIdentifiers(t *testing.T) {
	d, _ := bench(t)
	d.numbers[65535], d.numbers[1] = 7, 8
	d.lastID = 65533
	for _, want := range []uint16{65534, 2, 3} {
		if got := d.nextIDLocked(); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
}

// A connection that is lost is made anew. What it left unacknowledged comes again with DUP, in order, and after it,
// without DUP, what was to be sent meanwhile.
func TestDeviceSendsAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	d, faults := bench(t)
	d.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { d.run(ctx) })
	defer wg.Wait()
	defer cancel()
	publish := func() {
		t.Helper()
		if err := d.publish(d.telemetry, numbered); err != nil {
			t.Fatal(err)
		}
	}

	first := accept(t, l)
	publish()
	publish()
	first.expect(1, false)
	first.expect(2, false)
	_ = first.conn.Close()
	until(t, "the device notices that its connection is lost", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.conn == nil
	})
	publish()

	second := accept(t, l)
	second.expect(1, true)
	second.expect(2, true)
	second.expect(3, false)
	for id := range uint16(3) {
		second.send(puback(second.ids[id]))
	}
	publish()
	second.expect(4, false)
	until(t, "three of four are acknowledged", func() bool {
		got, _, _ := d.up.result()
		return got.sent == 4 && got.acked == 3
	})
	d.leave()
	if faults() != "" {
		t.Error(faults())
	}
}

// peer is a bridge for one connection.
type peer struct {
	tb   testing.TB
	conn net.Conn
	ids  []uint16 // of what came
}

// accept takes a connection, the login and the subscription on it.
func accept(tb testing.TB, l net.Listener) *peer {
	tb.Helper()
	conn, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	p := &peer{tb: tb, conn: conn}
	if _, ok := p.next().(*packets.ConnectPacket); !ok {
		tb.Fatal("no CONNECT")
	}
	p.send(packets.NewControlPacket(packets.Connack))
	if _, ok := p.next().(*packets.SubscribePacket); !ok {
		tb.Fatal("no SUBSCRIBE")
	}
	return p
}

func (p *peer) send(packet packets.ControlPacket) {
	p.tb.Helper()
	if err := packet.Write(p.conn); err != nil {
		p.tb.Fatal(err)
	}
}

func (p *peer) next() packets.ControlPacket {
	p.tb.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.tb.Fatal(err)
	}
	got, err := packets.ReadPacket(p.conn)
	if err != nil {
		p.tb.Fatal(err)
	}
	return got
}

// expect takes the message with a number.
func (p *peer) expect(n int, dup bool) {
	p.tb.Helper()
	got, ok := p.next().(*packets.PublishPacket)
	if !ok || numberOf(got.Payload) != n || got.Dup != dup {
		p.tb.Fatalf("got %v, want message %d with DUP %t", got, n, dup)
	}
	p.ids = append(p.ids, got.MessageID)
}

// until waits for a condition.
func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); !cond(); <-tick.C {
		if time.Since(start) > patience {
			tb.Fatalf("%s: still not so", what)
		}
	}
}

func TestKindAndNumber(t *testing.T) {
	for payload, want := range map[string]struct {
		kind   string
		number int
	}{
		`{"n":3,"t":71.0}`: {"telemetry", 3},
		`{"n":4,"re":0}`:   {"answer", 4},
		`hello`:            {"telemetry", 0},
	} {
		if kind, n := kindOf([]byte(payload)), numberOf([]byte(payload)); kind != want.kind || n != want.number {
			t.Errorf("%s: %s %d, want %v", payload, kind, n, want)
		}
	}
}
