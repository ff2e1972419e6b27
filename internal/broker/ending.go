package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap"
)

// ending is why a link ended.
type ending struct {
	err      error        // for the log, nil after a plain DISCONNECT
	code     packets.Code // for an MQTT 5 device, none if below 0x80
	graceful bool         // no will is due
	flush    bool         // the device gets some time to take what was sent to it
}

var (
	goodbye  = ending{graceful: true}
	shutdown = ending{
		err: errors.New("bridged stops"), code: packets.ErrServerShuttingDown, graceful: true, flush: true,
	}
	removed = ending{
		err: errors.New("the device was removed from the configuration"), code: packets.ErrAdministrativeAction,
		graceful: true, flush: true,
	}
	newLogin = ending{
		err: errors.New("the login is not valid any more"), code: packets.ErrAdministrativeAction, flush: true,
	}
	takenOver = ending{err: errors.New("the device connected again"), code: packets.ErrSessionTakenOver}
	// stoppedByMochi has finish look at the error that mochi returns.
	stoppedByMochi = ending{}

	errKeepalive      = errors.New("nothing came for one and a half times the keepalive")
	errConnectTimeout = errors.New("no CONNECT within connect_timeout")
	errHungUp         = errors.New("the device closed the connection")
	errLeft           = errors.New("DISCONNECT asks for the will")
)

// violation ends the link because of what the device sent. Its error has mochi end its part.
func (l *link) violation(code packets.Code) error {
	l.end(ending{err: code, code: code})
	return packets.ErrRejectPacket
}

// ending finds out why the link ended. err is what reading ended with.
func (l *link) ending(err error) ending {
	l.mu.Lock()
	cause := l.cause
	l.mu.Unlock()
	if cause != nil && (cause.err != nil || cause.graceful) {
		return *cause
	}
	var code packets.Code
	unread := l.nc.Err()
	switch {
	case unread != nil && !errors.Is(unread, net.ErrClosed):
		return ending{err: unread}
	case errors.Is(err, os.ErrDeadlineExceeded) && l.session == nil:
		return ending{err: errConnectTimeout}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ending{err: errKeepalive, code: packets.ErrKeepAliveTimeout}
	case errors.As(err, &code):
		return ending{err: err, code: code}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ending{err: errHungUp}
	}
	return ending{err: err}
}

// logStray tells about a connection that ended without a login: a scanner, or a device that is set up wrong.
func (l *link) logStray(e ending) {
	const msg = "connection ended before a session began"
	if l.told || e.graceful {
		return
	}
	if l.device == nil && !errors.Is(e.err, errHungUp) {
		if ok, missed := l.b.strays.allow(l.remote.Addr().String(), time.Now()); ok {
			l.b.log.Info(msg, l.fields(zap.NamedError("err", e.err), unreported(missed))...)
			return
		}
	}
	l.b.log.Debug(msg, l.fields(zap.NamedError("err", e.err))...)
}
