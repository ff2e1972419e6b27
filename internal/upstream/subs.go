package upstream

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/zap"

	"bridged/internal/failure"
	"bridged/internal/mqtt"
	"bridged/internal/wire"
)

// answerWithin is how long a device's SUBSCRIBE waits for the cloud's verdict before it is granted locally.
const answerWithin = 10 * time.Second

// subscriptions are what the device and the configuration want, and what the cloud has granted. Worker.mu protects
// them.
type subscriptions struct {
	cfg     *Config
	static  map[string]byte // by the cloud's filter
	device  map[string]byte // by the device's filter, the QoS it asked for
	granted map[string]grant
	waiting []*request // for a session that is on its way
	beyond  *beyond    // nil as long as nothing was refused here
}

// beyond is what is to be told of filters that were refused here.
type beyond struct {
	logged time.Time
	missed int // since then
}

// grant is what the cloud knows of a filter, as far as is known here. It begins with the SUBSCRIBE and ends with the
// UNSUBACK, so that nothing is forgotten whose answer was lost.
type grant struct {
	asked   byte
	code    byte // granted QoS, mqtt.Failure, or unanswered
	leaving bool // UNSUBSCRIBE was sent
}

// request is a SUBSCRIBE of the device that waits for the cloud.
type request struct {
	subs     []mqtt.Subscription
	done     func(codes []byte)
	deadline time.Time
}

// exchange is a SUBSCRIBE or UNSUBSCRIBE that was sent and not answered.
type exchange struct {
	subs []mqtt.Subscription // of a SUBSCRIBE
	gone string              // of an UNSUBSCRIBE
	at   int                 // place of the first in then.codes
	then *answer
}

// answer collects the answers to the packets of one request.
type answer struct {
	codes    []byte // of SUBSCRIBE, by filter
	left     int
	deadline time.Time
	done     func() // called once, nil when it was
}

func (t *subscriptions) init(cfg *Config) {
	t.cfg = cfg
	if len(cfg.Subscribe) > 0 {
		t.static = make(map[string]byte, len(cfg.Subscribe))
	}
	for _, s := range cfg.Subscribe {
		t.static[s.Filter] = min(s.QoS, cfg.Limits.MaxQoS)
	}
	if k := cfg.Kept; k != nil && (k.Expiry > 0 || cfg.Persistent) {
		t.device = maps.Clone(k.Filters)
	}
}

// wanted lists the cloud's filters that are to be subscribed to, with the QoS to ask for.
func (t *subscriptions) wanted() map[string]byte {
	want := make(map[string]byte, len(t.static)+len(t.device))
	for f, q := range t.static {
		want[f] = q
	}
	for local, q := range t.device {
		for _, f := range t.cfg.Topics.Filters(local) {
			want[f] = max(want[f], min(q, t.cfg.Limits.MaxQoS))
		}
	}
	return want
}

// A device's session is kept as one record, which has its bounds.
const (
	maxFilters     = 5000
	maxFilterBytes = 256 << 10
)

// keepable says whether all filters of the device fit into the record of its session.
func (t *subscriptions) keepable() bool {
	size := 0
	for f := range t.device {
		size += len(f)
	}
	return len(t.device) <= maxFilters && size <= maxFilterBytes
}

// allowed says whether the cloud can take a device's filter at all.
func (t *subscriptions) allowed(local string) bool {
	for _, f := range t.cfg.Topics.Filters(local) {
		if t.cfg.Limits.MaxTopicBytes > 0 && len(f) > t.cfg.Limits.MaxTopicBytes ||
			t.cfg.Limits.MaxTopicLevels > 0 && mqtt.Levels(f) > t.cfg.Limits.MaxTopicLevels {
			return false
		}
	}
	return t.cfg.Limits.MaxSubscriptions == 0 || len(t.wanted()) <= t.cfg.Limits.MaxSubscriptions
}

// logBeyond tells about a filter that is refused here, and at most every logEvery: a device may ask for very many.
func (t *subscriptions) logBeyond(log logger, filter string) {
	if t.beyond == nil {
		t.beyond = new(beyond)
	} else if time.Since(t.beyond.logged) < logEvery {
		t.beyond.missed++
		return
	}
	fields := []zap.Field{zap.String("filter", filter[:min(len(filter), 200)])}
	if t.beyond.missed > 0 {
		fields = append(fields, zap.Int("unreported", t.beyond.missed))
	}
	log.Warn("subscription beyond the limits", fields...)
	*t.beyond = beyond{logged: time.Now()}
}

