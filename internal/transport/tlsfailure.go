package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"reflect"
	"time"

	"bridged/internal/failure"
)

// TLS alerts (RFC 8446, 6; RFC 5246, 7.2).
const (
	alertHandshakeFailure = 40
	alertBadCertificate   = 42
	alertUnknownCert      = 46
	alertUnknownCA        = 48
	alertAccessDenied     = 49
	alertProtocolVersion  = 70
	alertCertRequired     = 116
)

// remoteAlert is the alert that the other side sent, if err is about one. crypto/tls keeps its type to itself, but not
// that it is a number.
func remoteAlert(err error) (code byte, ok bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return 0, false
	}
	if v := reflect.ValueOf(op.Err); v.Kind() == reflect.Uint8 {
		return byte(v.Uint()), true
	}
	return 0, false
}

// failure tells why a handshake failed.
func (s *secured) failure(err error, t *tap, now time.Time) *failure.Failure {
	make := func(kind failure.Kind, detail string) *failure.Failure {
		f := failure.New(kind, failure.StageTLS, err, "")
		f.Detail = detail
		return f
	}
	if f := s.alertFailure(err); f != nil {
		return f
	}
	if kind, ok := certificateKind(err, now); ok {
		return make(kind, "")
	}
	var record tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.As(err, &record) && !looksLikeTLS(t.first):
		f := make(failure.TLSNotTLS, "it answers "+shown(t.first))
		f.Err = nil // it says the same
		return f
	case t.alerted == alertProtocolVersion:
		return make(failure.TLSVersion, "")
	case errors.As(err, &timeout) && timeout.Timeout():
		return make(failure.NoAnswer, "")
	case hungUp(err) && s.asked && !s.shown: // the reset has overtaken the alert
		return make(failure.TLSClientCertRequired, "")
	case hungUp(err):
		return make(failure.HungUp, s.hint())
	}
	return make(failure.TLSHandshake, "")
}

// hint is for a connection that ended without an alert.
func (s *secured) hint() string {
	switch {
	case s.shown:
		return "after the client certificate was shown"
	case s.asked:
		return "after it asked for a client certificate, which this device does not have"
	}
	return ""
}

// alertFailure tells what the server's alert means, nil if err is not about one. About a client certificate it may come
// after the handshake (TLS 1.3: RFC 8446, 4.4.2.4 and 4.4.3).
func (s *secured) alertFailure(err error) *failure.Failure {
	code, ok := remoteAlert(err)
	if !ok {
		return nil
	}
	kind := failure.TLSHandshake
	switch about := code >= alertBadCertificate && code <= alertUnknownCert || code == alertUnknownCA ||
		code == alertAccessDenied; {
	case code == alertCertRequired:
		kind = failure.TLSClientCertRequired
	case code == alertProtocolVersion:
		kind = failure.TLSVersion
	case about && s.shown, code == alertHandshakeFailure && s.shown:
		kind = failure.TLSClientCertRefused
	case about && s.asked, code == alertHandshakeFailure && s.asked: // how TLS 1.2 says that one is required
		kind = failure.TLSClientCertRequired
	}
	if kind == failure.TLSClientCertRequired && s.shown {
		kind = failure.TLSClientCertRefused
	}
	return failure.New(kind, failure.StageTLS, err, "")
}

// certificateKind tells what is wrong with the server's certificate, if that is what err is about.
func certificateKind(err error, now time.Time) (failure.Kind, bool) {
	var (
		pin       *pinError
		authority x509.UnknownAuthorityError
		roots     x509.SystemRootsError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		refused   *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &pin):
		return failure.TLSPinMismatch, true
	case errors.As(err, &authority), errors.As(err, &roots):
		return failure.TLSUnknownAuthority, true
	case errors.As(err, &name):
		return failure.TLSWrongName, true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore):
		return failure.TLSNotYetValid, true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return failure.TLSExpired, true
	case errors.As(err, &refused):
		return failure.TLSBadCertificate, true
	}
	return "", false
}

// asProxy turns a failure of the handshake with the cloud into one with the proxy.
func asProxy(f *failure.Failure) *failure.Failure {
	kind := failure.ProxyTLS
	if f.Kind == failure.NoAnswer {
		kind = failure.ProxyNoAnswer
	}
	out := failure.New(kind, failure.StageProxy, f.Err, "")
	out.Detail = f.Detail
	return out
}

func looksLikeTLS(p []byte) bool { return len(p) >= 2 && p[0] >= 20 && p[0] <= 24 && p[1] == 3 }
