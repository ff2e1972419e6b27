package lane

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"bridged/internal/mqtt"
)

// TestRing compares a ring with a slice of the entries that it must hold.
func TestRing(t *testing.T) {
	for range 12 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 0))
		r := ring{next: 1 + rng.Uint64N(3)}
		var want []uint64 // sequence numbers, in order
		spent := make(map[uint64]bool)
		growth := 30 + rng.IntN(40) // percent
		for range 1000 {
			switch n := rng.IntN(100); {
			case n < growth:
				want = append(want, r.end())
				e := r.push(entry{token: mqtt.Token(r.end())})
				if e.seq != want[len(want)-1] {
					t.Fatalf("seed %#x: pushed %d, want %d", seed, e.seq, want[len(want)-1])
				}
			case n < 80 && len(want) > 0: // becomes a place holder
				seq := want[rng.IntN(len(want))]
				r.find(seq).state = gone
				spent[seq] = true
			case r.n > 0:
				spent[want[0]] = true
				want = want[1:]
				r.pop()
			}
			var got []uint64
			for i := range r.n {
				got = append(got, r.at(i).seq)
			}
			// Those that are spent may have been taken out.
			want = slices.DeleteFunc(want, func(seq uint64) bool { return spent[seq] && !slices.Contains(got, seq) })
			if !slices.Equal(got, want) {
				t.Fatalf("seed %#x: holds %v, want %v", seed, got, want)
			}
			checkRingSearch(t, &r, want, rng)
			if n := len(r.buf); n&(n-1) != 0 || n > ringKeep && n > 8*max(r.n, 8) {
				t.Fatalf("seed %#x: %d places for %d entries", seed, n, r.n)
			}
		}
	}
}

func checkRingSearch(t *testing.T, r *ring, want []uint64, rng *rand.Rand) {
	t.Helper()
	if len(want) > 0 && r.first() != want[0] || len(want) == 0 && r.first() != r.end() {
		t.Fatalf("first() = %d, end() = %d, holds %v", r.first(), r.end(), want)
	}
	for range 5 {
		seq := r.first() - min(r.first(), 2) + rng.Uint64N(r.end()-r.first()+4)
		i, ok := slices.BinarySearch(want, seq)
		if got := r.index(seq); got != i {
			t.Fatalf("index(%d) = %d, want %d of %v", seq, got, i, want)
		}
		e := r.find(seq)
		if (e != nil) != ok || ok && (e.seq != seq || e.token != mqtt.Token(seq)) {
			t.Fatalf("find(%d) = %+v, holds %v", seq, e, want)
		}
	}
}

// TestRingGap compares a ring that entries are cut out of and put back into with a slice.
func TestRingGap(t *testing.T) {
	for range 30 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 0))
		r := ring{next: 1}
		var want, away []uint64 // what it holds, and what was cut out and is not behind where it goes
		at := 0                 // where the latter goes
		for range 300 {
			switch n := rng.IntN(100); {
			case n < 50:
				want = append(want, r.end())
				r.push(entry{token: mqtt.Token(r.end())})
			case n < 65 && len(want) > 0:
				r.pop()
				want = want[1:]
				at = max(0, at-1)
			case n < 80: // at the beginning or the end of what is away, if there is any
				i := rng.IntN(len(want) + 1)
				if len(away) > 0 {
					i = at
				}
				j := i + rng.IntN(len(want)-i+1)
				if rng.IntN(2) == 0 && len(away) > 0 {
					i, j = rng.IntN(at+1), at
					away = slices.Concat(want[i:j], away)
				} else {
					away = slices.Concat(away, want[i:j])
				}
				r.cut(i, j)
				want, at = slices.Concat(want[:i], want[j:]), i
			case len(away) > 0:
				k := 1 + rng.IntN(len(away))
				entries := make([]entry, k)
				for i, seq := range away[:k] {
					entries[i] = entry{seq: seq, token: mqtt.Token(seq)}
				}
				r.insert(at, entries)
				want = slices.Insert(want, at, away[:k]...)
				away, at = away[k:], at+k
			}
			if err := checkRing(&r, want); err != nil {
				t.Fatalf("seed %#x: %v", seed, err)
			}
			checkRingSearch(t, &r, want, rng)
		}
	}
}

