package upstream

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"bridged/internal/clock"
	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
	"bridged/internal/transport"
)

// Signer makes the login material for one attempt.
type Signer interface {
	Sign(now time.Time, nonce string) (credentials.Login, error)
}

// Topics translates between a device's topics and its cloud's.
type Topics interface {
	Up(topic string) string
	Down(topic string) string
	// Filters returns the cloud's filters for one of the device's.
	Filters(filter string) []string
}

// Downlink takes what the cloud sends; see lane.Lane.
type Downlink interface {
	Offer(m mqtt.Message, from lane.Source, t mqtt.Token) bool
	// Refuse counts a message as accepted and dropped.
	Refuse(reason lane.Reason, from lane.Source, t mqtt.Token)
	Cork()
	Uncork()
}

// DefaultQuiet is Config.Quiet unless there is a reason for another.
const DefaultQuiet = 3 * time.Second

// Config is what a worker needs. All fields are required unless they say otherwise.
type Config struct {
	Device string // for logs
	Cloud  string // for logs
	// Dialer makes the connections, to Target.
	Dialer   *transport.Dialer
	Target   transport.Target
	Identity Signer
	// Verdict is told what the cloud says to the login of each attempt: nil if it accepts it, otherwise why there is no
	// session. It is called without locks, on the worker's goroutine, before messages flow, and must not block. It may be
	// nil.
	Verdict func(*failure.Failure)
	// Waiting says whether a login waits for that, so that Connected, which may be about another login, does not end what
	// Await began. It is called with locks held, and must not block. It may be nil.
	Waiting func() bool
	// Failed is told of everything that ends an attempt or a session. It is called with locks held, and must not block or
	// call back. It may be nil.
	Failed func(*failure.Failure)
	// Key is what the cloud's connect limit applies to; see governor.Dial.
	Key string
	// Timed says that the login depends on the time.
	Timed     bool
	Keepalive time.Duration // 0: none is announced
	// StallTimeout is how long the cloud may keep a message waiting for its acknowledgement, 0 for ever.
	StallTimeout time.Duration
	// Limits may be shared, and are not changed.
	Limits *credentials.Limits
	// Always keeps the session up while the device is away; otherwise it ends Linger after the device has left and its
	// backlog was delivered.
	Linger time.Duration
	Always bool
	// Persistent asks the cloud to keep the session although the device connects clean.
	Persistent bool
	// Subscribe are filters, in the cloud's words, to subscribe to on the device's behalf.
	Subscribe []mqtt.Subscription
	Topics    Topics
	Up        *lane.Lane
	Down      Downlink
	// Memory is what messages from the cloud take that the down lane has refused, nil for no limit.
	Memory *lane.Budget
	// Marks are those of Down.
	Marks Marks
	// Kept is the session that the device had when an earlier process ended, nil if it had none.
	Kept *Kept
	// Save is told what is to survive this process, nil for nothing, each time when that changes. It must not block, and
	// calls done once that is on disk, on another goroutine. What it is told must not be changed.
	Save func(k *Kept, done func())
	// Refused is the reason to drop a message for that has the cloud close the connection each time it is sent, see
	// suspicion. 0 has such a message kept, and the lane blocked.
	Refused lane.Reason
	// MaxPacket is the largest packet to take from the cloud, in bytes.
	MaxPacket int
	// Quiet is how long a session has to stand before it is tried on it whether the cloud takes a certain message.
	Quiet time.Duration
	// Governor is shared by all workers, Retry is the worker's own.
	Governor *governor.Governor
	Retry    *governor.Retry
	Clock    *clock.Clock
	Log      *zap.Logger
}