// Subscribe asks for the device's filters. tell gets one code each, granted QoS or mqtt.Failure: the cloud's verdict,
// if it is connected or about to be; otherwise the filters are granted here and subscribed to when it is. If they are
// to survive a restart they are on disk by then. tell is called exactly once, on any goroutine.
func (w *Worker) Subscribe(subs []mqtt.Subscription, tell func(codes []byte)) {
	done := func(codes []byte) { w.whenSaved(func() { tell(codes) }) }
	w = w.lock()
	t := &w.subs
	if t.device == nil {
		t.device = make(map[string]byte)
	}
	for _, s := range subs {
		if _, had := t.device[s.Filter]; !had {
			t.device[s.Filter] = s.QoS
			if !t.allowed(s.Filter) || !t.keepable() {
				delete(t.device, s.Filter)
				t.logBeyond(w.log, s.Filter)
			}
			continue
		}
		t.device[s.Filter] = s.QoS
	}
	s := w.live
	switch {
	case s != nil && s.established && !s.ending.Load() && !s.yielding.Load():
		answer := t.ask(w, s, &request{subs: subs, done: done})
		w.mu.Unlock()
		s.flush()
		answer()
		return
	case w.cancelTry != nil && time.Until(w.heldUntil) <= answerWithin,
		w.cancelTry == nil && w.running.Load() && (w.state == Idle || w.last == nil): // an attempt is under way, or soon
		t.waiting = append(t.waiting, &request{subs: subs, done: done, deadline: time.Now().Add(answerWithin)})
		w.soon()
		w.mu.Unlock()
	default:
		codes := t.local(subs)
		w.mu.Unlock()
		done(codes)
	}
}

// local are the codes that are given without asking the cloud.
func (t *subscriptions) local(subs []mqtt.Subscription) []byte {
	codes := make([]byte, len(subs))
	for i, s := range subs {
		codes[i] = mqtt.Failure
		if _, ok := t.device[s.Filter]; ok {
			codes[i] = min(s.QoS, t.cfg.Limits.MaxQoS)
		}
	}
	return codes
}

// unanswered stands in an answer's codes until the cloud's comes.
const unanswered = 0xff

// ask sends a device's SUBSCRIBE to the cloud, filter by filter as the device sent it: one that it names twice has its
// retained messages sent twice. It returns a call that the caller makes without the lock.
func (t *subscriptions) ask(w *Worker, s *session, r *request) func() {
	var cloud []mqtt.Subscription
	ends := make([]int, len(r.subs)) // of each filter's part of cloud
	for i, sub := range r.subs {
		if _, ok := t.device[sub.Filter]; ok { // otherwise it is not allowed
			for _, f := range t.cfg.Topics.Filters(sub.Filter) {
				qos := max(min(sub.QoS, t.cfg.Limits.MaxQoS), t.others(f, sub.Filter))
				cloud = append(cloud, mqtt.Subscription{Filter: f, QoS: qos})
			}
		}
		ends[i] = len(cloud)
	}
	a := &answer{codes: bytes.Repeat([]byte{unanswered}, len(cloud)), deadline: time.Now().Add(answerWithin)}
	a.done = func() { r.done(w.verdict(r.subs, ends, a)) }
	t.subscribe(w, s, cloud, a)
	if a.left == 0 {
		return a.done // nothing to ask: every filter was refused here
	}
	return func() {}
}

// others is the QoS that a cloud's filter has to have for the sake of others than one of the device's.
func (t *subscriptions) others(cloud, local string) byte {
	qos := t.static[cloud]
	for other, q := range t.device {
		if other != local && slices.Contains(t.cfg.Topics.Filters(other), cloud) {
			qos = max(qos, min(q, t.cfg.Limits.MaxQoS))
		}
	}
	return qos
}

