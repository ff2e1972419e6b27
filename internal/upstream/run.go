package upstream

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"go.uber.org/zap"

	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/governor"
)

// run makes attempts as long as there is a reason, until one leads to a session: then served goes on.
func (w *Worker) run() {
	for {
		w.mu.Lock()
		if !w.demandLocked() {
			w.running.Store(false)
			// A message may have come after demandLocked looked and before running was false.
			if !w.demandLocked() {
				w.setStateLocked(Idle, w.idleReasonLocked())
				w.outage = outage{}
				calls := w.subs.giveUpWaiting()
				w.cfg.Up.Expect() // the cloud is not away, it is not wanted
				w.mu.Unlock()
				call(calls)
				w.wg.Done()
				return
			}
			w.running.Store(true)
		}
		if delay, _ := w.retry.Next(time.Now()); delay > 0 {
			calls := w.waitLocked(delay)
			w.mu.Unlock()
			call(calls)
			w.sleep(delay)
			w.resting.Store(false)
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		w.cancelTry = cancel
		w.mu.Unlock()
		s, f := w.establish(ctx)
		cancel()
		w.mu.Lock()
		w.cancelTry = func() {} // what the context keeps would be kept as long as the session
		w.mu.Unlock()
		if s != nil {
			s.nc.Attend(s)
			return
		}
		if f != nil {
			w.judged(w.blameClock(f))
		}
		w.ended(f, governor.End{})
	}
}

// served goes on after a session has ended. The failure is nil if the worker wanted it to.
func (w *Worker) served(s *session, f *failure.Failure) {
	var end governor.End
	if f != nil {
		end.Close, end.Stuck = closing(f), s.stuck()
	}
	f, refused := s.judge(f)
	s.close()
	if refused {
		s.dropFirst()
	}
	w.ended(f, end)
	w.run()
}

func (w *Worker) idleReasonLocked() string {
	switch {
	case w.stopping:
		return w.farewell
	case w.known:
		return "the device left"
	}
	return ""
}

// waitLocked begins to wait after a failure. It returns calls to be made without the lock.
func (w *Worker) waitLocked(delay time.Duration) []func() {
	reason := ""
	if w.last != nil {
		reason = w.last.Error()
	}
	w.setStateLocked(Waiting, reason)
	w.line.fold()
	w.log.Debug("waiting", zap.Duration("backoff", delay), zap.Int("attempt", w.retry.Failures()))
	w.resting.Store(true)
	return w.subs.giveUpWaiting() // nobody should wait for a SUBACK that long
}

// call makes calls that had to wait until a lock was released.
func call(calls []func()) {
	for _, f := range calls {
		f()
	}
}

// sleep waits, but not beyond a call of interruptLocked.
func (w *Worker) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.wake:
	}
}

// establish goes from waiting for its turn to CONNACK. It returns neither a session nor a failure if none is wanted any
// more.
func (w *Worker) establish(ctx context.Context) (*session, *failure.Failure) {
	lease, err := w.cfg.Governor.Wait(ctx, governor.Dial{
		Endpoint: w.cfg.Target.URL.Host, Identity: w.cfg.Key, Limit: w.cfg.Limits.Connects, OnHold: w.onHold,
	})
	if err != nil {
		return nil, nil // ctx has ended
	}
	defer lease.Done()
	// On a goroutine of its own: handshakes need a large stack, and this one's lives as long as the session.
	done := make(chan struct{})
	var s *session
	var f *failure.Failure
	go func() {
		defer close(done)
		s, f = w.open(ctx, lease)
	}()
	<-done
	return s, f
}

// open goes from signing to CONNACK.
func (w *Worker) open(ctx context.Context, lease *governor.Lease) (*session, *failure.Failure) {
	w.setState(Signing, "")
	began, signed := time.Now(), w.cfg.Clock.Now()
	login, f := w.sign(signed)
	if f != nil {
		return nil, f
	}
	w.setState(Dialing, "")
	ws, nc, err := w.cfg.Dialer.Dial(ctx, w.cfg.Target)
	switch {
	case ctx.Err() != nil: // not wanted any more
		if err == nil {
			_ = nc.Close() // nothing was sent
			nc.Wait()
		}
		return nil, nil
	case errors.As(err, &f):
		return nil, f
	}
	if drift := w.cfg.Clock.Now().Sub(signed) - time.Since(began); drift.Abs() > maxDrift {
		if login, f = w.sign(w.cfg.Clock.Now()); f != nil { // the cloud, or the proxy, has told the time
			_ = nc.Close() // nothing was sent
			nc.Wait()
			return nil, f
		}
	}
	s := newSession(w, ws, nc)
	if f := s.connect(login, lease); f != nil || s.ending.Load() {
		s.close()
		return nil, f
	}
	return s, nil
}

