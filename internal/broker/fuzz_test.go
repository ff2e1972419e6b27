package broker

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// FuzzPackets sends what it likes after a login: the connection may end, the broker and its ledgers may not suffer.
func FuzzPackets(f *testing.F) {
	for _, v := range []byte{3, 4, 5} {
		f.Add(v, encode(f, &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 2},
			ProtocolVersion: v, TopicName: "t", Payload: []byte("m"), PacketID: 1,
			Properties: packets.Properties{MessageExpiryInterval: 3, User: []packets.UserProperty{{Key: "k", Val: "v"}}}}))
		f.Add(v, encode(f, &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1},
			ProtocolVersion: v, PacketID: 1, Filters: packets.Subscriptions{{Filter: "a/#", Qos: 1}}}))
		f.Add(v, encode(f, &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1},
			ProtocolVersion: v, PacketID: 1, Filters: packets.Subscriptions{{Filter: "a/#"}}}))
		for kind := packets.Puback; kind <= packets.Pubcomp; kind++ {
			f.Add(v, encode(f, &packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, ProtocolVersion: v, PacketID: 1}))
		}
		f.Add(v, []byte{0xc0, 0, 0xe0, 0})
		f.Add(v, []byte{0xe0, 7, 0, 5, 17, 0, 0, 0, 9})
	}
	f.Add(byte(5), []byte{0x82, 6, 0, 1, 0, 0, 1, 'a'})
	r, cl := one(f)
	f.Fuzz(func(t *testing.T, version byte, p []byte) {
		version = 3 + version%3
		n := len(cl.log())
		conn, err := net.Dial("tcp", r.addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		pk := connectPacket(version, "dev")
		pk.Connect.Keepalive = 1
		if _, err := conn.Write(append(encode(t, pk), p...)); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() { //nolint:errorlint // it is what a connection returns
				t.Fatal("the broker does not close the connection")
			}
		}
		until(t, "the device has left", func() bool { return len(cl.log()) >= n+2 && !r.present("dev") })
		if events := cl.log()[n:]; events[0] != "connected" || events[1] == "connected" || len(events) != 2 {
			t.Fatalf("events %q", events)
		}
		cl.balanced(t)
	})
}

// FuzzConnect sends what it likes as the first packet.
func FuzzConnect(f *testing.F) {
	for _, v := range []byte{3, 4, 5} {
		pk := connectPacket(v, "dev")
		f.Add(encode(f, pk))
		lastWill("w", "m", 1)(pk)
		credentials("u", "p")(pk)
		f.Add(encode(f, pk))
	}
	r, cl := one(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		conn, err := net.Dial("tcp", r.addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, conn) // until it is closed
		until(t, "the connection is gone", func() bool { return r.b.Counters().Connections == 0 })
		if events := cl.log(); len(events)%2 != 0 {
			t.Fatalf("events %q", events)
		}
	})
}