// verdict are the cloud's codes for a device's filters. What the cloud has not answered counts as granted. A filter
// that stands for several of the cloud's is refused if all of them are, and granted at the lowest QoS of the others.
func (w *Worker) verdict(subs []mqtt.Subscription, ends []int, a *answer) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &w.subs
	codes := make([]byte, len(subs))
	start := 0
	for i, sub := range subs {
		code := byte(mqtt.Failure)
		for _, c := range a.codes[start:ends[i]] {
			if c == unanswered {
				c = min(sub.QoS, t.cfg.Limits.MaxQoS)
			}
			code = min(code, c)
		}
		start = ends[i]
		if code != mqtt.Failure {
			code = min(code, sub.QoS) // the configuration may want the same filter with more
		}
		if code == mqtt.Failure {
			delete(t.device, sub.Filter)
		}
		codes[i] = code
	}
	return codes
}

// subscribe sends SUBSCRIBEs of as many filters as the cloud takes in one.
func (t *subscriptions) subscribe(w *Worker, s *session, subs []mqtt.Subscription, a *answer) {
	size := t.cfg.Limits.FiltersPerSubscribe
	if size == 0 {
		size = 100
	}
	if t.granted == nil {
		t.granted = make(map[string]grant)
	}
	for at := 0; len(subs) > 0; {
		n := min(size, len(subs))
		p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
		for _, sub := range subs[:n] {
			p.Topics, p.Qoss = append(p.Topics, sub.Filter), append(p.Qoss, sub.QoS)
			t.granted[sub.Filter] = grant{asked: sub.QoS, code: unanswered}
		}
		t.send(w, s, p, &p.MessageID, &exchange{subs: subs[:n], at: at, then: a})
		subs, at = subs[n:], at+n
	}
}

// unsubscribe sends one UNSUBSCRIBE for each filter.
func (t *subscriptions) unsubscribe(w *Worker, s *session, filters []string, a *answer) {
	for _, f := range filters {
		g := t.granted[f]
		g.leaving = true
		t.granted[f] = g
		p := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
		p.Topics = []string{f}
		t.send(w, s, p, &p.MessageID, &exchange{gone: f, then: a})
	}
}

func (t *subscriptions) send(w *Worker, s *session, p packets.ControlPacket, idField *uint16, e *exchange) {
	w.flow.mu.Lock()
	defer w.flow.mu.Unlock()
	id, ok := w.flow.out.Reserve()
	if !ok {
		return // all 65,535 are in use: it is made good with the next session
	}
	*idField = id
	s.exchanges[id] = e
	w.soon()
	e.then.left++
	s.out = wire.AppendPacket(s.out, p)
}

// Unsubscribe takes the device's filters back. tell is called exactly once, when the cloud has confirmed or is away,
// and a restart does not bring them back.
func (w *Worker) Unsubscribe(filters []string, tell func()) {
	done := func() { w.whenSaved(tell) }
	w = w.lock()
	t := &w.subs
	for _, f := range filters {
		delete(t.device, f)
	}
	a := &answer{deadline: time.Now().Add(answerWithin), done: done}
	s := t.takeBack(w, a)
	if a.left > 0 {
		done = nil
	}
	w.saveLocked()
	w.mu.Unlock()
	w.flushSession(s)
	if done != nil {
		done()
	}
}

// takeBack unsubscribes from what is not wanted any more, if there is a session.
func (t *subscriptions) takeBack(w *Worker, a *answer) *session {
	s := w.live
	if s == nil || !s.established || s.ending.Load() {
		return nil
	}
	want := t.wanted()
	var gone []string
	for f, g := range t.granted {
		if _, ok := want[f]; !ok && !g.leaving && g.code != mqtt.Failure {
			gone = append(gone, f)
		}
	}
	t.unsubscribe(w, s, gone, a)
	return s
}

// dropDeviceSubsLocked ends the device's subscriptions with its session. The caller flushes the session.
func (w *Worker) dropDeviceSubsLocked() {
	clear(w.subs.device)
	w.subs.takeBack(w, &answer{})
}

