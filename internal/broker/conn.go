package broker

import (
	"net"
	"time"
)

// These methods are what mochi calls on the link as its net.Conn.

// Write sends whole packets.
func (l *link) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return 0, net.ErrClosed
	}
	return l.Conn.Write(p)
}

// SetDeadline is called by mochi after login, and before a packet is awaited. The time that mochi asks for is not used,
// since that overflows for a keepalive above 43690 s. The deadline is one and a half times the keepalive (MQTT 3.1.1,
// 3.1.2-24), a little later, so that it need not be set for each packet.
func (l *link) SetDeadline(time.Time) error {
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

// Close has the link end, unless only mochi's part has. The connection is closed by finish, which may have something to
// say before.
func (l *link) Close() error {
	if !l.detached {
		l.end(stoppedByMochi)
	}
	return nil
}
