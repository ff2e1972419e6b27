package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/gorilla/websocket"

	"bridged/internal/netconn"
)

// Class says what kind of failure ended an attempt or a session; it decides how soon the next attempt comes.
type Class string

// The classes.
const (
	ClassNetwork   Class = "network"   // DNS, TCP, a connection that ended or went silent
	ClassTLS       Class = "tls"       // a certificate or the handshake
	ClassRejected  Class = "rejected"  // the cloud refused the login
	ClassThrottled Class = "throttled" // the cloud asked to come back later
	ClassProtocol  Class = "protocol"  // the peer does not speak what it should
	ClassConfig    Class = "config"    // no login material can be made
	ClassMessage   Class = "message"   // the cloud closes the connection when it is sent a certain message
)

// Failure is why an attempt failed or a session ended.
type Failure struct {
	Class Class
	Stage State
	// Reason is a sentence for a person, without what Err says.
	Reason string
	Err    error // may be nil
	closed bool  // the other side closed or reset the connection
}

func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Reason
	}
	return f.Reason + ": " + f.Err.Error()
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// fail makes a failure of a class.
func fail(class Class, stage State, err error, format string, args ...any) *Failure {
	return &Failure{Class: class, Stage: stage, Reason: fmt.Sprintf(format, args...), Err: err}
}

// dialFailure tells apart why dialling failed. resp is what the handshake was answered with, if anything.
func dialFailure(err error, resp *http.Response) *Failure {
	if errors.Is(err, websocket.ErrBadHandshake) && resp != nil {
		return statusFailure(resp)
	}
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		alert     tls.AlertError
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
		remote    *net.OpError
	)
	switch {
	case errors.As(err, &dns):
		return fail(ClassNetwork, Dialing, err, "the cloud's name cannot be resolved")
	case errors.As(err, &authority):
		return fail(ClassTLS, Dialing, err, "the cloud's certificate is not signed by a known authority: set tls.ca_file")
	case errors.As(err, &name):
		return fail(ClassTLS, Dialing, err, "the cloud's certificate is for another name: check url, or set tls.server_name")
	case errors.As(err, &invalid), errors.As(err, &verify):
		return fail(ClassTLS, Dialing, err, "the cloud's certificate is not valid")
	case errors.As(err, &alert), errors.As(err, &remote) && remote.Op == "remote error": // crypto/tls says it like this
		return fail(ClassTLS, Dialing, err, "the cloud refused the TLS handshake: check the client certificate")
	case errors.As(err, &record):
		return fail(ClassTLS, Dialing, err, "the cloud does not speak TLS at this port: is it ws:// instead of wss://?")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fail(ClassNetwork, Dialing, err,
			"the other side closed the connection during the handshake: check the port, and ws:// or wss:// of url")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fail(ClassNetwork, Dialing, err, "no answer in time")
	}
	return fail(ClassNetwork, Dialing, err, "the cloud cannot be reached")
}

// statusFailure tells what an HTTP status in answer to the WebSocket handshake means.
func statusFailure(resp *http.Response) *Failure {
	class := ClassProtocol
	hint := "is this the cloud's MQTT over WebSocket address?"
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		class, hint = ClassRejected, "the server asks for credentials of its own, or this address may not connect"
	case http.StatusNotFound:
		hint = "check the path of url: / and /mqtt are in use"
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		class, hint = ClassThrottled, "the server is busy or asks to come back later"
	}
	return fail(class, Dialing, nil, "the WebSocket handshake was answered with HTTP %s: %s", resp.Status, hint)
}

// connackFailure tells what a CONNACK return code means (MQTT 3.1.1, 3.2.2.3).
func connackFailure(code byte) *Failure {
	switch code {
	case 1:
		return fail(ClassProtocol, Connecting, nil, "the cloud does not accept MQTT 3.1.1 (CONNACK 1)")
	case 2:
		return fail(ClassRejected, Connecting, nil, "the cloud does not accept the client id or its parameters (CONNACK 2)")
	case 3:
		return fail(ClassThrottled, Connecting, nil, "the cloud is not available now (CONNACK 3)")
	case 4:
		return fail(ClassRejected, Connecting, nil, "the cloud does not accept user name or password (CONNACK 4): "+
			"check the device's secret or password and, if the login is signed, the gateway's clock")
	case 5:
		return fail(ClassRejected, Connecting, nil, "the cloud does not authorise this device (CONNACK 5): "+
			"check that the cloud knows it under this name, that it is enabled, and its secret or password")
	}
	return fail(ClassProtocol, Connecting, nil, "the cloud refused with the unknown code %d in CONNACK", code)
}

// readFailure tells why reading from an established connection ended. nc may know a better reason than the reader.
func readFailure(stage State, err error, nc *socket) *Failure {
	var closed *websocket.CloseError
	var f *Failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(nc.Err(), netconn.ErrSlow), errors.Is(nc.Err(), os.ErrDeadlineExceeded):
		return fail(ClassNetwork, stage, nc.Err(), "the cloud stopped reading")
	case nc.is(err, os.ErrDeadlineExceeded):
		return fail(ClassNetwork, stage, err, "no answer in time")
	case errors.As(err, &closed):
		f = fail(ClassNetwork, stage, err, "the cloud closed the connection")
	default:
		f = fail(ClassNetwork, stage, err, "the connection to the cloud was lost")
	}
	f.closed = closed != nil || nc.is(err, io.EOF) || nc.is(err, syscall.ECONNRESET) ||
		errors.Is(nc.Err(), syscall.ECONNRESET) || errors.Is(nc.Err(), syscall.EPIPE)
	return f
}