// maxDrift is by how much the clock may have changed while dialling for a signature to be still good.
const maxDrift = 5 * time.Second

func (w *Worker) sign(now time.Time) (credentials.Login, *failure.Failure) {
	login, err := w.cfg.Identity.Sign(now, nonce())
	if err != nil {
		return login, failure.New(failure.NoCredentials, failure.StageConfig, err, "")
	}
	return login, nil
}

// onHold is told that others connect first, or that the cloud's connect limit does not allow it yet.
func (w *Worker) onHold(h governor.Hold) {
	w.mu.Lock()
	w.setStateLocked(Waiting, h.Reason())
	w.line.hold()
	w.heldUntil = time.Now().Add(h.For)
	var calls []func()
	if h.For > answerWithin {
		calls = w.subs.giveUpWaiting() // nobody should wait for a SUBACK that long
	}
	w.mu.Unlock()
	call(calls)
}

// nonce returns random characters for a signature.
func nonce() string { return rand.Text()[:credentials.NonceLength] }

// ended draws the conclusions from the end of an attempt.
func (w *Worker) ended(f *failure.Failure, end governor.End) {
	if f != nil {
		f = w.blameClock(f)
		end.Class = classOf(f)
		end.Crowded = f.Kind == failure.ConnackUnavailable && !w.cfg.Limits.Connects.Unlimited()
	}
	w.mu.Lock()
	w.endedLocked(f, end)
	w.saveLocked() // what is granted here
	var calls []func()
	if f != nil { // otherwise the next attempt comes at once, if there is one
		calls = w.subs.giveUpWaiting()
	}
	w.mu.Unlock()
	call(calls)
	if f != nil {
		w.cfg.Up.Away()
	} else {
		w.cfg.Up.Expect()
	}
}

func (w *Worker) endedLocked(f *failure.Failure, end governor.End) {
	now := time.Now()
	w.cancelTry = nil // no attempt is under way
	w.upSince = time.Time{}
	class := w.retry.Ended(end, now)
	if f == nil {
		return
	}
	if f.RetryAfter > 0 {
		w.retry.Later(f.RetryAfter, now)
	}
	if says, war := w.retry.War(); war && class == governor.ClassTakenOver {
		f = failure.New(failure.KickWar, failure.StageOnline, errors.New(says), "")
	}
	w.outage.failed(f, w.logFailureLocked(f))
	w.last, w.latest, w.latestAt = f, f, now
	if w.cfg.Failed != nil {
		w.cfg.Failed(f)
	}
}

// logEvery is how often a failure that stays the same is logged.
const logEvery = 10 * time.Minute

// logFailureLocked returns whether the failure was logged above debug.
func (w *Worker) logFailureLocked(f *failure.Failure) bool {
	log, tell := w.log.Debug, true
	if last := w.logged.failure; last != nil && last.Kind == f.Kind && last.Reason() == f.Reason() {
		tell = time.Since(w.logged.at) >= logEvery
	}
	if tell {
		log = w.log.Warn
		w.logged.failure, w.logged.at = f, time.Now()
	}
	backoff, _ := w.retry.Next(time.Now())
	fields := []zap.Field{
		zap.String("class", string(f.Class())), zap.String("kind", string(f.Kind)),
		zap.String("state", string(stateOf(f.Stage))), zap.String("reason", f.Reason()),
		zap.Int("attempt", w.retry.Failures()), zap.Duration("backoff", backoff.Round(time.Millisecond)),
	}
	if f.Err != nil {
		fields = append(fields, zap.NamedError("err", f.Err))
	}
	if tell {
		fields = append(fields, zap.String("remedy", f.Info().Remedy))
	}
	if f.Class() == failure.ClassRejected {
		log("the cloud refused the login", fields...)
	} else {
		log("no session with the cloud", fields...)
	}
	return tell
}

func (w *Worker) setState(s State, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.setStateLocked(s, reason)
}

func (w *Worker) setStateLocked(s State, reason string) {
	w.soon()
	if w.state == s && w.reason == reason {
		return
	}
	w.state, w.since, w.reason = s, time.Now(), reason
	w.line.add(Change{At: w.since, State: s, Reason: reason})
	switch {
	case s == Idle, s == Online && w.outage.since.IsZero(): // otherwise it is told that the outage is over
		w.log.Info("state", zap.String("state", string(s)), zap.String("reason", reason))
	default:
		w.log.Debug("state", zap.String("state", string(s)), zap.String("reason", reason))
	}
}
