package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"bridged/internal/failure"
)

const (
	// readBuffer and writeBuffer are gorilla's, in bytes; the latter come from a pool and are held only while writing.
	// The former is kept with each connection, though only the handshake is read through it.
	readBuffer  = 256
	writeBuffer = 8192
	// maxUpgradeReply bounds the answer to the WebSocket handshake, headers and the beginning of a page.
	maxUpgradeReply = 64 << 10

	subprotocol = "mqtt" // MQTT 3.1.1, 6
)

var writePool sync.Pool

// upgrade does the WebSocket handshake. s is nil for ws.
func (a *attempt) upgrade(ctx context.Context, conn net.Conn, s *secured) (*websocket.Conn, *failure.Failure) {
	t := newTap(conn, maxUpgradeReply)
	t.upgrading = true
	ready := func(context.Context, string, string) (net.Conn, error) { return t, nil }
	dialer := websocket.Dialer{
		NetDialContext: ready, NetDialTLSContext: ready,
		Subprotocols:   []string{subprotocol},
		ReadBufferSize: readBuffer, WriteBufferSize: writeBuffer, WriteBufferPool: &writePool,
	}
	header := a.d.header.Clone()
	if host, port := address(a.url); port == defaultPorts[a.url.Scheme] {
		header["Host"] = []string{bracketed(host)} // as browsers do; some servers compare it
	}
	sent := time.Now()
	ws, resp, err := dialer.DialContext(ctx, a.url.String(), header)
	if resp != nil {
		_ = resp.Body.Close() // what there is of it is in memory
		a.date(Date{Host: a.url.Hostname(), Sent: sent, Received: t.readAt}, resp.Header, s)
		if a.trace != nil {
			a.trace.answer(resp)
		}
	}
	if err != nil {
		return nil, a.upgradeFailure(err, resp, t, s)
	}
	switch got := ws.Subprotocol(); {
	case got == "":
		// Against the standard, but seen with brokers behind front ends that drop the header. MQTT works all the same.
		a.note("the server does not say that it speaks MQTT (no Sec-WebSocket-Protocol)")
	case !strings.EqualFold(got, subprotocol):
		return nil, failure.New(failure.Subprotocol, failure.StageUpgrade, nil, "it says that it speaks %q",
			failure.Clean(got))
	}
	t.open()
	return ws, nil
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func (a *attempt) upgradeFailure(err error, resp *http.Response, t *tap, s *secured) *failure.Failure {
	if errors.Is(err, websocket.ErrBadHandshake) && resp != nil {
		return a.statusFailure(resp)
	}
	if t.readErr != nil {
		err = t.readErr
	}
	if s != nil {
		if f := s.alertFailure(err); f != nil {
			return f
		}
	}
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, net.ErrClosed):
		return failure.New(failure.NoAnswer, failure.StageUpgrade, err, "")
	case hungUp(err) && (t.read == 0 || looksLikeHTTP(t.first)):
		f := failure.New(failure.HungUp, failure.StageUpgrade, err, "")
		if s != nil {
			f.Detail = s.hint()
		}
		return f
	case looksLikeTLS(t.first):
		return failure.New(failure.NotWebSocket, failure.StageUpgrade, nil, "it speaks TLS: write wss:// in url")
	case errors.Is(err, errTooMuch):
		return failure.New(failure.NotWebSocket, failure.StageUpgrade, err, "")
	}
	return failure.New(failure.NotWebSocket, failure.StageUpgrade, nil, "it answers %s", shown(t.first))
}

// statusFailure tells what an HTTP status in answer to the WebSocket handshake means.
func (a *attempt) statusFailure(resp *http.Response) *failure.Failure {
	f := failure.New(failure.HTTPStatus(resp.StatusCode), failure.StageUpgrade, nil, "")
	f.Detail = "HTTP " + failure.Clean(resp.Status)
	f.RetryAfter = a.retryAfter(resp.Header)
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols:
		f.Kind, f.Detail = failure.NotWebSocket, "its answer to the WebSocket handshake is wrong"
	case f.Kind == failure.HTTPRedirect:
		if to := resp.Header.Get("Location"); to != "" {
			f.Detail += ", to " + withoutQuery(to)
		}
	case f.Kind == failure.HTTP401:
		if way, _, _ := strings.Cut(resp.Header.Get("Www-Authenticate"), " "); way != "" {
			f.Detail += ", by " + failure.Clean(way)
		}
	}
	return f
}

// hungUp says whether an error means that the other side ended the connection.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
}

func looksLikeHTTP(p []byte) bool { return bytes.HasPrefix(p, []byte("HTTP/")) }

// shown is the beginning of what the other side sent, for a person.
func shown(p []byte) string {
	if len(p) == 0 {
		return "nothing"
	}
	if line, _, _ := bytes.Cut(p, []byte("\n")); len(line) > 0 && printable(line) {
		return `"` + failure.Clean(string(line)) + `"`
	}
	return "with bytes that are no text"
}

func printable(p []byte) bool {
	for _, b := range p {
		if b != '\r' && b != '\t' && (b < ' ' || b > '~') {
			return false
		}
	}
	return true
}