// checkRing looks at the ring's places: none that is free keeps anything.
func checkRing(r *ring, want []uint64) error {
	if r.n != len(want) {
		return fmt.Errorf("%d entries, want %v", r.n, want)
	}
	for i := range r.buf {
		switch e := r.at(i); {
		case i < len(want) && (e.seq != want[i] || e.token != mqtt.Token(want[i])):
			return fmt.Errorf("%d at %d, want %v", e.seq, i, want)
		case i >= len(want) && (e.seq != 0 || e.token != 0):
			return fmt.Errorf("%d is kept in a free place", e.seq)
		}
	}
	if n := len(r.buf); n&(n-1) != 0 || n > ringKeep && n > 8*max(r.n, 8) {
		return fmt.Errorf("%d places for %d entries", n, r.n)
	}
	return nil
}

// places is how many entries a lane has memory for.
func places(l *Lane) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.q.buf)
}

// TestMemoryIsReleased fills a lane and empties it, but for one message.
func TestMemoryIsReleased(t *testing.T) {
	l, c := New(Config{Hold: true}), new(consumer)
	r := attach(l, c)
	for range 10_000 {
		l.Offer(message(1, 0), new(source), 0)
	}
	if places(l) < 10_000 {
		t.Fatal("too few places")
	}
	for _, d := range c.got()[:9_999] {
		r.Done(d.Seq)
	}
	if n := places(l); n > ringKeep {
		t.Errorf("%d places for one message", n)
	}
}

// TestMemoryBehindOneMessage has the far side never acknowledge one message, while others come and go.
func TestMemoryBehindOneMessage(t *testing.T) {
	tests := map[string]struct {
		cfg Config
		qos byte
		run func(r *Reader, c *consumer)
	}{
		"QoS 0 is delivered": {Config{}, 0, func(*Reader, *consumer) {}},
		"QoS 1 is acknowledged": {Config{}, 1, func(r *Reader, c *consumer) {
			for _, d := range c.got() {
				r.Done(d.Seq)
			}
		}},
		"the oldest is dropped": {Config{MaxMessages: 5, OnFull: DropOldest}, 1, func(r *Reader, c *consumer) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.notReady = true
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.cfg.Hold = true
			l, s, c := New(tt.cfg), new(source), new(consumer)
			r := attach(l, c)
			offer(t, l, s, 1, 1, 0)
			wantDelivered(t, c, 1)
			for range 5_000 {
				l.Offer(message(tt.qos, 0), nil, 0)
				tt.run(r, c)
			}
			if n := places(l); n > 64 {
				t.Errorf("%d places for %d messages", n, ledger(t, l).Queued)
			}
			wantSettled(t, s)
			r.Done(1)
			wantSettled(t, s, settlement{1, Delivered})
			ledger(t, l)
		})
	}
}

// TestMemoryWhileAway drops the oldest for long while no consumer is there to move on.
func TestMemoryWhileAway(t *testing.T) {
	l, s := New(Config{Hold: true, MaxMessages: 10, OnFull: DropOldest}), new(source)
	for n := range 10_000 {
		offer(t, l, s, n, 1, 0)
	}
	if n := places(l); n > ringKeep {
		t.Errorf("%d places for 10 messages", n)
	}
	c := new(consumer)
	attach(l, c)
	if got := c.got(); len(got) != 10 || got[0].Seq != 9_991 || got[9].Seq != 10_000 {
		t.Errorf("delivered %v", got)
	}
}

// A lane that holds nothing keeps nothing, and goes on from there.
func TestRingRests(t *testing.T) {
	l, c := New(Config{Hold: true}), new(consumer)
	r := attach(l, c)
	for round := range 3 {
		for range 20 {
			l.Offer(message(1, 0), new(source), 0)
		}
		l.Sweep()
		if n := places(l); n < 20 {
			t.Fatalf("round %d: %d places for 20 messages", round, n)
		}
		for _, d := range c.got() {
			r.Done(d.Seq)
		}
		l.Sweep()
		if n := places(l); n != 0 {
			t.Errorf("round %d: %d places are kept", round, n)
		}
	}
	if n := l.Counters().Delivered; n != 60 {
		t.Errorf("%d delivered", n)
	}
}
