package upstream

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"

	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
	"bridged/internal/wire"
)

// serveMQTT serves WebSocket connections, one at a time, by a script. It returns their address; the test waits for the
// scripts to end.
func serveMQTT(t *testing.T, script func(ws *websocket.Conn)) string {
	t.Helper()
	upgrader := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	var scripts sync.WaitGroup
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("upgrade: %v", err)
			return
		}
		scripts.Go(func() {
			defer func() { _ = ws.Close() }()
			script(ws)
		})
	}))
	t.Cleanup(func() { srv.Close(); scripts.Wait() })
	return "ws://" + srv.Listener.Addr().String()
}

// accept takes CONNECT and answers it.
func accept(ws *websocket.Conn) error {
	if _, _, err := ws.ReadMessage(); err != nil {
		return err
	}
	return ws.WriteMessage(websocket.BinaryMessage, []byte{packets.Connack << 4, 2, 0, 0})
}

// A session that ends in order tells the cloud so, whatever the cloud is sending at that time. To close a connection
// with something unread resets it, and the cloud may never see DISCONNECT.
func TestDisconnectArrives(t *testing.T) {
	idle := make(chan struct{})
	type end struct {
		packets [][]byte
		closed  error // how the WebSocket ended
		raw     error // how the TCP connection did
	}
	ended := make(chan end, 1)
	cfg := base(serveMQTT(t, func(ws *websocket.Conn) {
		if err := accept(ws); err != nil {
			t.Error(err)
		}
		for i := range 3000 {
			b := wire.AppendPublish(nil, "down", make([]byte, 100), 1, false, false, uint16(i+1))
			if err := ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
				t.Error(err)
			}
		}
		<-idle // it reads late
		var e end
		for e.closed == nil {
			var b []byte
			if _, b, e.closed = ws.ReadMessage(); e.closed == nil {
				e.packets = append(e.packets, b)
			}
		}
		_, e.raw = ws.NetConn().Read(make([]byte, 1))
		ended <- e
	}))
	cfg.Down = lane.New(lane.Config{Hold: true, MaxMessages: 1})
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	until(t, "the cloud's messages to wait", func() bool {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		return r.w.live != nil && r.w.live.waiting.Load()
	})
	began := time.Now()
	r.w.Disconnected(true, 0)
	r.inState(Idle)
	if took := time.Since(began); took < wire.GoodbyeTimeout/2 || took > wire.GoodbyeTimeout+patience/2 {
		t.Errorf("ended after %s with a cloud that does not close the connection, want %s", took, wire.GoodbyeTimeout)
	}
	close(idle)
	e := <-ended
	if n := len(e.packets); n == 0 || e.packets[n-1][0] != packets.Disconnect<<4 {
		t.Errorf("no DISCONNECT: %x", e.packets)
	}
	if !websocket.IsCloseError(e.closed, websocket.CloseNormalClosure) {
		t.Errorf("the WebSocket ended with %v", e.closed)
	}
	if !errors.Is(e.raw, io.EOF) {
		t.Errorf("the connection ended with %v", e.raw)
	}
}

// A cloud that closes the connection, because of DISCONNECT or because nothing more comes, does not hold up the end of
// the session.
func TestGoodbyeIsQuick(t *testing.T) {
	for name, wait := range map[string]func(ws *websocket.Conn){
		"DISCONNECT":      func(ws *websocket.Conn) { _, _, _ = ws.ReadMessage() },
		"end of the data": func(ws *websocket.Conn) { _, _ = io.Copy(io.Discard, ws.NetConn()) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := base(serveMQTT(t, func(ws *websocket.Conn) {
				if err := accept(ws); err != nil {
					t.Error(err)
				}
				wait(ws)
			}))
			r := start(t, cfg)
			r.w.Connected(mqtt.Connect{Clean: true})
			r.inState(Online)
			began := time.Now()
			r.w.Disconnected(true, 0)
			r.inState(Idle)
			if took := time.Since(began); took > wire.GoodbyeTimeout*4/5 {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// A cloud that is slow to answer CONNECT may have taken the will: DISCONNECT takes it back.
func TestDisconnectWithoutConnack(t *testing.T) {
	got := make(chan byte, 10)
	cfg := base(serveMQTT(t, func(ws *websocket.Conn) {
		for {
			_, b, err := ws.ReadMessage()
			if err != nil {
				close(got)
				return
			}
			got <- b[0]
		}
	}))
	cfg.Retry = governor.NewRetries(once)()
	r := start(t, cfg)
	r.w.Connected(willConnect(true))
	r.inState(Connecting)
	<-got
	r.w.mu.Lock()
	s := r.w.live
	r.w.mu.Unlock()
	until(t, "the deadline to be set", func() bool {
		_ = s.nc.SetReadDeadline(time.Now()) // as if it had passed
		return r.w.Status().Last != nil
	})
	if b, ok := <-got; !ok || b != packets.Disconnect<<4 {
		t.Errorf("got a packet %x, %v; want DISCONNECT", b, ok)
	}
	if f := r.failure(); f.Stage != failure.StageConnect || f.Kind != failure.NoAnswer {
		t.Errorf("failure %+v", f)
	}
	r.w.Disconnected(false, 0) // the cloud has not published the will
	if n := r.up.Counters().Accepted; n != 1 {
		t.Errorf("%d wills in the lane", n)
	}
}