// established brings a new session in line with what is wanted and asks what waited for it. It returns calls that the
// caller makes without the lock.
func (t *subscriptions) established(w *Worker, s *session, present bool) (calls []func()) {
	if !present {
		clear(t.granted)
	}
	asking := make(map[string]bool)
	for _, r := range t.waiting {
		for _, sub := range r.subs {
			for _, f := range t.cfg.Topics.Filters(sub.Filter) {
				asking[f] = true
			}
		}
	}
	for f, g := range t.granted { // what was not confirmed is done again
		g.leaving = false
		t.granted[f] = g
	}
	var missing []mqtt.Subscription
	for f, q := range t.wanted() {
		if g, ok := t.granted[f]; !asking[f] && (!ok || g.asked != q || g.code >= mqtt.Failure) {
			missing = append(missing, mqtt.Subscription{Filter: f, QoS: q})
		}
	}
	t.subscribe(w, s, missing, &answer{})
	t.takeBack(w, &answer{})
	for _, r := range t.waiting {
		calls = append(calls, t.ask(w, s, r))
	}
	t.waiting = nil
	return calls
}

// answered handles SUBACK, and UNSUBACK with no codes.
func (t *subscriptions) answered(w *Worker, s *session, id uint16, codes []byte) {
	w.flow.mu.Lock()
	w.flow.out.Free(id)
	w.flow.mu.Unlock()

	w.mu.Lock()
	e := s.exchanges[id]
	if e == nil {
		w.mu.Unlock()
		return
	}
	delete(s.exchanges, id)
	s.answered = true
	if t.granted[e.gone].leaving { // and was not asked for again
		delete(t.granted, e.gone)
	}
	for i, sub := range e.subs {
		code := byte(mqtt.Failure)
		if i < len(codes) {
			code = codes[i]
		}
		if g, ok := t.granted[sub.Filter]; ok && g.asked == sub.QoS {
			g.code = code
			t.granted[sub.Filter] = g
		}
		if e.then.codes != nil {
			e.then.codes[e.at+i] = code
		}
		if code == mqtt.Failure {
			t.refused(w, sub.Filter, e.then.done == nil)
		}
	}
	e.then.left--
	var done func()
	if e.then.left == 0 {
		done, e.then.done = e.then.done, nil
	}
	s.onlineLocked()
	w.mu.Unlock()
	if done != nil {
		done()
	}
}

// refused makes a refusal known; late ones concern a device that was told otherwise.
func (t *subscriptions) refused(w *Worker, filter string, late bool) {
	if late {
		w.count.refused.Add(1)
		w.log.Warn("the cloud refused a subscription that the device believes to be granted", zap.String("filter", filter),
			zap.String("kind", string(failure.SubackRefused)), zap.String("remedy", failure.SubackRefused.Info().Remedy))
		return
	}
	w.log.Info("the cloud refused a subscription", zap.String("filter", filter))
}

// lost gives up on answers of a session that has ended. It returns calls that the caller makes without the lock.
func (t *subscriptions) lost(w *Worker, s *session) (calls []func()) {
	w.flow.mu.Lock()
	for id := range s.exchanges {
		w.flow.out.Free(id)
	}
	w.flow.mu.Unlock()
	for _, e := range s.exchanges {
		if e.then.done != nil {
			calls = append(calls, e.then.done)
			e.then.done = nil
		}
	}
	clear(s.exchanges)
	return calls
}

// overdue answers devices that have waited too long. It returns calls that the caller makes without the lock.
func (t *subscriptions) overdue(w *Worker, now time.Time) (calls []func()) {
	if s := w.live; s != nil {
		for _, e := range s.exchanges {
			if e.then.done != nil && now.After(e.then.deadline) {
				calls = append(calls, e.then.done)
				e.then.done = nil
			}
		}
	}
	for len(t.waiting) > 0 && now.After(t.waiting[0].deadline) {
		r := t.waiting[0]
		t.waiting = t.waiting[1:]
		codes := t.local(r.subs)
		calls = append(calls, func() { r.done(codes) })
	}
	return calls
}

// giveUpWaiting grants locally what waits for a session that will not come soon. It returns calls that the caller makes
// without the lock.
func (t *subscriptions) giveUpWaiting() (calls []func()) {
	for _, r := range t.waiting {
		codes := t.local(r.subs)
		calls = append(calls, func() { r.done(codes) })
	}
	t.waiting = nil
	return calls
}
