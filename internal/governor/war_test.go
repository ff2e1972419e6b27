package governor

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"bridged/internal/credentials"
)

// round is one session, or one failed attempt.
type round struct {
	fails  Class // no session
	lasted time.Duration
	end    End
	gap    time.Duration // before it
}

// story plays rounds, each after the pause that Retry asks for, and returns after how many of them a war was
// declared, 0 if it was not.
func (r *Retry) story(rounds []round) (declared int, now time.Time) {
	now = start
	for i, x := range rounds {
		now = now.Add(r.delay(now) + x.gap)
		if x.fails != "" {
			r.Failed(x.fails, now)
			continue
		}
		r.Established(now)
		now = now.Add(x.lasted)
		class := r.Ended(x.end, now)
		if _, on := r.War(); on && declared == 0 {
			declared = i + 1
			if class != ClassTakenOver {
				return -1, now
			}
		}
	}
	return declared, now
}

func closed(lasted ...time.Duration) (all []round) {
	for _, d := range lasted {
		all = append(all, round{lasted: d, end: End{Class: ClassNetwork, Close: Closed}})
	}
	return all
}

// with puts a round between each two.
func with(between round, all []round) (mixed []round) {
	for _, x := range all {
		mixed = append(mixed, x, between)
	}
	return mixed
}

func change(all []round, f func(*round)) []round {
	for i := range all {
		f(&all[i])
	}
	return all
}

func TestKickWarEvidence(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	same := func(d time.Duration) []round { return closed(d, d, d, d, d, d, d, d, d, d) }
	network := round{fails: ClassNetwork}
	lost := round{lasted: 3 * s, end: End{Class: ClassNetwork, Close: Lost}}
	reset := round{lasted: 3 * s, end: End{Class: ClassNetwork, Close: Reset}}
	wanted := round{lasted: 3 * s}
	tests := []struct {
		name   string
		rounds []round
		want   int
	}{
		{"the other comes back at once", same(200 * ms), 4},
		{"after five seconds", same(5 * s), 4},
		{"after half a minute", same(30 * s), 4},
		{"about", closed(4*s, 6*s, 5*s, 10*s), 4},
		{"with a jitter", closed(1*s, 20*s, 3*s, 40*s, 9*s, 2*s), 6},
		{"one odd one first", closed(44*s, 5*s, 5*s, 5*s, 5*s), 5},
		{"three only", closed(5*s, 5*s, 5*s), 0},
		{"five different ones", closed(1*s, 20*s, 3*s, 40*s, 9*s), 0},
		{"said by the cloud", []round{{lasted: time.Hour, end: End{Class: ClassNetwork, Close: Kicked}}}, 1},
		{"an idle timeout of a minute", same(time.Minute), 0},
		{"a long one is no round", closed(50*s, 40*s, 40*s, 40*s), 0},
		{"long ones between", with(closed(10 * time.Minute)[0], same(5*s)), 0},
		{"one long one, then a war", append(closed(5*s, 5*s, 5*s, time.Hour), same(5*s)...), 8},
		{"dialling fails between", with(network, same(5*s)), 0},
		{"the cloud throttles between", with(round{fails: ClassThrottled}, same(5*s)), 0},
		{"silent losses between", with(lost, same(5*s)), 0},
		{"silent losses only", change(same(5*s), func(x *round) { x.end.Close = Lost }), 0},
		{"resets only", change(same(5*s), func(x *round) { x.end.Close = Reset }), 0},
		{"resets between", with(reset, same(5*s)), 7},
		{"ended by this side", change(same(5*s), func(x *round) { x.end.Class = "" }), 0},
		{"this side between", with(wanted, same(5*s)), 7},
		{"a message that the cloud does not like", change(same(1*s), func(x *round) { x.end.Stuck = true }), 0},
		{"now and then", change(same(5*s), func(x *round) { x.gap = 11 * time.Minute }), 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRetry(RetryConfig{})
			if got, _ := r.story(test.rounds); got != test.want {
				t.Errorf("declared after %d rounds, want %d", got, test.want)
			}
		})
	}
}

// A bad network: connects fail now and then, sessions last as they like and end in each way there is.
func TestFlakyNetworkIsNoWar(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	fresh := NewRetries(RetryConfig{Rand: func(d time.Duration) time.Duration {
		return time.Duration(rnd.Int64N(int64(d) + 1))
	}})
	wars := 0
	const links = 500
	for range links {
		r := fresh()
		var rounds []round
		for range 100 {
			if rnd.IntN(3) == 0 {
				rounds = append(rounds, round{fails: ClassNetwork})
				continue
			}
			how := []Close{Lost, Lost, Reset, Closed}[rnd.IntN(4)]
			lasted := time.Duration(rnd.ExpFloat64() * float64(30*time.Second))
			rounds = append(rounds, round{lasted: lasted, end: End{Class: ClassNetwork, Close: how}})
		}
		if n, _ := r.story(rounds); n != 0 {
			wars++
		}
	}
	// 50,000 rounds. Four suitable ones in a row come by chance, alike ones rarely.
	if wars > links/100 {
		t.Errorf("%d of %d flaky links were taken for a war", wars, links)
	}
}

