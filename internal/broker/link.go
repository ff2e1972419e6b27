package broker

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap"

	"bridged/internal/lane"
	"bridged/internal/netconn"
)

// link is one connection, from accept to its end. To mochi, which handles CONNECT, it is the net.Conn (conn.go), to the
// down lane the consumer (deliver.go).
type link struct {
	net.Conn // TLS or plain, over nc
	nc       *netconn.Conn
	b        *Broker
	remote   netip.AddrPort
	giveUp   time.Time // CONNECT must have been accepted by then

	// Written by the login's goroutine before the link enters its device, and not afterwards.
	client *mochi.Client // during login
	req    request
	device *device // nil until the login was accepted
	login  *Login  // that was accepted
	proof  proof   // what was presented
	// assigned is the client identifier for a device that presents none.
	assigned string
	session  *session // nil until the link has entered its device

	// Used by whoever reads: the login's goroutine, then Readable, then that of finish.
	deadlineSet time.Time // when the read deadline was set last
	ours        bool      // code of this package runs, as opposed to mochi's
	input       input
	detached    bool    // mochi's part is over
	corked      corker  // the lane that uncork is due to, nil for none
	held        *parked // a message that waits to be parked; nothing is read meanwhile
	left        bool    // nothing is read any more
	told        bool    // the log says why the login was refused

	out []byte // what Deliver has encoded; belongs to whoever runs the lane's reader
	// largest is the size of the largest message that was delivered.
	largest atomic.Int64

	parking parking // messages for the up lane

	closed chan struct{} // closed by end
	done   chan struct{} // closed when the link has left its device

	mu     sync.Mutex // protects the following fields; held over writes, which do not block
	cause  *ending    // set by end; nothing is written any more
	reader *lane.Reader
}

func newLink(b *Broker, c *net.TCPConn, config *tls.Config) (*link, error) {
	nc, err := netconn.New(c, netconn.Options{Limit: sendLimit, Stall: b.stall})
	if err != nil {
		return nil, err
	}
	l := &link{
		Conn:    nc,
		nc:      nc,
		b:       b,
		giveUp:  time.Now().Add(b.connectTimeout()),
		parking: parking{room: nc.Kick, memory: b.cfg.Memory},
		closed:  make(chan struct{}),
		done:    make(chan struct{}),
	}
	if addr, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		addr := addr.AddrPort()
		l.remote = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	}
	nc.OnDrain(l.drained)
	if config != nil {
		l.Conn = tls.Server(nc, config)
	}
	// It holds until login: mochi sets none before.
	if err := nc.SetReadDeadline(l.giveUp); err != nil {
		_ = nc.Close() // it has ended
		return nil, fmt.Errorf("connect timeout: %w", err)
	}
	return l, nil
}

// open takes the link through its login. From then on Readable is called, or it has ended.
func (l *link) open() {
	err := l.handshake()
	if err == nil {
		err = l.logIn()
	}
	if err != nil {
		l.finish(l.ending(err))
		return
	}
	l.nc.Attend(l)
}

// Readable implements netconn.Handler: it handles what the device has sent.
func (l *link) Readable() {
	if l.left {
		return
	}
	err := l.guard(l.read)
	if err == nil {
		return
	}
	l.left = true
	l.nc.Leave()
	go l.finish(l.ending(err)) // it waits
}

func (l *link) handshake() error {
	c, ok := l.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	if err := c.HandshakeContext(context.Background()); err != nil { // the read deadline ends it
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return nil
}

// finish says goodbye, closes the connection and leaves the device.
func (l *link) finish(e ending) {
	defer l.b.closed(l)
	l.end(e)
	if l.session != nil && l.req.version == 5 && e.code.Code >= packets.ErrUnspecifiedError.Code {
		_, _ = l.Conn.Write(l.req.disconnectPacket(e.code)) // it is closed next, whether this arrives or not
	}
	if e.flush {
		l.nc.Drain(flushWithin)
	}
	_ = l.Conn.Close() // what matters is e
	if l.session != nil {
		l.unpark()
		l.device.leave(l, e.graceful)
		l.b.log.Info("device disconnected", l.fields(zap.Bool("graceful", e.graceful), zap.NamedError("err", e.err))...)
	} else {
		l.logStray(e)
	}
	close(l.done)
	_ = l.nc.Close() // TLS may have failed to
	l.nc.Wait()
}

// end has the link ended by whoever reads. The first cause counts.
func (l *link) end(e ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return
	}
	l.cause = &e
	close(l.closed)
	_ = l.nc.SetReadDeadline(time.Unix(1, 0)) // ends reading; it fails only if the connection is closed
}

// over says whether end was called.
func (l *link) over() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// send writes whole packets. After end it does nothing.
func (l *link) send(p []byte) {
	_, _ = l.Write(p) // the reader notices
}

// drained delivers what waits, and reads again, after the device has taken what was sent.
func (l *link) drained() {
	l.nc.Kick()
	l.mu.Lock()
	r := l.reader
	l.mu.Unlock()
	if r != nil {
		r.Pump()
	}
}

func (l *link) fields(more ...zap.Field) []zap.Field {
	fields := []zap.Field{zap.Stringer("remote", l.remote)}
	if l.device != nil {
		fields = append(fields, zap.String("device", l.device.name))
	}
	return append(fields, more...)
}
