package broker

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// A device that asks and does not read the answers is not read for long, and goes on when it reads. Others do not mind.
func TestAnswersThatAreNotRead(t *testing.T) {
	const unread = 1000
	r := start(t, options{broker: func(b *Broker) {
		b.unread = unread
		raw, err := b.listeners[0].acceptor.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { // connections inherit it
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}}, plain("dev"), plain("other"))
	conn, err := net.Dial("tcp", r.addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.(*net.TCPConn).SetWriteBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(encode(t, connectPacket(4, "dev"))); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	stop, wrote := make(chan struct{}), make(chan int, 1)
	go func() {
		pings, sent := bytes.Repeat([]byte{0xc0, 0}, 1<<10), 0
		for {
			n, err := conn.Write(pings)
			sent += n
			select {
			case <-stop:
				wrote <- sent
				return
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	until(t, "the device is there", func() bool { return r.present("dev") })
	l := r.link("dev")
	until(t, "much waits for the device", func() bool { return l.nc.Pending() > unread })
	if n := l.nc.Pending(); n > unread+2*maxPackets*len(pingresp) {
		t.Errorf("%d bytes wait for the device", n)
	}
	other, _ := r.connect(4, "other")
	other.quiet()

	got := new(counter)
	go func() { _, _ = io.Copy(got, conn) }() // until it is closed
	close(stop)
	want := int64(<-wrote + 4) // and CONNACK; pings and their answers have the same size
	until(t, "all answers", func() bool { return got.n.Load() >= want })
	if n := got.n.Load(); n != want {
		t.Errorf("%d bytes of answers, want %d", n, want)
	}
}

type counter struct{ n atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
