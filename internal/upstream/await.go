package upstream

import "bridged/internal/failure"

// A device may bring its own login, which only the cloud can judge: Config.Identity signs with what the device
// presents, and the device waits for its CONNACK until Config.Verdict has been told.

// Await says that the device presents a login, with which Identity signs from now on, and waits for the cloud's word
// on it. clean says that its session ends with its connection. The next attempt comes at once, as far as the cloud's
// limits allow; a session with another login ends before. It lasts until Connected, unless
// another login waits by then, or Forget.
func (w *Worker) Await(clean bool) {
	w = w.lock()
	w.awaited, w.awaitedClean = true, clean
	s := w.live
	switch {
	case s != nil:
		s.yieldLocked("the device presents another login")
	case w.cancelTry != nil:
		w.cancelTry()
	}
	w.retry.Afresh()
	w.mu.Unlock()
	w.flushSession(s)
	w.kick()
}

// Forget says that the device does not come after all. If Identity signs with an earlier login again, that is tried at
// once.
func (w *Worker) Forget() {
	w = w.lock()
	w.awaited = false
	w.retry.Afresh()
	w.mu.Unlock()
	w.settle()
	w.kick()
}

// Awaits says whether a device is awaited.
func (w *Worker) Awaits() bool {
	w = w.lock()
	defer w.mu.Unlock()
	return w.awaited
}

// judged tells what came of an attempt's login.
func (w *Worker) judged(f *failure.Failure) {
	if w.cfg.Verdict != nil {
		w.cfg.Verdict(f)
	}
}

// Established says whether there is a session that the cloud has accepted and that goes on.
func (w *Worker) Established() bool {
	w = w.lock()
	defer w.mu.Unlock()
	s := w.live
	return s != nil && s.established && !s.ending.Load() && !s.yielding.Load()
}
