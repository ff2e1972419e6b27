package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"

	"bridged/internal/config"
	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/mqtt"
	"bridged/internal/netconn"
	"bridged/internal/transport"
	"bridged/internal/wire"
)

const (
	// maxPacket is the largest one to read as a whole. Larger messages are only counted.
	maxPacket = 1 << 20
	// firstID is the first packet identifier; a worker's are smaller.
	firstID = 65000
	// keepalive is the least one. Nothing is sent while an answer is awaited.
	keepalive = time.Minute
)

// session is a connection to the cloud.
type session struct {
	ws     *websocket.Conn
	nc     *netconn.Conn
	rd     *wire.Reader
	nextID uint16
	patience
	Session
}

func newSession(ws *websocket.Conn, nc *netconn.Conn, p patience) *session {
	limit := new(atomic.Int64)
	limit.Store(maxPacket)
	return &session{ws: ws, nc: nc, rd: wire.NewReader(ws, limit), nextID: firstID, patience: p}
}

// abort ends the connection from another goroutine.
func (s *session) abort() { _ = s.nc.Close() } // whoever reads notices

func (s *session) close() {
	_ = s.nc.Close() // it is over either way
	s.nc.Wait()
}

func (s *session) send(p packets.ControlPacket) error {
	return s.ws.WriteMessage(websocket.BinaryMessage, wire.AppendPacket(nil, p))
}

// connect logs in.
func (s *session) connect(login credentials.Login, cloud *config.Cloud, clean bool) *failure.Failure {
	p := wire.Connect(login, min(max(cloud.Keepalive, keepalive), cloud.Limits.KeepaliveMax), clean)
	if err := s.send(p); err != nil {
		return s.lost(failure.StageConnect, err)
	}
	present, _, f := s.rd.Connack(s.nc, s.connack)
	s.Present = present && !clean
	return f
}

// lost is why the connection ended.
func (s *session) lost(stage failure.Stage, err error) *failure.Failure {
	f := transport.ReadFailure(stage, err, s.nc)
	f.Stage = stage // the reader does not know
	return f
}

// await reads until the packet comes that is meant. What the cloud sends meanwhile is counted, and not acknowledged.
func (s *session) await(stage failure.Stage, meant func(packets.ControlPacket) bool) *failure.Failure {
	_ = s.nc.SetReadDeadline(time.Now().Add(s.others)) // fails only on a closed connection, as reading will
	for {
		p, err := s.rd.Next()
		if err != nil {
			return s.lost(stage, err)
		}
		var qos byte
		switch p := p.(type) {
		case *packets.PublishPacket:
			qos = p.Qos
		case *wire.Oversize:
			qos = p.Qos
		default:
			if meant(p) {
				return nil
			}
			continue
		}
		if qos > 0 {
			s.Kept++
		} else {
			s.Lost++
		}
	}
}

func (s *session) id() uint16 {
	s.nextID++
	return s.nextID
}

// talk goes through the stages of MQTT.
func (w *walk) talk(ctx context.Context, s *session, lease *governor.Lease) {
	if !w.step(ctx, Connect, func(st *Step) *failure.Failure { return w.connect(st, s, lease) }) {
		return
	}
	if len(w.dev.Subscribe) == 0 {
		w.skip(Subscribe, "no filters are configured with subscribe: those that the device asks for are not known here")
	} else if !w.step(ctx, Subscribe, func(st *Step) *failure.Failure { return w.subscribe(st, s) }) &&
		w.failure.Kind != failure.SubackRefused {
		return
	}
	if w.dev.DoctorTopic == "" {
		w.skip(Publish, "no doctor_topic is configured to publish to")
	} else if !w.step(ctx, Publish, func(st *Step) *failure.Failure { return w.publish(st, s) }) {
		return
	}
	w.step(ctx, Goodbye, func(st *Step) *failure.Failure { return w.goodbye(ctx, st, s) })
}

