package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// halting reads one byte at a time, and has nothing to read before each.
type halting struct {
	net.Conn
	on, ready bool
}

func (h *halting) Read(p []byte) (int, error) {
	if !h.on {
		return h.Conn.Read(p)
	}
	if h.ready = !h.ready; h.ready {
		return 0, nothing{}
	}
	return h.Conn.Read(p[:1])
}

// What somebody else's server sends over TLS is read the same if each byte of its records has to be awaited.
func TestReaderOverTLS(t *testing.T) {
	want := [][]byte{connack, suback, publish(300, 1, 3), puback(4), publish(5000, 2, 5), pingresp}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{WriteBufferSize: 128}).Upgrade(w, r, nil) // which is the size of its fragments
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.Close()
		for _, b := range want {
			out, err := ws.NextWriter(websocket.BinaryMessage)
			if err == nil {
				_, err = out.Write(b[:len(b)/2])
			}
			if err == nil {
				err = ws.WriteControl(websocket.PingMessage, []byte("hello"), time.Now().Add(time.Minute))
			}
			if err == nil {
				_, err = out.Write(b[len(b)/2:])
			}
			if err != nil || out.Close() != nil {
				t.Errorf("write: %v", err)
				return
			}
		}
		bye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "bye")
		_ = ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Minute)) // the test notices
		_, _, _ = ws.ReadMessage()                                                    // until the client has answered
	}))
	defer server.Close()

	var under *halting
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		under = &halting{Conn: c}
		conf := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		conf.ServerName, conf.NextProtos = "example.com", nil
		return tls.Client(under, conf), nil
	}
	ws, resp, err := (&websocket.Dialer{NetDialTLSContext: dial, ReadBufferSize: 256}).DialContext(t.Context(),
		"wss"+server.URL[len("https"):], http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // empty
	defer ws.Close()
	under.on = true

	limit := new(atomic.Int64)
	limit.Store(testLimit)
	r := NewReader(ws, limit)
	var got []string
	halts := 0
	for {
		p, err := r.Next()
		if errors.Is(err, nothing{}) {
			halts++
			continue
		}
		if err != nil {
			var closed *websocket.CloseError
			if !errors.As(err, &closed) || closed.Code != websocket.CloseGoingAway || closed.Text != "bye" {
				t.Error(err)
			}
			break
		}
		got = append(got, shown(p))
	}
	if !slices.Equal(got, decoded(t, want, testLimit)) || halts < 5000 {
		t.Errorf("%d packets after %d halts", len(got), halts)
	}
}
