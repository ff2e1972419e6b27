package demo

import (
	"fmt"
	"testing"
	"time"
)

// Epochs of connections.
const (
	lan1, lan2     = 1, 2
	cloud1, cloud2 = 11, 12
)

func TestBook(t *testing.T) {
	var now = time.Now()
	send := func(b *book) { b.send(now, lan1, numbered) }
	arrive := func(b *book, n int) { b.arrive(n, numbered(n), false, lan1, cloud1) }
	both := func(b *book, n int) {
		send(b)
		arrive(b, n)
		b.ack(n, now)
	}
	for _, test := range []struct {
		name  string
		play  func(*book)
		want  tally
		fault string // empty if there is none
	}{
		{"nothing", func(*book) {}, tally{}, ""},
		{"all well", func(b *book) { both(b, 1); both(b, 2) }, tally{sent: 2, acked: 2, arrived: 2}, ""},
		{"acknowledged first, arrived later", func(b *book) { send(b); b.ack(1, now); arrive(b, 1) },
			tally{sent: 1, acked: 1, arrived: 1}, ""},
		{"acknowledged twice", func(b *book) { both(b, 1); b.ack(1, now) }, tally{sent: 1, acked: 1, arrived: 1}, ""},
		{"taken back", func(b *book) { both(b, 1); send(b); b.unsend(2); both(b, 2) },
			tally{sent: 2, acked: 2, arrived: 2}, ""},

		{"lost", func(b *book) { both(b, 1); send(b); b.ack(2, now); both(b, 3) }, tally{sent: 3, acked: 3, arrived: 2},
			"message 2 was lost: acknowledged, and never arrived"},
		{"never acknowledged", func(b *book) { send(b); arrive(b, 1) }, tally{sent: 1, arrived: 1},
			"message 1 arrived, and was never acknowledged"},
		{"neither", func(b *book) { send(b) }, tally{sent: 1}, "message 1 neither arrived nor was acknowledged"},
		{"out of order", func(b *book) {
			send(b)
			send(b)
			arrive(b, 2)
			arrive(b, 1)
			b.ack(1, now)
			b.ack(2, now)
		}, tally{sent: 2, acked: 2, arrived: 2}, "message 1 arrived after message 2: out of order"},
		{"never sent", func(b *book) { both(b, 1); arrive(b, 2) }, tally{sent: 1, acked: 1, arrived: 1},
			"message 2 arrived and was never sent"},
		{"changed", func(b *book) {
			both(b, 1)
			send(b)
			b.arrive(2, []byte(`{"n":2} `), false, lan1, cloud1)
			arrive(b, 2)
			b.ack(2, now)
		}, tally{sent: 2, acked: 2, arrived: 2}, `message 2 arrived with another payload: "{\"n\":2} "`},

		{"twice on the same connections", func(b *book) { both(b, 1); b.arrive(1, numbered(1), true, lan1, cloud1) },
			tally{sent: 1, acked: 1, arrived: 1, repeated: 1}, "message 1 arrived twice without cause"},
		{"again on a new connection", func(b *book) { both(b, 1); b.arrive(1, numbered(1), true, lan1, cloud2) },
			tally{sent: 1, acked: 1, arrived: 1, repeated: 1}, ""},
		{"again on a new connection, and not marked", func(b *book) {
			both(b, 1)
			b.arrive(1, numbered(1), false, lan1, cloud2)
		}, tally{sent: 1, acked: 1, arrived: 1, repeated: 1}, "message 1 arrived again without the DUP flag"},
		{"again since the sender connected anew", func(b *book) { both(b, 1); b.arrive(1, numbered(1), false, lan2, cloud1) },
			tally{sent: 1, acked: 1, arrived: 1, repeated: 1}, ""},
		{"again since the sender sent it again", func(b *book) {
			send(b)
			b.resent(1)
			b.arrive(1, numbered(1), false, lan2, cloud1)
			b.arrive(1, numbered(1), false, lan2, cloud1)
			b.ack(1, now)
		}, tally{sent: 1, acked: 1, arrived: 1, repeated: 1}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			add, faults := collect()
			b := newBook(add)
			test.play(b)
			b.close()
			if test.fault != "" {
				test.want.faults = 1
			}
			got, _, _ := b.result()
			if got != test.want {
				t.Errorf("counted %+v, want %+v", got, test.want)
			}
			if faults() != test.fault {
				t.Errorf("faults %q, want %q", faults(), test.fault)
			}
		})
	}
}

// A book does not grow, and still knows what it has forgotten.
func TestBookForgets(t *testing.T) {
	add, faults := collect()
	b := newBook(add)
	const lost = 7
	for n := 1; n <= 3*keep; n++ {
		b.send(time.Now(), lan1, numbered)
		if n != lost {
			b.arrive(n, numbered(n), false, lan1, cloud1)
		}
		b.ack(n, time.Now())
		if n == 2*keep {
			if got, most := len(b.messages), 2*keep; got > most {
				t.Errorf("%d messages are remembered", got)
			}
			b.arrive(lost, numbered(lost), false, lan2, cloud1) // late, and after others
		}
	}
	if got := len(b.messages); got != keep {
		t.Errorf("%d messages are remembered, want %d", got, keep)
	}
	b.arrive(3, numbered(3), true, lan2, cloud2)
	want := fmt.Sprintf("message %d arrived after message %d: out of order\n"+
		"message 3 arrived again long after it was done with", lost, 2*keep)
	if faults() != want {
		t.Errorf("faults %q, want %q", faults(), want)
	}
	if b.open() != 0 {
		t.Errorf("%d messages are open", b.open())
	}
}

func TestBookTellsOfLateMessagesOnce(t *testing.T) {
	b := newBook(func(s string) { t.Error(s) })
	start := time.Now()
	for i := range 3 {
		b.send(start.Add(time.Duration(i)*time.Second), lan1, numbered)
	}
	b.ack(1, start)
	look := func(after time.Duration) string { return fmt.Sprintf("%s", b.late(start.Add(after))) }
	for _, step := range []struct {
		after time.Duration
		want  string
	}{
		{time.Second, "[]"},
		{1500 * time.Millisecond, `[{"n":2}]`},
		{1600 * time.Millisecond, "[]"},
		{time.Minute, `[{"n":3}]`},
		{time.Minute, "[]"},
	} {
		if got := look(step.after); got != step.want {
			t.Errorf("after %s: %s, want %s", step.after, got, step.want)
		}
	}
}

func TestSamples(t *testing.T) {
	var s samples
	if s.median() != 0 {
		t.Error("a median of nothing")
	}
	for i := range 3 * maxSamples {
		s.add(time.Duration(i))
	}
	s.add(0)
	if len(s.newest) != maxSamples {
		t.Errorf("%d samples are kept", len(s.newest))
	}
	if want := time.Duration(3*maxSamples - 1); s.longest != want {
		t.Errorf("longest %d, want %d", s.longest, want)
	}
	// The newest are 2*max+1 to 3*max-1, and 0.
	if want := time.Duration(2*maxSamples + maxSamples/2); s.median() != want {
		t.Errorf("median %d, want %d", s.median(), want)
	}
}
