package broker

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap"
)

// Guests decides about devices that are not known one by one.
type Guests interface {
	// Admit decides about a login that no device claims. It may take until ctx ends, which it does when the connection
	// or the broker does, too. The device that it names must be one of the broker's by then, with Guest set.
	Admit(ctx context.Context, l GuestLogin) Admission
}

// GuestLogin is what somebody presents.
type GuestLogin struct {
	Remote                       netip.Addr
	ClientID, Username, Password string
	// Clean says that the session ends with the connection.
	Clean bool
}

// Admission is what becomes of a login.
type Admission struct {
	// Device is the name of the device that logs in, if it may.
	Device string
	// Code says otherwise why not, as MQTT 3.1.1 has it in CONNACK (3.2.2.3): 1 to 5. 0 stands for 5.
	Code byte
	// Reason is for the log.
	Reason string
}

// admitWithin is how long a decision may take. It is longer than what devices usually wait for CONNACK.
const admitWithin = 30 * time.Second

// admit asks Guests about a login. It returns nil for one that is refused.
func (l *link) admit(username, password []byte) (*device, Admission) {
	ctx, cancel := context.WithTimeout(context.Background(), admitWithin)
	defer cancel()
	defer l.watch(cancel)()
	a := l.b.cfg.Guests.Admit(ctx, GuestLogin{
		Remote: l.remote.Addr(), ClientID: l.req.clientID, Username: string(username), Password: string(password),
		Clean: l.req.expiry == 0,
	})
	if a.Device == "" {
		return nil, a
	}
	d := l.b.device(a.Device)
	if d == nil || !d.setup().Guest {
		return nil, Admission{Code: connackUnavailable, Reason: "the device has just been removed"}
	}
	return d, a
}

// watch calls gone when the link is told to end, or the device hangs up, until the returned function is called. Nobody
// reads meanwhile.
func (l *link) watch(gone func()) (stop func()) {
	decided := make(chan struct{})
	var watching sync.WaitGroup
	l.setReadDeadline(time.Time{}) // connect_timeout is for CONNECT, which has come
	watching.Go(func() {
		if l.nc.AwaitHangUp() {
			gone()
		}
	})
	watching.Go(func() {
		select {
		case <-l.closed:
			gone()
		case <-decided:
		}
	})
	return func() {
		close(decided)
		l.setReadDeadline(time.Unix(1, 0)) // interrupts AwaitHangUp; mochi sets another one before it reads
		watching.Wait()
	}
}

// setReadDeadline sets one, unless end's holds. It fails only on a closed connection, as reading will.
func (l *link) setReadDeadline(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		_ = l.nc.SetReadDeadline(t)
	}
}

// refuseGuest answers a login that Guests does not let in.
func (l *link) refuseGuest(a Admission) error {
	code, code5 := a.Code, packets.ErrNotAuthorized
	switch code {
	case connackVersion:
		code5 = packets.ErrUnsupportedProtocolVersion
	case connackIdentifier:
		code5 = packets.ErrClientIdentifierNotValid
	case connackUnavailable:
		code5 = packets.ErrServerUnavailable
	case connackCredentials:
		code5 = packets.ErrBadUsernameOrPassword
	default:
		code = connackNotAllowed
	}
	l.logRefusedFor(a.Reason, zap.Uint8("connack", code))
	return l.refuse(code, code5)
}

// guest says that it was Guests who let the link in.
func (l *link) guest() bool { return l.login == nil }