// Worker keeps one device's session to its cloud. See the package comment.
type Worker struct {
	cfg  Config
	log  logger
	wg   sync.WaitGroup // from run's beginning to its end, sessions included
	wake chan struct{}  // holds one; interrupts waiting
	// running says that run is at work. It is written under mu.
	running atomic.Bool
	// resting says that run waits after a failure, and that a message may have it try sooner.
	resting atomic.Bool
	// leaving says that an empty up lane ends the session.
	leaving atomic.Bool
	// due is when the timers are to be looked at next, see Worker.look, and watched the session that they are for.
	due     atomic.Int64
	watched atomic.Pointer[session] // written under mu
	count   counters
	// maxPacket is Config.MaxPacket, which Adjust changes.
	maxPacket atomic.Int64

	mu      sync.Mutex // protects the following fields
	state   State
	since   time.Time
	reason  string
	line    timeline
	connect mqtt.Connect // what the device asked for, last
	present bool         // it is connected
	known   bool         // it has been connected since the start
	awaited bool         // it waits for the cloud's word on its login; see Await
	// awaitedClean is the clean session flag of the device that is awaited.
	awaitedClean bool
	willSpent    bool // the cloud has published the will of the device's present connection
	reset        bool // the cloud's session is to be discarded first
	stopping     bool
	leftAt       time.Time
	leftWall     time.Time // the same for Kept; zero while the device is connected
	live         *session
	cancelTry    context.CancelFunc // interrupts the attempt that is under way, before CONNACK; nil if none is
	retry        *governor.Retry
	last         *failure.Failure
	latest       *failure.Failure // the same, but stays when a session is established
	latestAt     time.Time
	logged       struct { // above debug
		failure *failure.Failure
		at      time.Time
	}
	heldUntil time.Time // until when the attempt under way waits for its turn, at least
	upSince   time.Time // when the present session was established
	outage    outage
	subs      subscriptions
	farewell  string  // why it stops
	heir      *Worker // that has taken this one's place, see Succeed

	flow   *flow
	record *record
}

// flow is what every message passes: the MQTT session's state, and the connection it runs on.
type flow struct {
	mu        sync.Mutex // protects the following fields and the buffers of live; taken after Worker.mu
	in        mqtt.Inbox
	out       mqtt.Outbox
	live      *session // established, nil if none
	known     bool     // this process has connected before
	pacer     pacer
	suspicion suspicion
	parking   parking
}

// counters are of things that are worth a person's look.
type counters struct {
	lowered  atomic.Uint64 // messages sent at a lower QoS than the device's
	stripped atomic.Uint64 // messages whose retain flag was removed
	refused  atomic.Uint64 // subscriptions that were granted locally and refused by the cloud later
	connects atomic.Uint64 // sessions established
}

// New returns a worker that is idle.
func New(cfg Config) *Worker {
	w := &Worker{
		cfg:    cfg,
		wake:   make(chan struct{}, 1),
		state:  Idle,
		since:  time.Now(),
		retry:  cfg.Retry,
		flow:   new(flow),
		record: &record{save: cfg.Save},
	}
	w.log.cfg = &w.cfg
	w.subs.init(&w.cfg)
	w.maxPacket.Store(int64(cfg.MaxPacket))
	w.restore(cfg.Kept)
	w.flow.in.Restore(cfg.Marks.Marks())
	w.flow.pacer = newPacer(cfg.Limits.UplinkPerSecond)
	w.flow.parking.room.L = &w.flow.mu
	return w
}

// Start lets a worker begin that has a reason to.
func (w *Worker) Start() {
	w.mu.Lock()
	w.saveLocked() // when the device left, if an earlier process could not
	w.mu.Unlock()
	w.kick()
}

// Offer takes a message from the device and hands it to the up lane under the cloud's topic. See lane.Lane.Offer.
func (w *Worker) Offer(m mqtt.Message, from lane.Source, t mqtt.Token) bool {
	m.Topic = w.cfg.Topics.Up(m.Topic)
	if !w.cfg.Up.Offer(m, from, t) {
		return false
	}
	switch {
	case !w.running.Load():
		w.kick()
	case w.resting.Load() && w.resting.Swap(false): // once is enough
		w.hurry((*governor.Retry).Nudge)
	}
	return true
}

