package upstream

import (
	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/wire"
)

// close ends the connection and hands what is unacknowledged back to the lane.
func (s *session) close() {
	w := s.w
	if s.reader != nil {
		s.reader.Detach(true)
	}
	w.mu.Lock()
	if w.live == s {
		w.live = nil
		w.watched.Store(nil)
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
		s.out = wire.AppendPacket(s.out, packets.NewControlPacket(packets.Disconnect))
	}
	w.flow.mu.Unlock()
	if graceful {
		s.flush()
		wire.Goodbye(s.ws, s.nc)
	}
	w.flow.mu.Lock()
	s.closed = true
	w.flow.mu.Unlock()
	_ = s.nc.Close() // it is over either way
	s.nc.Wait()
	call(calls)
}