func (w *walk) connect(st *Step, s *session, lease *governor.Lease) *failure.Failure {
	login, f := w.sign()
	if f != nil {
		return f
	}
	lease.Sent()
	if f := s.connect(login, w.dev.Cloud, false); f != nil {
		if limit := w.dev.Cloud.Limits.Connects; limit.Count > 0 && f.Kind == failure.ConnackUnavailable {
			f.Detail = join(f.Detail, fmt.Sprintf("or others came just before this one: a device may connect %d times in %s",
				limit.Count, limit.Per))
		}
		return w.kicked(f)
	}
	lease.Connected()
	w.report.Session = &s.Session
	st.Summary = "accepted; the cloud had no session for this device"
	if s.Present {
		st.Summary = "accepted; the cloud has a session for this device, which stays as it is"
	}
	if w.report.Daemon.Holds {
		note(st, true, "this ended the session of the bridged that runs; it connects again by itself")
	}
	return nil
}

// kicked adds to a failure that the bridged which runs may be its cause.
func (w *walk) kicked(f *failure.Failure) *failure.Failure {
	if w.report.Daemon.Running && (f.Kind == failure.ClosedByCloud || f.Kind == failure.ConnectionLost) {
		f.Detail = join(f.Detail, "perhaps since the bridged that runs connected this device meanwhile")
	}
	return f
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

// subscribe asks for the configured filters, as many at once as the cloud takes.
func (w *walk) subscribe(st *Step, s *session) *failure.Failure {
	size := w.dev.Cloud.Limits.FiltersPerSubscribe
	if size == 0 {
		size = len(w.dev.Subscribe)
	}
	for subs := w.dev.Subscribe; len(subs) > 0; {
		n := min(size, len(subs))
		if f := w.ask(s, subs[:n]); f != nil {
			return w.kicked(f)
		}
		subs = subs[n:]
	}
	var refused []string
	for _, f := range w.report.Filters {
		switch {
		case f.Granted == nil:
			refused = append(refused, f.Filter)
			note(st, false, "%s: refused", f.Filter)
		case *f.Granted < f.Asked:
			note(st, true, "%s: granted with QoS %d instead of %d", f.Filter, *f.Granted, f.Asked)
		default:
			note(st, false, "%s: granted with QoS %d", f.Filter, *f.Granted)
		}
	}
	st.Summary = fmt.Sprintf("%d of %d granted", len(w.report.Filters)-len(refused), len(w.report.Filters))
	if len(refused) == 0 {
		return nil
	}
	f := failure.New(failure.SubackRefused, failure.StageSubscribe, nil, "")
	f.Detail = refused[0]
	if n := len(refused) - 1; n > 0 {
		f.Detail += fmt.Sprintf(" and %d more", n)
	}
	return f
}

// ask sends one SUBSCRIBE and takes the answer.
func (w *walk) ask(s *session, subs []mqtt.Subscription) *failure.Failure {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID = s.id()
	for _, sub := range subs {
		p.Topics, p.Qoss = append(p.Topics, sub.Filter), append(p.Qoss, sub.QoS)
	}
	if err := s.send(p); err != nil {
		return s.lost(failure.StageSubscribe, err)
	}
	var codes []byte
	f := s.await(failure.StageSubscribe, func(got packets.ControlPacket) bool {
		ack, ok := got.(*packets.SubackPacket)
		if ok = ok && ack.MessageID == p.MessageID; ok {
			codes = ack.ReturnCodes
		}
		return ok
	})
	if f != nil {
		return late(f, "SUBACK")
	}
	if len(codes) != len(subs) {
		return failure.New(failure.ProtocolError, failure.StageSubscribe, nil, "a SUBACK with %d codes for %d filters",
			len(codes), len(subs))
	}
	for i, sub := range subs {
		got := Filter{Filter: sub.Filter, Asked: sub.QoS}
		if codes[i] <= 2 {
			got.Granted = &codes[i]
		}
		w.report.Filters = append(w.report.Filters, got)
	}
	return nil
}

// late names the answer that did not come.
func late(f *failure.Failure, what string) *failure.Failure {
	if f.Kind == failure.NoAnswer {
		f.Detail = join(f.Detail, "no "+what)
	}
	return f
}

// trial is what is published.
type trial struct {
	From   string    `json:"from"`
	Device string    `json:"device"`
	At     time.Time `json:"at"`
}

// publish sends a message to the device's doctor_topic, never retained.
func (w *walk) publish(st *Step, s *session) *failure.Failure {
	qos := min(1, w.dev.Cloud.Limits.MaxQoS)
	payload, err := json.Marshal(trial{From: "bridged doctor", Device: w.dev.Name, At: w.d.clock.Now().UTC()})
	if err != nil {
		return failure.New(failure.Other, failure.StageOnline, err, "")
	}
	id := s.id()
	b := wire.AppendPublish(nil, w.dev.DoctorTopic, payload, qos, false, false, id)
	if err := s.ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return s.lost(failure.StageOnline, err)
	}
	st.Summary = fmt.Sprintf("%s, QoS %d", w.dev.DoctorTopic, qos)
	if qos == 0 {
		return nil
	}
	f := s.await(failure.StageOnline, func(got packets.ControlPacket) bool {
		ack, ok := got.(*packets.PubackPacket)
		return ok && ack.MessageID == id
	})
	switch {
	case f == nil:
		st.Summary += ": acknowledged"
		return nil
	case f.Kind == failure.NoAnswer:
		return failure.New(failure.Stalled, failure.StageOnline, nil, "no PUBACK for %s", w.dev.DoctorTopic)
	}
	f.Detail = join(f.Detail, "after a message to "+w.dev.DoctorTopic)
	return w.kicked(f)
}