// Cork has the up lane gather; see lane.Lane.
func (w *Worker) Cork() { w.cfg.Up.Cork() }

// Uncork ends what Cork began.
func (w *Worker) Uncork() { w.cfg.Up.Uncork() }

// hurry has the next attempt come sooner if Retry, told of something that gives hope, says so.
func (w *Worker) hurry(tell func(*governor.Retry, time.Time) bool) {
	w = w.lock()
	defer w.mu.Unlock()
	if tell(w.retry, time.Now()) {
		w.interruptLocked()
	}
}

// Connected says that the device has connected, and with what. It comes after Disconnected for an earlier connection.
func (w *Worker) Connected(c mqtt.Connect) {
	w = w.lock()
	w.present, w.known, w.connect, w.willSpent, w.leftWall = true, true, c, false, time.Time{}
	w.awaited = w.awaited && w.cfg.Waiting != nil && w.cfg.Waiting()
	w.leaving.Store(false)
	s := w.live
	if c.Reset || w.cleanLocked() && !(s != nil && s.clean) {
		w.reset = true // what the cloud has kept is not wanted, whenever the next connect is
	}
	if (c.Clean || c.Reset) && !w.cfg.Persistent {
		w.dropDeviceSubsLocked()
	}
	fits := s == nil || !s.armed && !s.finish && !s.yielding.Load() && !w.needsWillLocked() &&
		s.clean == w.cleanLocked() && !w.reset
	switch {
	case !fits:
		s.yieldLocked("the device reconnected with another session")
	case s != nil && w.state == Draining:
		w.setStateLocked(Online, "the device is back")
	}
	w.saveLocked()
	if w.retry.Nudge(time.Now()) {
		w.interruptLocked()
	}
	w.mu.Unlock()
	w.flushSession(s)
	w.kick()
}

// needsWillLocked says whether CONNECT has to carry the device's will.
func (w *Worker) needsWillLocked() bool {
	return w.present && w.connect.Will != nil && w.cfg.Limits.Will
}

// Disconnected says that the device has left, and how long its session is kept now, as mqtt.Connect.Expiry has it.
// Unless it left gracefully its will is due.
func (w *Worker) Disconnected(graceful bool, expiry uint32) {
	w = w.lock()
	w.present = false
	w.leftAt = time.Now()
	w.leftWall, w.connect.Expiry = w.leftAt.Round(0), expiry
	w.leaving.Store(true)
	if w.connect.Clean && !w.cfg.Persistent {
		w.dropDeviceSubsLocked()
	}
	s, will := w.live, w.connect.Will
	w.connect.Will = nil
	armed := s != nil && s.armed && s.established && !s.yielding.Load()
	switch {
	case armed && graceful:
		// What CONNECT said can be taken back with DISCONNECT only. So the session does not linger.
		s.finish = true
		will = nil
	case armed:
		s.finish, s.abort = true, true // the cloud publishes it when the connection ends, after what is queued
		will = nil
	case graceful || w.willSpent:
		will = nil
	}
	if s != nil && s.armed && !s.established {
		s.endLocked(true, "the device left while connecting") // takes the will back, should the cloud have it already
	}
	w.saveLocked()
	w.mu.Unlock()
	if will != nil {
		w.publishWill(*will)
	}
	w.flushSession(s)
	w.settle()
}

// publishWill hands the will to the up lane, behind everything that the device sent before.
func (w *Worker) publishWill(m mqtt.Message) {
	w.log.Info("publishing the device's will", zap.String("topic", m.Topic))
	src := &willSource{w: w, m: m}
	src.Room()
}

// willSource offers a will again until there is room for it.
type willSource struct {
	w *Worker
	m mqtt.Message
}

// Settled is of no interest: nobody waits for a will.
func (s *willSource) Settled(mqtt.Token, lane.Outcome) {}

// Room offers the will.
func (s *willSource) Room() { s.w.Offer(s.m, s, 0) }

