package cloudsim

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// conn is one WebSocket connection.
type conn struct {
	cloud  *Cloud
	ws     *websocket.Conn
	secure bool
	cert   *x509.Certificate // verified client certificate, nil if none
	out    outbox

	closing sync.Once
	done    chan struct{} // closed when the connection is

	// The reading goroutine owns these; device and clientID are written once, with Cloud.mu held, before anybody else
	// learns of them.
	reader    packetReader
	keepalive time.Duration
	device    string
	clientID  string

	// Cloud.mu guards these.
	session     *session // nil before CONNACK and after the end
	ended       bool
	will        *packets.ConnectPacket // nil if none, or done with
	log         *Connection
	number      int64 // of the login
	heldAcks    []byte
	heldSubacks []byte
	unacked     map[uint16]struct{} // incoming QoS 1 that was not answered
	dropSerial  uint64
	dropCount   int
}

func newConn(c *Cloud, ws *websocket.Conn, cert *x509.Certificate) *conn {
	cn := &conn{cloud: c, ws: ws, cert: cert, done: make(chan struct{})}
	cn.reader = packetReader{r: &frameReader{ws: ws}, limit: c.opts.MaxPacket}
	return cn
}

// errEnded tells the reading goroutine that its connection was ended by somebody else.
var errEnded = errors.New("ended")

// errDisconnect and errRefused tell it to end the connection in good order.
var (
	errDisconnect = errors.New("disconnect")
	errRefused    = errors.New("refused")
)

// serve is the reading goroutine.
func (cn *conn) serve() {
	err := cn.login()
	for err == nil {
		var p packets.ControlPacket
		if p, err = cn.read(); err == nil {
			err = cn.handle(p)
		}
	}
	cn.leave(err)
}

// login reads CONNECT and answers it.
func (cn *conn) login() error {
	if err := cn.ws.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	p, err := cn.reader.next()
	if err != nil {
		return err
	}
	connect, ok := p.(*packets.ConnectPacket)
	if !ok {
		return breachf(RuleProtocol, "%s before CONNECT", packetName(p))
	}
	return cn.connect(connect)
}

// read returns the next packet that is to be handled.
func (cn *conn) read() (packets.ControlPacket, error) {
	if room := cn.out.full(); room != nil {
		select { // its client does not read: do not pile up answers
		case <-room:
		case <-cn.done:
			return nil, errEnded
		}
	}
	var deadline time.Time
	if cn.keepalive > 0 {
		deadline = time.Now().Add(cn.keepalive * 3 / 2) // MQTT 3.1.1, 3.1.2.10
	}
	if err := cn.ws.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	p, err := cn.reader.next()
	if err != nil {
		return nil, err
	}
	if !cn.hold(func(f fault) bool { return f.reads }) {
		return nil, errEnded
	}
	return p, nil
}

// hold waits while the device's fault says so. It reports false when the connection ended first.
func (cn *conn) hold(stalled func(fault) bool) bool {
	ended := false
	return cn.cloud.holdWhile(cn.done, func() bool {
		ended = cn.ended
		return !ended && stalled(cn.cloud.faults.of(cn.device))
	}) && !ended
}

// leave ends the connection after the reading goroutine met err.
func (cn *conn) leave(err error) {
	c := cn.cloud
	reason := EndClosed
	var bad *breach
	var timeout net.Error
	switch {
	case errors.As(err, &bad):
		reason = EndViolation
	case errors.Is(err, errDisconnect):
		reason = EndDisconnect
	case errors.As(err, &timeout) && timeout.Timeout():
		reason = EndKeepalive
	}
	c.mu.Lock()
	if bad != nil && !cn.ended {
		c.violationLocked(cn.device, cn.clientID, bad.rule, bad.detail)
	}
	if cn.log == nil && !cn.ended && !errors.Is(err, errRefused) {
		c.loginFailedLocked(LoginFailure{
			Device: cn.device, ClientID: cn.clientID, Secure: cn.secure, Reason: "ended before CONNACK: " + err.Error(),
		})
	}
	last := bad != nil || errors.Is(err, errRefused) || errors.Is(err, errDisconnect)
	if last = last && !cn.ended; last {
		cn.finishLocked(bad)
	}
	c.detachLocked(cn, reason)
	c.mu.Unlock()
	if last {
		cn.drain()
	}
	cn.close(CutClose)
	c.mu.Lock()
	delete(c.conns, cn)
	c.mu.Unlock()
}

// finishLocked sends a close frame after what is to be sent, and leaves the rest to drain.
func (cn *conn) finishLocked(bad *breach) {
	frame := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if bad != nil {
		frame = websocket.FormatCloseMessage(websocket.ClosePolicyViolation, string(bad.rule))
	}
	cn.finalLocked(final{frame: frame, linger: true})
}

// finalLocked has the connection end once everything is sent, or could not be for a while.
func (cn *conn) finalLocked(f final) {
	if cn.out.finish(f) {
		cn.cloud.wg.Go(cn.write)
	}
	patience := finalTimeout + cn.cloud.faults.of(cn.device).delay
	if err := cn.ws.NetConn().SetDeadline(time.Now().Add(patience)); err != nil {
		cn.close(CutClose)
	}
}

// drain reads until the client has closed or finalLocked's deadline is over, so that a reset for unread bytes does not
// overtake the last words.
func (cn *conn) drain() {
	var sink [512]byte
	for {
		if _, err := cn.ws.NetConn().Read(sink[:]); err != nil {
			return
		}
	}
}

// close cuts the connection. It may be called by anybody, any number of times.
func (cn *conn) close(how Cut) {
	cn.closing.Do(func() {
		close(cn.done)
		cn.out.close()
		socket := cn.ws.NetConn()
		if t, ok := socket.(*tls.Conn); ok {
			socket = t.NetConn() // closing the TLS layer writes, and might block
		}
		if t, ok := socket.(*net.TCPConn); ok && how == CutReset {
			_ = t.SetLinger(0)
		}
		_ = socket.Close() // there is nobody to tell
	})
}

// endLocked ends a connection: its session is offline when it returns. The caller holds c.mu.
func (c *Cloud) endLocked(cn *conn, reason EndReason, how Cut) {
	c.detachLocked(cn, reason)
	if how == CutCloseFrame {
		cn.finalLocked(final{frame: websocket.FormatCloseMessage(websocket.CloseGoingAway, "")})
		return
	}
	cn.close(how)
}

// detachLocked takes a connection off its session and publishes the will, unless the client took its leave. Of several
// reasons the first counts. The caller holds c.mu.
func (c *Cloud) detachLocked(cn *conn, reason EndReason) {
	cn.ended = true
	s := cn.session
	if s == nil {
		return
	}
	cn.session, cn.heldAcks, cn.heldSubacks = nil, nil, nil
	cn.log.End, cn.log.Reason = time.Now(), reason
	if reason == EndDisconnect {
		cn.will = nil
	}
	c.offlineLocked(s)
	if w := cn.will; w != nil {
		cn.will = nil
		c.publishWillLocked(cn, w)
	}
	c.wakeLocked()
}

func packetName(p packets.ControlPacket) string {
	switch p.(type) {
	case *packets.ConnectPacket:
		return "CONNECT"
	case *packets.PublishPacket:
		return "PUBLISH"
	case *packets.SubscribePacket:
		return "SUBSCRIBE"
	case *packets.PingreqPacket:
		return "PINGREQ"
	}
	return fmt.Sprintf("%T", p)
}
