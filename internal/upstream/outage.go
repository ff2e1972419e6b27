package upstream

import (
	"time"

	"go.uber.org/zap"

	"bridged/internal/failure"
)

// outage is a time in which a session is wanted and there is none. The zero value is none. Worker.mu protects it.
type outage struct {
	since  time.Time
	reason string // of the latest failure
	told   bool   // the log has one of them above debug
}

func (o *outage) failed(f *failure.Failure, told bool) {
	if o.since.IsZero() {
		o.since = time.Now()
	}
	o.reason = f.Error()
	o.told = o.told || told
}

// recoveredLocked tells that an outage is over, if there was one. When connections break again and again for the same
// reason that is told now and then only, like the reason.
func (w *Worker) recoveredLocked() {
	if w.outage.since.IsZero() {
		return
	}
	log := w.log.Debug
	if w.outage.told {
		log = w.log.Info
	}
	log("back online", zap.Duration("offline_for", time.Since(w.outage.since).Round(time.Millisecond)),
		zap.String("reason", w.outage.reason))
	w.outage = outage{}
}
