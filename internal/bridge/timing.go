package bridge

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"bridged/internal/clock"
)

// newClock makes the clock that signatures and certificates go by.
func (b *Bridge) newClock(cfg clock.Config) *clock.Clock {
	cfg.Changed = func(st clock.State) {
		b.tellClock(st)
		b.keeper.ClockChanged()
	}
	return clock.New(cfg)
}

// tellClock logs how the clock is.
func (b *Bridge) tellClock(st clock.State) {
	log := b.log.Info
	if st.Kind == clock.Wrong || st.Kind == clock.Corrected {
		log = b.log.Warn
	}
	fields := []zap.Field{zap.String("state", string(st.Kind)), zap.String("reason", st.Reason)}
	if st.Remedy != "" {
		fields = append(fields, zap.String("remedy", st.Remedy))
	}
	log("the clock", fields...)
}

// Clock tells how the clock is.
func (b *Bridge) Clock() clock.State { return b.clock.State() }

const (
	// otherTime is what the log says when certificates are not verified at the time that the clock shows.
	otherTime = "a certificate is verified at another time than the clock's"
	// otherTimeEvery is how often it says so of each cloud.
	otherTimeEvery = 10 * time.Minute
)

// verifyTime is clock.Clock.VerifyTime for a cloud. That it is made use of can be read in the log.
func verifyTime(c *clock.Clock, log *zap.Logger) func(error) (time.Time, bool) {
	var mu sync.Mutex
	var told time.Time
	return func(err error) (time.Time, bool) {
		at, ok := c.VerifyTime(err)
		if !ok {
			return at, ok
		}
		mu.Lock()
		due := told.IsZero() || time.Since(told) >= otherTimeEvery
		if due {
			told = time.Now()
		}
		mu.Unlock()
		if due {
			st := c.State()
			log.Warn(otherTime, zap.Time("time", at), zap.String("reason", st.Reason), zap.NamedError("err", err),
				zap.String("remedy", st.Remedy))
		}
		return at, ok
	}
}
