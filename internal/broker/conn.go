package broker

import (
	"net"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// These methods are what mochi calls on the link as its net.Conn.

// Write sends whole packets.
//
// mochi sends DISCONNECT to MQTT 3 devices too, and CONNACK with codes that only MQTT 5 knows. Both are held back: MQTT
// 3.1.1 has no DISCONNECT from the server, and has a malformed CONNECT end the connection without an answer (3.1.4-1).
func (l *link) Write(p []byte) (int, error) {
	if l.req.version != 5 {
		kind := p[0] >> 4
		if kind == packets.Disconnect || kind == packets.Connack && p[3] >= packets.ErrUnspecifiedError.Code {
			return len(p), nil
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return 0, net.ErrClosed
	}
	return l.Conn.Write(p)
}

// SetDeadline is called by mochi before it reads a packet. The time it asks for is not used: it overflows for a keepalive
// above 43690 s, and has to be ignored before login, where the connect timeout holds. The deadline is one and a half times
// the keepalive (MQTT 3.1.1, 3.1.2-24), a little later, so that it need not be set for each packet.
func (l *link) SetDeadline(time.Time) error {
	if l.session == nil {
		return nil
	}
	now, keepalive := time.Now(), l.req.keepalive
	slack := keepalive / 8
	if !l.deadlineSet.IsZero() && (keepalive == 0 || now.Sub(l.deadlineSet) <= slack) {
		return nil
	}
	var deadline time.Time // none
	if keepalive > 0 {
		deadline = now.Add(keepalive + keepalive/2 + slack)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return net.ErrClosed // end's deadline holds
	}
	l.deadlineSet = now
	return l.nc.SetReadDeadline(deadline)
}

// Close has the link end. The connection is closed by finish, which may have something to say before.
func (l *link) Close() error {
	l.end(stoppedByMochi)
	return nil
}
