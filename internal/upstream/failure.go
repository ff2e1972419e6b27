package upstream

import (
	"crypto/x509"
	"errors"
	"syscall"

	"github.com/gorilla/websocket"

	"bridged/internal/clock"
	"bridged/internal/failure"
	"bridged/internal/governor"
)

// stateOf is the state in which a failure of a stage happens.
func stateOf(s failure.Stage) State {
	switch s {
	case failure.StageConfig, failure.StageClock:
		return Signing
	case failure.StageConnect:
		return Connecting
	case failure.StageSubscribe:
		return Subscribing
	case failure.StageOnline:
		return Online
	}
	return Dialing
}

// closed says whether it was the other side that ended the connection; err is what reading returned.
func closed(f *failure.Failure, err error) bool {
	var frame *websocket.CloseError
	return f.Kind == failure.ClosedByCloud || errors.As(err, &frame) && f.Kind != failure.NoAnswer || reset(f)
}

func reset(f *failure.Failure) bool {
	return errors.Is(f.Err, syscall.ECONNRESET) || errors.Is(f.Err, syscall.EPIPE)
}

// closing is how a connection ended, as far as that says something about other clients with the same identity.
func closing(f *failure.Failure) governor.Close {
	switch {
	case f.Kind == failure.TakenOver:
		return governor.Kicked
	case f.Kind == failure.ClosedByCloud:
		return governor.Closed
	case reset(f):
		return governor.Reset
	}
	return governor.Lost
}

// classOf is what decides when to try again after a failure.
func classOf(f *failure.Failure) governor.Class {
	info := f.Info()
	if info.Class == failure.ClassProxy && info.Delay == failure.DelaySlow {
		return governor.ClassProxyRefused
	}
	return governor.Class(info.Class)
}

// BlameClock finds out whether a login or a certificate was refused because the gateway's clock is plainly wrong. timed
// says that the login depends on the time.
func BlameClock(f *failure.Failure, timed bool, st clock.State) *failure.Failure {
	var invalid x509.CertificateInvalidError
	outOfTime := errors.As(f.Err, &invalid) && invalid.Reason == x509.Expired
	login := timed && f.Stage == failure.StageConnect && f.Class() == failure.ClassRejected
	if !outOfTime && !login || st.Kind != clock.Wrong {
		return f
	}
	return failure.New(failure.ClockWrong, f.Stage, errors.New(st.Reason), "%s", f.Kind.Info().Says)
}

func (w *Worker) blameClock(f *failure.Failure) *failure.Failure {
	return BlameClock(f, w.cfg.Timed, w.cfg.Clock.State())
}
