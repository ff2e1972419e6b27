package upstream

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"go.uber.org/zap"

	"bridged/internal/credentials"
)

// run makes attempts as long as there is a reason.
func (w *Worker) run() {
	defer w.wg.Done()
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
				return
			}
			w.running.Store(true)
		}
		now := time.Now()
		delay := max(w.retryAt.Sub(now), w.pace.wait(now))
		if delay > 0 {
			calls := w.waitLocked(delay)
			w.mu.Unlock()
			call(calls)
			w.sleep(delay)
			continue
		}
		ctx, cancel := context.WithCancel(w.ctx)
		w.cancelTry = cancel
		w.mu.Unlock()
		f := w.attempt(ctx)
		cancel()
		w.ended(f)
	}
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

// waitLocked begins to wait. It returns calls to be made without the lock.
func (w *Worker) waitLocked(delay time.Duration) []func() {
	reason := "the cloud limits how often a device may connect"
	if w.last != nil {
		reason = w.last.Error()
	}
	w.setStateLocked(Waiting, reason)
	w.log.Debug("waiting", zap.Duration("backoff", delay), zap.Int("attempt", w.failures))
	if w.last == nil && delay <= answerWithin {
		return nil
	}
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
	case <-w.ctx.Done():
	}
}

// attempt goes from signing to the end of the session. It returns nil if the session ended because the worker wanted
// it to.
func (w *Worker) attempt(ctx context.Context) *Failure {
	select {
	case w.cfg.Slots <- struct{}{}:
	default:
		w.setState(Waiting, "other devices of this cloud are connecting")
		select {
		case w.cfg.Slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
	}
	s, f := w.establish(ctx)
	<-w.cfg.Slots
	if s == nil {
		return f
	}
	f = s.serve()
	f, refused := s.judge(f)
	s.close()
	if refused {
		s.dropFirst()
	}
	return f
}

// establish goes from signing to CONNACK. It returns neither a session nor a failure if none is wanted any more.
func (w *Worker) establish(ctx context.Context) (*session, *Failure) {
	w.setState(Signing, "")
	login, err := w.cfg.Identity.Sign(w.cfg.Clock(), nonce())
	if err != nil {
		return nil, fail(ClassConfig, Signing, err, "no credentials can be made for this device")
	}
	w.setState(Dialing, "")
	w.mu.Lock()
	w.pace.began(time.Now())
	w.mu.Unlock()
	ws, nc, f := dial(ctx, w.cfg.URL, w.cfg.TLS)
	if f != nil && ctx.Err() != nil {
		f = nil // not wanted any more
	}
	if ws == nil {
		return nil, f
	}
	s := newSession(w, ws, nc)
	if f := s.connect(login); f != nil || s.ending.Load() {
		s.close()
		return nil, f
	}
	return s, nil
}

// nonce returns random characters for a signature.
func nonce() string { return rand.Text()[:credentials.NonceLength] }

// ended draws the conclusions from the end of an attempt.
func (w *Worker) ended(f *Failure) {
	w.mu.Lock()
	w.endedLocked(f)
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

func (w *Worker) endedLocked(f *Failure) {
	w.cancelTry = nil // no attempt is under way
	if !w.upSince.IsZero() {
		if time.Since(w.upSince) >= w.cfg.Backoff.Stable {
			w.failures = 0
		}
		w.upSince, w.retryAt = time.Time{}, time.Time{}
	}
	if f == nil {
		return
	}
	w.failures++
	w.retryAt = time.Now().Add(w.cfg.Backoff.delay(w.failures, f.Class))
	w.outage.failed(f, w.logFailureLocked(f))
	w.last = f
}

// logEvery is how often a failure that stays the same is logged.
const logEvery = 10 * time.Minute

// logFailureLocked returns whether the failure was logged above debug.
func (w *Worker) logFailureLocked(f *Failure) bool {
	log, tell := w.log.Debug, true
	if last := w.logged.failure; last != nil && last.Class == f.Class && last.Reason == f.Reason {
		tell = time.Since(w.logged.at) >= logEvery
	}
	if tell {
		log = w.log.Warn
		w.logged.failure, w.logged.at = f, time.Now()
	}
	fields := []zap.Field{
		zap.String("class", string(f.Class)), zap.String("state", string(f.Stage)), zap.String("reason", f.Reason),
		zap.Int("attempt", w.failures), zap.Duration("backoff", time.Until(w.retryAt).Round(time.Millisecond)),
	}
	if f.Err != nil && !errors.Is(f.Err, f) {
		fields = append(fields, zap.NamedError("err", f.Err))
	}
	if f.Class == ClassRejected {
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
