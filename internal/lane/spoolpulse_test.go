package lane

import (
	"slices"
	"testing"
	"time"

	"bridged/internal/mqtt"
	"bridged/internal/pulse"
)

// stuck names the spool's goroutines that make no progress.
func (r *rig) stuck() (names []string) {
	for _, p := range r.spool.Pulses() {
		if p.Stuck(time.Now(), 2*pulse.Every) {
			names = append(names, p.Name)
		}
	}
	return names
}

func (r *rig) wantStuck(when string, names ...string) {
	r.t.Helper()
	if got := r.stuck(); !slices.Equal(got, names) {
		r.t.Errorf("%s: stuck are %q, want %q", when, got, names)
	}
}

// A spool that has nothing to do makes progress, and so does one whose disk fails or never answers.
func TestPulsesOfTheDisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newFakeStore()
		r := newRig(t, store, 0, 0)
		l, s := r.lane(Config{}), &source{}
		goBy(time.Hour)
		r.wantStuck("nothing to do")

		store.set(func(s *fakeStore) { s.commitErr = errStore })
		offerAll(t, l, s, 1, 3)
		goBy(time.Hour)
		r.wantStuck("commits fail")

		store.set(func(s *fakeStore) { s.commitErr, s.delay = nil, time.Hour })
		goBy(30 * time.Minute)
		r.wantStuck("a commit takes an hour")
		goBy(3 * time.Hour)
		r.wantStuck("it was done")
		store.set(func(s *fakeStore) { s.delay = 0 })
		goBy(time.Minute)
		r.wantStored(3)

		offerAll(t, l, s, 4, 4) // there is something left to write on the way down
		_ = r.stop()
		r.wantStored(4)
		goBy(time.Hour)
		r.wantStuck("ended")
	})
}

// Whoever hangs inside the process does not.
func TestPulsesOfTheStuck(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		release := make(chan struct{})
		s := &source{onSettled: func(mqtt.Token, Outcome) { <-release }}
		offerAll(t, r.lane(Config{}), s, 1, 1)
		goBy(time.Minute)
		r.wantStuck("a source hangs", "the spool's writer")
		close(release)
		goBy(time.Second)
		r.wantStuck("it goes on")
	})
}

// A timer that rests is back in time, also when several messages come in a row, and rests again.
func TestTimerRests(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, newFakeStore(), 0, 0)
		l, c, s := r.lane(Config{SpillAfter: time.Second}), new(consumer), &source{}
		reader := attach(l, c)
		rests := func() bool {
			r.spool.mu.Lock()
			defer r.spool.mu.Unlock()
			return r.spool.resting && len(r.spool.attended) == 0
		}
		for round := range 3 {
			goBy(time.Hour)
			if !rests() {
				t.Fatalf("round %d: the timer does not rest", round)
			}
			offerAll(t, l, s, 10*round+1, 10*round+1)
			goBy(400 * time.Millisecond)
			offerAll(t, l, s, 10*round+2, 10*round+2)
			goBy(500 * time.Millisecond)
			r.wantStored(0)
			goBy(300 * time.Millisecond)
			r.wantStored(2)
			for _, d := range c.got() {
				reader.Done(d.Seq)
			}
			goBy(2 * tidyEvery)
			r.wantStored(0)
		}
	})
}
