package transport

import (
	"bytes"
	"errors"
	"net"
	"time"
)

// tap stands between two layers of a connection during a handshake: it bounds what the other side may send, and keeps
// what is needed to tell why a handshake failed, for parsers and gorilla hide that. Before it is open one goroutine
// uses it. Then it only passes on.
type tap struct {
	net.Conn
	rest []byte // what was read ahead, to be read first

	opened  bool
	limit   int
	read    int
	readAt  time.Time // of the first byte
	first   []byte    // the first bytes that were read
	alerted byte      // the TLS alert that we sent, 0 if none

	readErr error // why reading ended, nil if it did not

	// upgrading: what follows the header of a reply that accepts a WebSocket handshake is to stay in rest, since gorilla
	// would keep it. line is how many bytes the present line of the header has.
	upgrading bool
	line      int
}

// firstBytes is how much of an answer is kept to show it.
const firstBytes = 64

var errTooMuch = errors.New("the answer does not end")

// newTap lets no more than limit bytes be read until it is opened.
func newTap(c net.Conn, limit int) *tap { return &tap{Conn: c, limit: limit} }

// open ends the handshake.
func (t *tap) open() { t.opened, t.first = true, nil }

func (t *tap) Read(p []byte) (int, error) {
	switch {
	case len(t.rest) > 0:
		n := copy(p, t.rest)
		if t.rest = t.rest[n:]; len(t.rest) == 0 {
			t.rest = nil
		}
		return n, nil
	case t.opened:
		return t.Conn.Read(p)
	case t.read >= t.limit:
		t.readErr = errTooMuch
		return 0, errTooMuch
	}
	n, err := t.Conn.Read(p[:min(len(p), t.limit-t.read)])
	t.note(p[:n])
	if t.upgrading {
		if end := t.headerEnd(p[:n]); end < n {
			t.rest = bytes.Clone(p[end:n])
			return end, nil
		}
	}
	if err != nil {
		t.readErr = err
	}
	return n, err
}

// headerEnd is where the header ends in p, the next piece of a reply, len(p) if it does not or the reply is another.
func (t *tap) headerEnd(p []byte) int {
	if !accepts(t.first) {
		return len(p)
	}
	for i, b := range p {
		switch {
		case b == '\n' && t.line == 0:
			t.upgrading = false
			return i + 1
		case b == '\n':
			t.line = 0
		case b != '\r':
			t.line++
		}
	}
	return len(p)
}

// accepts says whether a reply begins like one that accepts a WebSocket handshake.
func accepts(p []byte) bool {
	const version, status = len("HTTP/1.1"), " 101"
	return looksLikeHTTP(p) && len(p) >= version+len(status) && string(p[version:version+len(status)]) == status
}

func (t *tap) note(p []byte) {
	if len(p) == 0 {
		return
	}
	if t.read == 0 {
		t.readAt = time.Now()
	}
	t.read += len(p)
	t.first = append(t.first, p[:min(len(p), firstBytes-len(t.first))]...)
}

// A TLS alert before encryption begins: type, version, length 2, level, description (RFC 8446, 5.1 and 6).
const alertRecord = 21

func isAlert(p []byte) bool {
	return len(p) >= 7 && p[0] == alertRecord && p[1] == 3 && bytes.Equal(p[3:5], []byte{0, 2})
}

func (t *tap) Write(p []byte) (int, error) {
	if !t.opened && isAlert(p) {
		t.alerted = p[6]
	}
	return t.Conn.Write(p)
}
