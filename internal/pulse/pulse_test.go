package pulse

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pulse
		stuck := func(want bool, what string) {
			t.Helper()
			if got := p.Stuck(time.Now(), time.Minute); got != want {
				t.Errorf("%s: %t", what, got)
			}
		}
		stuck(false, "not begun")
		p.Beat()
		<-time.After(time.Minute)
		stuck(false, "a beat just within the limit")
		<-time.After(time.Nanosecond)
		stuck(true, "a beat too long ago")
		p.Beat()
		stuck(false, "come round")

		want := errors.New("its error")
		err := p.Outside(func() error {
			<-time.After(time.Hour)
			stuck(false, "outside")
			return want
		})
		if !errors.Is(err, want) {
			t.Error(err)
		}
		stuck(false, "back from outside")
		<-time.After(time.Hour)
		stuck(true, "stuck inside again")
		p.End()
		stuck(false, "ended")
		_ = p.Outside(func() error { return nil })
		<-time.After(time.Hour)
		stuck(false, "outside after the end")
	})
}
