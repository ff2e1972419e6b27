package bridge

import (
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
