package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"bridged/internal/netconn"
)

const (
	dialTimeout = 20 * time.Second
	// stall is how long the cloud may take nothing of what is sent before the connection is given up.
	stall = 30 * time.Second
	// sendLimit bounds what waits for the cloud; sendReady is where the session stops taking more from its lane. Between
	// them a message of the largest size, acknowledgements and pings still fit.
	sendLimit = 32 << 20
	sendReady = 64 << 10
	// readBuffer and writeBuffer are gorilla's, in bytes; the latter come from a pool and are held only while writing.
	readBuffer  = 2048
	writeBuffer = 8192
)

var writePool sync.Pool

// dial makes the WebSocket connection that a session runs on.
func dial(ctx context.Context, u *url.URL, tlsConfig *tls.Config) (*websocket.Conn, *socket, *Failure) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var nc *socket
	d := websocket.Dialer{
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var err error
			nc, err = dialTCP(ctx, network, addr)
			if err != nil {
				return nil, err // a typed nil would not do
			}
			return nc, nil
		},
		TLSClientConfig: tlsConfig,
		Subprotocols:    []string{"mqtt"}, // MQTT 3.1.1, 6
		ReadBufferSize:  readBuffer,
		WriteBufferSize: writeBuffer,
		WriteBufferPool: &writePool,
	}
	ws, resp, err := d.DialContext(ctx, u.String(), nil)
	if resp != nil {
		_ = resp.Body.Close() // at most the beginning of an error page, in memory
	}
	if err != nil {
		if nc != nil {
			_ = nc.Close() // it failed already
			nc.Wait()
		}
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			err = errors.Join(ctx.Err(), err)
		}
		return nil, nil, dialFailure(err, resp)
	}
	return ws, nc, nil
}

// socket remembers why reading failed: gorilla passes on only what that looks like as text.
type socket struct {
	*netconn.Conn
	tcp     *net.TCPConn
	readErr atomic.Pointer[error]
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil {
		s.readErr.Store(&err)
	}
	return n, err
}

// is says whether err, or what is behind it, is a certain error.
func (s *socket) is(err, target error) bool {
	behind := s.readErr.Load()
	return errors.Is(err, target) || behind != nil && errors.Is(*behind, target)
}

func dialTCP(ctx context.Context, network, addr string) (*socket, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%s: %T is not a TCP connection", addr, c)
	}
	nc, err := netconn.New(tcp, netconn.Options{Limit: sendLimit, Stall: stall})
	if err != nil {
		return nil, err
	}
	return &socket{Conn: nc, tcp: tcp}, nil
}
