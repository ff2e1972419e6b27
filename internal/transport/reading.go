package transport

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/gorilla/websocket"

	"bridged/internal/failure"
	"bridged/internal/netconn"
)

// ReadFailure tells why reading from a connection ended that Dial made. err is what reading returned; nc may know a
// better reason.
func ReadFailure(stage failure.Stage, err error, nc *netconn.Conn) *failure.Failure {
	var f *failure.Failure
	if errors.As(err, &f) {
		return f
	}
	var closed *websocket.CloseError
	alert, alerted := remoteAlert(err)
	switch cause := nc.Err(); {
	case errors.Is(cause, netconn.ErrSlow):
		return failure.New(failure.SlowReader, stage, cause, "")
	case alerted:
		// With TLS 1.3 a client learns what the server thinks of its certificate when it reads for the first time.
		f := (&secured{asked: true, shown: alert != alertCertRequired}).alertFailure(err)
		if f.Kind == failure.TLSHandshake { // that was long ago
			f.Kind = failure.ProtocolError
		}
		f.Stage = stage
		return f
	case errors.As(err, &closed):
		return closedByCloud(stage, closed)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return failure.New(failure.NoAnswer, stage, err, "")
	case errors.Is(err, syscall.ETIMEDOUT): // TCP keepalive, or what was sent was not acknowledged
		return failure.New(failure.KeepaliveLost, stage, err, "")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return failure.New(failure.ConnectionLost, stage, err, "")
	case hungUp(err):
		return failure.New(failure.ClosedByCloud, stage, nil, "without a word")
	case cause != nil && errors.Is(err, net.ErrClosed): // writing failed first
		return failure.New(failure.ConnectionLost, stage, cause, "")
	}
	var network net.Error
	if errors.As(err, &network) {
		return failure.New(connectionKind(err), stage, err, "")
	}
	return failure.New(failure.ProtocolError, stage, err, "") // what TLS says about records
}

// connectionKind is for errors of an established connection.
func connectionKind(err error) failure.Kind {
	if k := connectKind(err); k == failure.Unreachable {
		return k
	}
	return failure.ConnectionLost
}

// closedByCloud tells what a WebSocket close frame says (RFC 6455, 7.4.1).
func closedByCloud(stage failure.Stage, c *websocket.CloseError) *failure.Failure {
	kind, says := failure.ClosedByCloud, fmt.Sprintf("WebSocket close code %d", c.Code)
	switch c.Code {
	case websocket.CloseTryAgainLater:
		kind = failure.CloudBusy
	case websocket.CloseProtocolError, websocket.CloseUnsupportedData, websocket.CloseInvalidFramePayloadData:
		kind = failure.ProtocolError
	}
	if c.Text != "" {
		says += " (" + failure.Clean(c.Text) + ")"
	}
	f := failure.New(kind, stage, nil, "")
	f.Detail = says
	return f
}
