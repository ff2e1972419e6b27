package lane

import (
	"errors"
	"time"
)

// ErrDiskLimit is a spool's fault when its lanes have as many bytes on disk as they may.
var ErrDiskLimit = errors.New("the limit of the disk queue is reached")

// ErrRead is a spool's fault when it cannot read what is stored.
var ErrRead = errors.New("stored messages cannot be read")

// Fault is why messages cannot be stored.
type Fault struct {
	Err   error
	Since time.Time
}

// works says whether messages can be stored.
func (s *Spool) works() bool { return s != nil && s.fault.Load() == nil }

// probes says that something has to be written to see whether the store works again.
func (s *Spool) probes() bool {
	fault := s.fault.Load()
	return fault != nil && !errors.Is(fault.Err, ErrDiskLimit) && s.broken.Load() == 0
}

// worked notes that the store does what it is asked to. Lanes that would take nothing while it failed may take
// something again, and nothing else would tell them.
func (s *Spool) worked() {
	if !s.mended() {
		return
	}
	for _, l := range s.all() {
		l.wake()
	}
}

// mended returns whether the store had failed, and does no more.
func (s *Spool) mended() bool {
	s.faults.Lock()
	defer s.faults.Unlock()
	fault := s.fault.Load()
	if fault == nil || s.broken.Load() > 0 ||
		errors.Is(fault.Err, ErrDiskLimit) && (!s.disk.roomy() || s.disk.Used()+s.refused.Load() > s.disk.limit.Load()) {
		return false
	}
	s.fault.Store(nil)
	if s.cfg.OnFault != nil {
		s.cfg.OnFault(nil)
	}
	return true
}

// failed notes that it does not. Lanes that would not deliver before they have stored do so now, and those that would
// have waited for the disk to make room in memory may drop.
func (s *Spool) failed(err error) {
	if s.fail(err) {
		return
	}
	for _, l := range s.all() {
		l.mu.Lock()
		always, drops := l.cfg.Always, l.cfg.OnFull != Block
		l.mu.Unlock()
		if always {
			l.pump()
		}
		if drops {
			l.wake()
		}
	}
}

// fail returns whether the store had failed before.
func (s *Spool) fail(err error) bool {
	s.faults.Lock()
	defer s.faults.Unlock()
	old := s.fault.Load()
	f := &Fault{Err: err, Since: time.Now()}
	if old != nil {
		f.Since = old.Since
	}
	s.fault.Store(f)
	if s.cfg.OnFault != nil && (old == nil || old.Err.Error() != err.Error()) {
		s.cfg.OnFault(err)
	}
	return old != nil
}

func (l *Lane) pump() {
	l.mu.Lock()
	r := l.reader
	l.mu.Unlock()
	if r != nil {
		r.Pump()
	}
}