// goodbye disconnects, and discards the session if it was made here.
func (w *walk) goodbye(ctx context.Context, st *Step, s *session) *failure.Failure {
	if err := s.send(packets.NewControlPacket(packets.Disconnect)); err != nil {
		return w.kicked(s.lost(failure.StageOnline, err))
	}
	st.Summary = "disconnected"
	if !wire.Goodbye(s.ws, s.nc) {
		note(st, false, "the cloud did not close the connection within %s", wire.GoodbyeTimeout)
	}
	if s.Kept > 0 {
		note(st, false, "%d messages came for the device; they were not acknowledged and stay in the cloud", s.Kept)
	}
	if s.Lost > 0 {
		note(st, false, "%d messages of QoS 0 came for the device, and are lost as for a device that is away", s.Lost)
	}
	if s.Present || w.d.opts.keep || !tellsSession(w.dev.Cloud.Vendor) {
		return nil
	}
	if running, _ := askDaemon(ctx, w.d.cfg.StateDir, w.dev.Name); running.Holds {
		return nil
	}
	if err := w.discard(ctx); err != nil {
		note(st, true, "the session that this made in the cloud could not be discarded: %v", err)
		return nil
	}
	s.Discarded = true
	note(st, false, "connected once more, to discard the session that this had made")
	return nil
}

// tellsSession says whether "session present" can be relied upon.
func tellsSession(vendor string) bool { return vendor != credentials.ProviderAliyun }

// discard connects with a clean session.
func (w *walk) discard(ctx context.Context) error {
	lease, err := w.d.governor.Wait(ctx, w.dial())
	if err != nil {
		return err
	}
	defer lease.Done()
	target := w.target
	target.Trace = nil
	ws, nc, err := w.dialer.Dial(ctx, target)
	if err != nil {
		return err
	}
	s := newSession(ws, nc, w.d.opts.patience)
	defer s.close()
	stop := context.AfterFunc(ctx, s.abort)
	defer stop()
	login, f := w.sign()
	if f != nil {
		return f
	}
	lease.Sent()
	if f := s.connect(login, w.dev.Cloud, true); f != nil {
		return f
	}
	lease.Connected()
	if err := s.send(packets.NewControlPacket(packets.Disconnect)); err != nil {
		return errors.New("the connection was lost")
	}
	wire.Goodbye(ws, nc)
	return nil
}
