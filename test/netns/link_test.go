package netns

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// link leads from one namespace to another.
type link struct {
	a, b    end
	toA     direction
	toB     direction
	running sync.WaitGroup
}

// end is an interface.
type end struct {
	space  *space
	dev    string
	v4, v6 string // its addresses
	file   *os.File
}

// link makes a link that does nothing to packets.
func (n *network) link(a, b *space) *link {
	n.tb.Helper()
	n.links++
	l := &link{a: n.end(a, 1), b: n.end(b, 2)}
	l.toA = direction{from: l.b.file, to: l.a.file, queue: make(chan packet, queued), rng: seeded(n.links, 1)}
	l.toB = direction{from: l.a.file, to: l.b.file, queue: make(chan packet, queued), rng: seeded(n.links, 2)}
	for _, d := range []*direction{&l.toA, &l.toB} {
		l.running.Go(d.read)
		l.running.Go(d.write)
	}
	n.tb.Cleanup(func() {
		if err := errors.Join(l.a.file.Close(), l.b.file.Close()); err != nil {
			n.tb.Error(err)
		}
		l.running.Wait()
	})
	return l
}

func seeded(link, direction int) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(link), uint64(direction)))
}

// end makes an interface with an address of each family. There is nobody who could have the same one.
func (n *network) end(s *space, host int) end {
	n.tb.Helper()
	e := end{
		space: s, dev: fmt.Sprintf("tun%d", n.links),
		v4: fmt.Sprintf("10.77.%d.%d", n.links, host), v6: fmt.Sprintf("2001:db8:%d::%d", n.links, host),
	}
	s.do(func() {
		file, err := openTUN(e.dev)
		if err != nil {
			n.tb.Fatal(err)
		}
		e.file = file
	})
	s.ip(
		fmt.Sprintf("addr add %s/24 dev %s", e.v4, e.dev),
		fmt.Sprintf("addr add %s/64 dev %s nodad", e.v6, e.dev),
		fmt.Sprintf("link set %s up", e.dev),
	)
	return e
}

// openTUN makes an interface in the namespace of the thread that calls. It goes when the file is closed.
func openTUN(name string) (*os.File, error) {
	const device = "/dev/net/tun"
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", device, err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// set has the link hold back each packet for a time, and lose so many of a hundred, in both directions.
func (l *link) set(delay time.Duration, percent int) {
	for _, d := range []*direction{&l.toA, &l.toB} {
		d.delay.Store(int64(delay))
		d.percent.Store(int64(percent))
	}
}

// swallow has both directions swallow everything, or end that.
func (l *link) swallow(on bool) {
	l.toA.hole.Store(on)
	l.toB.hole.Store(on)
}

// cut takes both interfaces down: there is no way any more, and nobody is told.
func (l *link) cut() {
	l.a.down()
	l.b.down()
}

func (e end) down() {
	e.space.tb.Helper()
	e.space.ip(fmt.Sprintf("link set %s down", e.dev))
}

// settle waits until nothing is under way: TCP's acknowledgements may come 40 ms after what they acknowledge.
func (l *link) settle() {
	l.a.space.tb.Helper()
	const quiet = 200 * time.Millisecond
	count, since := int64(-1), time.Now()
	until(l.a.space.tb, "the link is quiet", func() bool {
		if now := l.toA.passed.Load() + l.toB.passed.Load(); now != count {
			count, since = now, time.Now()
		}
		return time.Since(since) > quiet
	}, nil)
}

// String tells how many packets there were.
func (l *link) String() string { return fmt.Sprintf("%s there, %s back", &l.toB, &l.toA) }

// queued is how many packets are under way at most. Where there is no room a packet is lost, as with any router.
const queued = 1 << 14

type packet struct {
	data []byte
	due  time.Time
}

// direction moves packets.
type direction struct {
	from, to *os.File
	queue    chan packet
	rng      *rand.Rand // read's

	delay   atomic.Int64
	percent atomic.Int64
	hole    atomic.Bool

	passed, lost, swallowed atomic.Int64
}

func (d *direction) String() string {
	return fmt.Sprintf("%d packets passed, %d lost, %d swallowed", d.passed.Load(), d.lost.Load(), d.swallowed.Load())
}

// read goes on until the file is closed.
func (d *direction) read() {
	defer close(d.queue)
	buf := make([]byte, 1<<16)
	for {
		n, err := d.from.Read(buf)
		if err != nil {
			return
		}
		switch {
		case d.hole.Load():
			d.swallowed.Add(1)
			continue
		case d.rng.Int64N(100) < d.percent.Load():
			d.lost.Add(1)
			continue
		}
		due := time.Now().Add(time.Duration(d.delay.Load()))
		select {
		case d.queue <- packet{append([]byte(nil), buf[:n]...), due}:
		default:
			d.lost.Add(1)
		}
	}
}

// write goes on until read has ended.
func (d *direction) write() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for p := range d.queue {
		if wait := time.Until(p.due); wait > 0 {
			timer.Reset(wait)
			<-timer.C
		}
		if d.hole.Load() {
			d.swallowed.Add(1)
			continue
		}
		if _, err := d.to.Write(p.data); err != nil {
			d.lost.Add(1) // an interface that is down
			continue
		}
		d.passed.Add(1)
	}
}

// The links themselves: what a test believes them to do, they do.
func TestLink(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	l := n.link(n.space("a"), n.space("b"))
	for _, addr := range []string{l.b.v4, l.b.v6} {
		if took, err := ping(l, addr); err != nil {
			t.Errorf("ping %s: %v after %s", addr, err, took)
		}
	}
	const delay = 100 * time.Millisecond
	l.set(delay, 0)
	if took, err := ping(l, l.b.v4); err != nil || took < 2*delay {
		t.Errorf("with %s each way: %v after %s", delay, err, took)
	}
	l.set(0, 100)
	if took, err := ping(l, l.b.v4); err == nil {
		t.Errorf("with nothing but losses: an answer after %s", took)
	}
	l.set(0, 0)
	l.toA.hole.Store(true)
	if took, err := ping(l, l.b.v4); err == nil {
		t.Errorf("with a hole on the way back: an answer after %s", took)
	}
	if there, back := l.toB.swallowed.Load(), l.toA.swallowed.Load(); there != 0 || back == 0 {
		t.Errorf("swallowed: %d there and %d back", there, back)
	}
	l.toA.hole.Store(false)
	if took, err := ping(l, l.b.v4); err != nil {
		t.Errorf("mended: %v after %s", err, took)
	}
	l.cut()
	if took, err := ping(l, l.b.v4); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("cut: %v after %s", err, took)
	}
}

// ping sends a datagram from a link's first end to an address of its second, and waits for it to be sent back.
func ping(l *link, to string) (took time.Duration, err error) {
	var echo net.PacketConn
	l.b.space.do(func() { echo, err = net.ListenPacket("udp", net.JoinHostPort(to, "7")) })
	if err != nil {
		return 0, err
	}
	var echoing sync.WaitGroup
	echoing.Go(func() {
		buf := make([]byte, 64)
		for {
			n, from, err := echo.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(buf[:n], from) // the other side notices
		}
	})
	defer echoing.Wait()
	defer func() { _ = echo.Close() }()
	start := time.Now()
	l.a.space.do(func() {
		var c net.Conn
		if c, err = net.Dial("udp", net.JoinHostPort(to, "7")); err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		if _, err = c.Write([]byte("ping")); err != nil {
			return
		}
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // if it fails, reading does
		_, err = c.Read(make([]byte, 64))
	})
	return time.Since(start), err
}
