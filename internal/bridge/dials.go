package bridge

import (
	"encoding/json"
	"fmt"
	"time"

	"go.uber.org/zap"

	"bridged/internal/config"
	"bridged/internal/governor"
)

// What devices have used up of their clouds' connect limits is kept as a note, so that a restart does not exceed them.
// It is written when the process ends in order, and never before. The note says of which process it is: after a crash
// the last one is another's.

// dialsNote is its name.
const dialsNote = "dials"

// dialsRecord is its value, as JSON.
type dialsRecord struct {
	Version int             `json:"version"`
	Run     string          `json:"run"`
	Used    []governor.Used `json:"used"`
}

const dialsVersion = 1

// DialLimits is how many connects may begin, as configured.
func DialLimits(l config.Limits) governor.Config {
	limits := func(atOnce, perSecond int) governor.Limits {
		return governor.Limits{AtOnce: atOnce, Open: 2 * atOnce, PerSecond: float64(perSecond)}
	}
	return governor.Config{
		Endpoint: limits(l.DialsAtOnce, l.DialsPerSecond),
		Total:    limits(l.DialsAtOnce+l.DialsAtOnce/2, 2*l.DialsPerSecond),
	}
}

// newGovernor takes up where the process before has left off.
func (b *Bridge) newGovernor(notes map[string][]byte) *governor.Governor {
	cfg := DialLimits(b.cfg.Limits)
	cfg.Recovered = func(endpoint string) { b.keeper.Recovered(endpoint) }
	cfg.Used, cfg.Earlier = b.lock.earlierDials(notes[dialsNote], b.log)
	return governor.New(cfg)
}

// earlierDials is what a process before this one has left, or, if it has left nothing, until when there may have been
// one; zero if there was none.
func (l *dirLock) earlierDials(note []byte, log *zap.Logger) ([]governor.Used, time.Time) {
	if l.before.run == "" {
		return nil, time.Time{}
	}
	var r dialsRecord
	if len(note) > 0 {
		err := json.Unmarshal(note, &r)
		if err == nil && r.Version != dialsVersion {
			err = fmt.Errorf("version %d is not known", r.Version)
		}
		if err != nil {
			log.Warn("how often devices have connected lately cannot be read: they wait as if they had connected just now",
				zap.NamedError("err", err))
			return nil, time.Now()
		}
	}
	if r.Run == l.before.run {
		return r.Used, time.Time{}
	}
	return nil, l.before.until
}

// keepDials leaves what counts to the next process. It comes when no device connects any more.
func (b *Bridge) keepDials() {
	value, err := json.Marshal(dialsRecord{Version: dialsVersion, Run: b.lock.run, Used: b.governor.Used()})
	if err != nil {
		panic(err) // only for types that it does not have
	}
	if err := b.spool.Note(dialsNote, value, nil); err != nil {
		b.log.Warn("how often devices have connected lately is not kept: after a restart they wait before they connect",
			zap.NamedError("err", err))
	}
}

// Dials tells who connects, and who waits for that.
func (b *Bridge) Dials() governor.Stats { return b.governor.Stats() }
