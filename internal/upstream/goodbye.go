package upstream

import (
	"io"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// goodbye is how long the last packets may take to leave, and the cloud to close the connection after them.
const goodbye = time.Second

// close ends the connection and hands what is unacknowledged back to the lane.
func (s *session) close() {
	w := s.w
	if s.reader != nil {
		s.reader.Detach(true)
	}
	w.mu.Lock()
	if w.live == s {
		w.live = nil
	}
	// An armed connection that ends without DISCONNECT has the cloud publish the will. That is what a device that dropped
	// wants. If it was the network, it was the will's only time, even if CONNACK did not come.
	graceful := s.late || s.ending.Load() && s.graceful && !s.abort
	if s.armed && !s.refused && !s.late && !s.ending.Load() && !s.yielding.Load() && w.present {
		w.willSpent = true
	}
	calls := w.subs.lost(w, s)
	w.mu.Unlock()

	w.flow.mu.Lock()
	if w.flow.live == s {
		w.flow.live = nil
		w.flow.pacer.stop()
		w.flow.in.Disconnected()
		w.flow.out.Disconnected()
	}
	if graceful && !s.closed {
		s.out = appendPacket(s.out, packets.NewControlPacket(packets.Disconnect))
	}
	w.flow.mu.Unlock()
	if graceful {
		s.flush()
		_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""),
			time.Now().Add(goodbye)) // a courtesy
		s.hangUp()
	}
	w.flow.mu.Lock()
	s.closed = true
	w.flow.mu.Unlock()
	_ = s.nc.Close() // it is over either way
	s.nc.Wait()
	call(calls)
}

// hangUp waits until the cloud has everything and closes the connection, and reads what it still sends. To close while
// something is unread resets the connection, which may overtake DISCONNECT: the cloud would publish the will.
func (s *session) hangUp() {
	until := time.Now().Add(goodbye)
	s.nc.Drain(goodbye)
	if s.nc.Pending() > 0 || s.nc.CloseWrite() != nil {
		return
	}
	_ = s.nc.SetReadDeadline(until)  // fails only on a closed connection, as reading will
	_, _ = io.Copy(io.Discard, s.nc) // whatever ends it
}