// EndSession says that the device's kept session is over: the cloud's is to be discarded with the next connect.
func (w *Worker) EndSession() {
	w = w.lock()
	w.dropDeviceSubsLocked()
	w.reset = !w.cfg.Persistent
	w.connect = mqtt.Connect{Clean: true}
	s := w.live
	if s != nil && w.reset {
		s.yieldLocked("the device's session has expired")
	}
	w.saveLocked()
	w.mu.Unlock()
	w.flushSession(s)
}

// kick makes sure that run is at work if there is a reason, and looks at the reasons again if it is.
func (w *Worker) kick() {
	w = w.lock()
	defer w.mu.Unlock()
	if w.running.Load() {
		w.interruptLocked()
		return
	}
	if w.demandLocked() {
		w.running.Store(true)
		w.wg.Add(1)
		go w.run()
	}
}

func (w *Worker) interruptLocked() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// demandLocked says whether there is a reason to have a session.
func (w *Worker) demandLocked() bool {
	if w.stopping {
		return false
	}
	return w.present || w.awaited || w.cfg.Always || !w.cfg.Up.Empty()
}

// cleanLocked is the clean session flag for the cloud. As long as the device has not said, its session is not touched.
func (w *Worker) cleanLocked() bool {
	if w.awaited {
		return w.awaitedClean && !w.cfg.Persistent
	}
	return w.known && w.connect.Clean && !w.cfg.Persistent
}

// settle ends the session, or the attempt at one, if there is no reason for it any more.
func (w *Worker) settle() {
	w.mu.Lock()
	w.soon()
	w.settleLocked(time.Now())
	s := w.live
	w.mu.Unlock()
	w.flushSession(s)
}

func (w *Worker) settleLocked(now time.Time) {
	s := w.live
	if s != nil && s.yielding.Load() {
		s.yieldedLocked(now)
		return
	}
	if w.present || w.awaited {
		return
	}
	empty := w.cfg.Up.Empty()
	switch {
	case s != nil && s.finish && empty: // a will that the cloud is to publish
		s.endLocked(!s.abort, "the device left")
	case w.stopping && empty:
		w.endTryLocked(w.farewell)
	case w.cfg.Always || !empty:
		if s != nil && s.established && !w.cfg.Always && w.state == Online {
			w.setStateLocked(Draining, "the device left")
		}
	case s != nil && s.established:
		if w.state == Online {
			w.setStateLocked(Draining, "the device left")
		}
		if now.Sub(w.leftAt) >= w.cfg.Linger {
			s.endLocked(true, "the device left")
		}
	default:
		w.endTryLocked("the device left")
	}
}

// endTryLocked ends the session or whatever step towards one is under way.
func (w *Worker) endTryLocked(reason string) {
	if w.live != nil {
		w.live.endLocked(true, reason)
	} else if w.cancelTry != nil {
		w.cancelTry()
	}
	w.interruptLocked()
}

// Stop ends the worker. While ctx lasts, an established session delivers what the up lane holds; then it says goodbye.
// Stop returns when everything has ended.
func (w *Worker) Stop(ctx context.Context) { w.stop(ctx, "bridged stops") }

func (w *Worker) stop(ctx context.Context, reason string) {
	w.mu.Lock()
	w.stopping, w.farewell = true, reason
	w.soon()
	w.present, w.awaited = false, false
	w.leaving.Store(true)
	if w.live == nil || !w.live.established {
		w.endTryLocked(reason)
	}
	s := w.live
	resume := s != nil && s.stopYieldingLocked()
	w.settleLocked(time.Now())
	w.mu.Unlock()
	if resume {
		s.reader.Pump()
	}
	w.flushSession(s)
	w.wait(ctx)
	w.keepMarks()
}

// wait waits until run has ended, which it is made to when ctx ends.
func (w *Worker) wait(ctx context.Context) {
	ended := make(chan struct{})
	go func() { w.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		w.mu.Lock()
		w.endTryLocked(w.farewell)
		w.mu.Unlock()
		<-ended
	}
}
