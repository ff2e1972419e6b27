package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
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
func dial(ctx context.Context, u *url.URL, tlsConfig *tls.Config) (*websocket.Conn, *netconn.Conn, *Failure) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var nc *netconn.Conn
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

func dialTCP(ctx context.Context, network, addr string) (*netconn.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%s: %T is not a TCP connection", addr, c)
	}
	return netconn.New(tcp, netconn.Options{Limit: sendLimit, Stall: stall})
}