func TestWarIsSlowedDownAndNamed(t *testing.T) {
	r := newRetry(RetryConfig{})
	n, at := r.story(closed(5*time.Second, 5*time.Second, 6*time.Second, 5*time.Second))
	d, why := r.Next(at)
	if n != 4 || d != 3*time.Minute {
		t.Fatalf("declared after %d rounds, then a pause of %s", n, d)
	}
	const want = "another client seems to use this device's identity: 4 sessions in a row were ended by the cloud, " +
		"typically after 5s"
	if war, on := r.War(); !on || war != want || why != want {
		t.Errorf("war %q, why %q", war, why)
	}
	if r.Nudge(at.Add(time.Minute)) || r.Recovered(at.Add(time.Minute)) {
		t.Error("the pause was cut short")
	}
	again := func(lasted time.Duration, how Close) Class {
		at = at.Add(r.delay(at))
		r.Established(at)
		at = at.Add(lasted)
		return r.Ended(End{Class: ClassNetwork, Close: how}, at)
	}
	// Two who both slow down hold the identity for minutes each. It stays the same war.
	for i, want := range []time.Duration{5, 9, 17, 21, 21} {
		if class := again(time.Duration(i*5)*time.Minute, Closed); class != ClassTakenOver {
			t.Errorf("round %d: %s", i, class)
		}
		if d := r.delay(at); d != want*time.Minute {
			t.Errorf("round %d: a pause of %s, want %d minutes", i, d, want)
		}
	}
	if class := again(10*time.Second, Reset); class != ClassTakenOver {
		t.Errorf("reset within a war: %s", class)
	}
	if n := len(r.war.rounds); n > r.cfg.War.Any {
		t.Errorf("%d rounds are remembered", n)
	}
	if class := again(10*time.Minute, Lost); class != ClassNetwork || r.delay(at) > time.Minute {
		t.Errorf("a network failure within a war: %s, wait %s", class, r.delay(at))
	}
	r.Failed(ClassNetwork, at)
	if _, on := r.War(); !on {
		t.Error("the war ended with a network failure")
	}
	if class := again(30*time.Minute, Closed); class != ClassNetwork {
		t.Errorf("after half an hour of peace: %s", class)
	}
	if _, on := r.War(); on || r.delay(at) != time.Second {
		t.Errorf("war %t, wait %s", on, r.delay(at))
	}
}

func TestKickedOnce(t *testing.T) {
	r := newRetry(RetryConfig{})
	_, at := r.story([]round{{lasted: time.Hour, end: End{Class: ClassNetwork, Close: Kicked}}})
	war, on := r.War()
	if !on || !strings.Contains(war, "the session was ended by the cloud, typically after 1h0m0s") {
		t.Errorf("%t %q", on, war)
	}
	if d := r.delay(at); d != 3*time.Minute {
		t.Errorf("wait %s", d)
	}
}

// Two bridges with the same identity at a cloud that limits how often it may connect: they use the limit up between
// them, so that the cloud refuses most connects, and are told all the same what is going on.
func TestTwoBridgesAtALimit(t *testing.T) {
	for name, limit := range map[string]credentials.Rate{"tencent": tencent, "alibaba": alibaba} {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			fresh := NewRetries(RetryConfig{Rand: func(d time.Duration) time.Duration {
				return time.Duration(rnd.Int64N(int64(d) + 1))
			}})
			late, connects := 0, 0
			const pairs = 200
			for range pairs {
				noticed, n := warAtALimit([2]*Retry{fresh(), fresh()}, limit)
				connects += n
				if noticed > 10*time.Minute {
					late++
				}
			}
			if late > pairs/10 {
				t.Errorf("%d of %d pairs of bridges did not notice within ten minutes", late, pairs)
			}
			if connects > pairs*24*20 {
				t.Errorf("%d connects in a day", connects/pairs)
			}
		})
	}
}

// warAtALimit has two holders connect for a day. It returns when one of them noticed the other, and how often they
// connected.
func warAtALimit(r [2]*Retry, limit credentials.Rate) (noticed time.Duration, connects int) {
	const day = 24 * time.Hour
	noticed = day
	next, holder := [2]time.Time{start, start.Add(100 * time.Millisecond)}, -1
	var taken []time.Time
	for now := start; now.Before(start.Add(day)); {
		i := 0
		if next[1].Before(next[0]) {
			i = 1
		}
		now = next[i]
		if n := len(taken) - limit.Count; n >= 0 && now.Sub(taken[n]) < limit.Per {
			r[i].Ended(End{Class: ClassThrottled, Crowded: true}, now)
			next[i] = now.Add(r[i].delay(now))
			continue
		}
		taken = append(taken, now)
		r[i].Established(now)
		next[i] = start.Add(2 * day) // it does not connect while it is connected
		if other := 1 - i; holder == other {
			r[other].Ended(End{Class: ClassNetwork, Close: Closed}, now)
			next[other] = now.Add(r[other].delay(now))
			if _, war := r[other].War(); war && noticed == day {
				noticed = now.Sub(start)
			}
		}
		holder = i
	}
	return noticed, len(taken)
}

// Two bridges with the same identity, a cloned gateway: both notice, and connects become rare.
func TestTwoBridgesAtWar(t *testing.T) {
	fresh := NewRetries(RetryConfig{})
	r := []*Retry{fresh(), fresh()}
	now, holder := start, 0
	next := [2]time.Time{start, start}
	var connects []time.Time
	r[0].Established(now)
	for now.Before(start.Add(24 * time.Hour)) {
		other := 1 - holder
		now = next[other]
		connects = append(connects, now)
		r[other].Established(now)
		r[holder].Ended(End{Class: ClassNetwork, Close: Closed}, now)
		next[holder] = now.Add(max(r[holder].delay(now), span(tencent)))
		holder = other
	}
	_, first := r[0].War()
	_, second := r[1].War()
	if !first && !second {
		t.Error("neither noticed")
	}
	if n := len(connects); n > 24*20 {
		t.Errorf("%d connects in a day", n)
	}
	if early := connects[min(12, len(connects)-1)].Sub(start); early < time.Minute {
		t.Errorf("the first twelve connects took %s", early)
	}
}
