package mqtt

import (
	"slices"
	"testing"
)

func q1(payload string) *Message { return &Message{Topic: "t", Payload: []byte(payload), QoS: 1} }
func q2(payload string) *Message { return &Message{Topic: "t", Payload: []byte(payload), QoS: 2} }

func elsewhere(payload string) *Message {
	return &Message{Topic: "u", Payload: []byte(payload), QoS: 2}
}

// step is one call to an Inbox, and what it must answer.
type step struct {
	do   string // publish, settle, store, release, released, restore, mark, unmarked, disconnected, forget, reset
	id   uint16
	dup  bool
	m    *Message
	as   string // publish: remember the token under this name; it must be that of the same name, if there is one
	want any    // Arrival, QoS of Settle, bool of Released and Mark, how many Unmarked
	len  int    // afterwards
}

func TestInbox(t *testing.T) {
	tests := map[string][]step{
		"QoS 1": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "settle", as: "a", want: 1, len: 0},
			{do: "settle", as: "a", want: 0, len: 0},
		},
		"QoS 1 repeated before it is settled": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "publish", id: 1, dup: true, m: q1("a"), as: "a", want: Repeated, len: 1},
			{do: "settle", as: "a", want: 1, len: 0},
		},
		"QoS 1 repeated after it was acknowledged is new": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "settle", as: "a", want: 1, len: 0},
			{do: "publish", id: 1, dup: true, m: q1("a"), as: "b", want: Fresh, len: 1},
			{do: "settle", as: "a", want: 0, len: 1},
			{do: "settle", as: "b", want: 1, len: 0},
		},
		"QoS 1 settled while away is acknowledged when it is repeated": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "disconnected", len: 1},
			{do: "settle", as: "a", want: 0, len: 1},
			{do: "publish", id: 1, dup: true, m: q1("a"), as: "a", want: Received, len: 0},
		},
		"QoS 1 repeated on the next connection and settled then": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "disconnected", len: 1},
			{do: "publish", id: 1, dup: true, m: q1("a"), as: "a", want: Repeated, len: 1},
			{do: "settle", as: "a", want: 1, len: 0},
		},
		"QoS 1 settled on the next connection before it is repeated": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "publish", id: 2, m: q1("b"), as: "b", want: Fresh, len: 2},
			{do: "disconnected", len: 2},
			{do: "publish", id: 1, dup: true, m: q1("a"), as: "a", want: Repeated, len: 2},
			{do: "settle", as: "b", want: 0, len: 2},
			{do: "publish", id: 2, dup: true, m: q1("b"), as: "b", want: Received, len: 2},
			{do: "settle", as: "a", want: 11, len: 0},
		},
		"QoS 1 identifier used again without DUP": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "publish", id: 1, m: q1("a"), as: "b", want: Fresh, len: 1},
			{do: "settle", as: "a", want: 0, len: 1},
			{do: "settle", as: "b", want: 1, len: 0},
		},
		"QoS 1 identifier used again by a device that rebooted, and lost on the way the first time": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "disconnected", len: 1},
			{do: "settle", as: "a", want: 0, len: 1},
			{do: "publish", id: 1, dup: true, m: q1("b"), as: "b", want: Fresh, len: 1},
			{do: "settle", as: "b", want: 1, len: 0},
		},
		"QoS 2": {
			{do: "publish", id: 1, m: q2("a"), as: "a", want: Fresh, len: 1},
			{do: "publish", id: 1, dup: true, m: q2("a"), as: "a", want: Repeated, len: 1},
			{do: "settle", as: "a", want: 2, len: 1},
			{do: "publish", id: 1, dup: true, m: q2("a"), as: "a", want: Received, len: 1},
			{do: "release", id: 1, len: 0},
			{do: "release", id: 1, len: 0},
			{do: "publish", id: 1, m: q2("a"), as: "b", want: Fresh, len: 1},
		},
		"QoS 2 repeated without DUP is a repetition all the same": {
			{do: "publish", id: 1, m: q2("a"), as: "a", want: Fresh, len: 1},
			{do: "publish", id: 1, m: q2("a"), as: "a", want: Repeated, len: 1},
		},
		"QoS 2 settled while away": {
			{do: "publish", id: 1, m: q2("a"), as: "a", want: Fresh, len: 1},
			{do: "disconnected", len: 1},
			{do: "settle", as: "a", want: 0, len: 1},
			{do: "publish", id: 1, dup: true, m: q2("a"), as: "a", want: Received, len: 1},
			{do: "release", id: 1, len: 0},
		},
		"QoS 2 received, and released on the next connection": {
			{do: "publish", id: 1, m: q2("a"), as: "a", want: Fresh, len: 1},
			{do: "settle", as: "a", want: 2, len: 1},
			{do: "disconnected", len: 1},
			{do: "release", id: 1, len: 0},
		},
		"QoS 2 with other content under the same identifier": {
			{do: "publish", id: 1, m: q2("a"), as: "a", want: Fresh, len: 1},
			{do: "publish", id: 1, dup: true, m: q2("b"), as: "b", want: Fresh, len: 1},
			{do: "settle", as: "a", want: 0, len: 1},
			{do: "settle", as: "b", want: 2, len: 1},
			{do: "publish", id: 1, m: &Message{Topic: "tb", QoS: 2}, as: "c", want: Fresh, len: 1},
		},
		"QoS 1 and 2 under the same identifier": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "publish", id: 1, dup: true, m: q2("a"), as: "b", want: Fresh, len: 1},
			{do: "settle", as: "a", want: 0, len: 1},
			{do: "publish", id: 1, dup: true, m: q1("a"), as: "c", want: Fresh, len: 1},
			{do: "settle", as: "b", want: 0, len: 1},
			{do: "settle", as: "c", want: 1, len: 0},
		},
		"PUBREL does not take a QoS 1 message away": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "release", id: 1, len: 1},
			{do: "settle", as: "a", want: 1, len: 0},
		},
		"forgotten": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "forget", as: "a", len: 0},
			{do: "publish", id: 1, dup: true, m: q1("a"), as: "b", want: Fresh, len: 1},
			{do: "forget", as: "a", len: 1},
			{do: "settle", as: "a", want: 0, len: 1},
			{do: "settle", as: "b", want: 1, len: 0},
		},
		"reset": {
			{do: "publish", id: 1, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "publish", id: 2, m: q2("b"), as: "b", want: Fresh, len: 2},
			{do: "reset", len: 0},
			{do: "settle", as: "a", want: 0, len: 0},
			{do: "publish", id: 1, dup: true, m: q1("a"), as: "c", want: Fresh, len: 1},
			{do: "settle", as: "a", want: 0, len: 1},
			{do: "release", id: 2, len: 1},
			{do: "settle", as: "c", want: 1, len: 0},
		},
		"PUBCOMP waits": {
			{do: "publish", id: 1, m: q2("a"), as: "a", want: Fresh, len: 1},
			{do: "store", as: "a", want: 2, len: 1},
			{do: "release", id: 1, as: "r", len: 0},
			{do: "released", as: "r", want: true, len: 0},
			{do: "released", as: "r", want: false, len: 0},
			{do: "release", id: 1, as: "r", len: 0}, // unknown
			{do: "released", as: "r", want: true, len: 0},
		},
		"PUBREL repeated while PUBCOMP waits": {
			{do: "release", id: 1, as: "r", len: 0},
			{do: "release", id: 1, as: "s", len: 0},
			{do: "released", as: "r", want: false, len: 0},
			{do: "released", as: "s", want: true, len: 0},
		},
		"PUBREL of a connection that is gone": {
			{do: "release", id: 1, as: "r", len: 0},
			{do: "disconnected", len: 0},
			{do: "released", as: "r", want: false, len: 0},
			{do: "release", id: 1, as: "s", len: 0},
			{do: "released", as: "r", want: false, len: 0},
			{do: "released", as: "s", want: true, len: 0},
		},
		"PUBREL of a session that is gone": {
			{do: "release", id: 1, as: "r", len: 0},
			{do: "reset", len: 0},
			{do: "released", as: "r", want: false, len: 0},
		},
		"identifier used again while PUBCOMP waits": {
			{do: "release", id: 1, as: "r", len: 0},
			{do: "publish", id: 1, dup: true, m: q2("a"), as: "b", want: Fresh, len: 1},
			{do: "released", as: "r", want: false, len: 1},
			{do: "settle", as: "b", want: 2, len: 1},
		},
		"restored": {
			{do: "restore", id: 1, m: q2("a"), len: 1},
			{do: "unmarked", want: 0, len: 1},
			{do: "publish", id: 1, dup: true, m: q2("a"), as: "a", want: Received, len: 1},
			{do: "unmarked", want: 0, len: 1},
			{do: "publish", id: 1, m: q2("a"), as: "a", want: Received, len: 1},                // as without a restart
			{do: "publish", id: 1, dup: true, m: elsewhere("a"), as: "b", want: Fresh, len: 1}, // the topic is known by now
		},
		"restored and released": {
			{do: "restore", id: 1, m: q2("a"), len: 1},
			{do: "release", id: 1, as: "r", len: 0},
			{do: "released", as: "r", want: true, len: 0},
			{do: "publish", id: 1, dup: true, m: q2("a"), as: "b", want: Fresh, len: 1},
		},
		"restored, and the device rebooted": {
			{do: "restore", id: 1, m: q2("a"), len: 1},
			{do: "publish", id: 1, m: q2("a"), as: "b", want: Fresh, len: 1},
			{do: "settle", as: "b", want: 2, len: 1},
			{do: "unmarked", want: 1, len: 1},
		},
		"restored, and other content": {
			{do: "restore", id: 1, m: q2("a"), len: 1},
			{do: "publish", id: 1, dup: true, m: q2("b"), as: "b", want: Fresh, len: 1},
		},
		"restored, and another QoS": {
			{do: "restore", id: 1, m: q2("a"), len: 1},
			{do: "publish", id: 1, dup: true, m: q1("a"), as: "b", want: Fresh, len: 1},
			{do: "settle", as: "b", want: 1, len: 0},
		},
		"marks": {
			{do: "publish", id: 1, m: q2("a"), as: "a", want: Fresh, len: 1},
			{do: "publish", id: 2, m: q2("b"), as: "b", want: Fresh, len: 2},
			{do: "publish", id: 3, m: q2("c"), as: "c", want: Fresh, len: 3},
			{do: "publish", id: 4, m: q1("d"), as: "d", want: Fresh, len: 4},
			{do: "mark", id: 1, m: q2("a"), as: "a", want: false, len: 4}, // not settled
			{do: "unmarked", want: 0, len: 4},
			{do: "settle", as: "a", want: 2, len: 4},
			{do: "store", as: "b", want: 2, len: 4},
			{do: "disconnected", len: 4},
			{do: "settle", as: "c", want: 0, len: 4},
			{do: "settle", as: "d", want: 0, len: 4},
			{do: "mark", id: 4, m: q1("d"), as: "d", want: false, len: 4},
			{do: "mark", id: 2, m: q2("b"), as: "b", want: false, len: 4}, // has one
			{do: "mark", id: 3, m: q2("c"), as: "c", want: true, len: 4},
			{do: "mark", id: 3, m: q2("c"), as: "c", want: false, len: 4},
			{do: "unmarked", want: 1, len: 4},
			{do: "unmarked", want: 0, len: 4},
		},
		"the mark of a message that is gone": {
			{do: "publish", id: 1, m: q2("a"), as: "a", want: Fresh, len: 1},
			{do: "settle", as: "a", want: 2, len: 1},
			{do: "publish", id: 1, dup: true, m: q2("b"), as: "b", want: Fresh, len: 1},
			{do: "settle", as: "b", want: 2, len: 1},
			{do: "mark", id: 1, m: q2("a"), as: "a", want: false, len: 1},
		},
		"identifiers at both ends": {
			{do: "publish", id: 65535, m: q1("a"), as: "a", want: Fresh, len: 1},
			{do: "publish", id: 1, m: q1("b"), as: "b", want: Fresh, len: 2},
			{do: "settle", as: "a", want: 1, len: 1},
			{do: "settle", as: "b", want: 1, len: 0},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			var in Inbox
			tokens := make(map[string]Token)
			for i, s := range steps {
				if got := s.run(t, &in, tokens); got != s.want {
					t.Fatalf("step %d: %s returned %v, want %v", i, s.do, got, s.want)
				}
				if got := in.Len(); got != s.len {
					t.Fatalf("step %d: after %s %d identifiers are in use, want %d", i, s.do, got, s.len)
				}
			}
		})
	}
}

func (s *step) run(t *testing.T, in *Inbox, tokens map[string]Token) any {
	t.Helper()
	switch s.do {
	case "publish":
		arrival, token := in.Publish(s.id, s.dup, s.m)
		if token.ID() != s.id {
			t.Fatalf("the token of message %q is of identifier %d", s.as, token.ID())
		}
		if old, ok := tokens[s.as]; ok && old != token {
			t.Fatalf("another token for message %q", s.as)
		}
		tokens[s.as] = token
		if got := acknowledged(in); arrival != Received && got > 0 {
			t.Fatalf("publish of %q is %v, and acknowledged %d", s.as, arrival, got)
		}
		return arrival
	case "settle":
		in.Settle(tokens[s.as], false)
		return acknowledged(in)
	case "store":
		in.Settle(tokens[s.as], true)
		return acknowledged(in)
	case "release":
		token := in.Release(s.id)
		if token.ID() != s.id {
			t.Fatalf("the token of PUBREL is of identifier %d", token.ID())
		}
		tokens[s.as] = token
	case "released":
		return in.Released(tokens[s.as])
	case "restore":
		in.Restore([]Mark{{ID: s.id, Sum: Sum(s.m.Payload)}})
	case "mark":
		m, ok := in.Mark(tokens[s.as])
		if want := (Mark{ID: s.id, Sum: Sum(s.m.Payload)}); ok && m != want {
			t.Fatalf("mark %v, want %v", m, want)
		}
		return ok
	case "unmarked":
		return len(in.Unmarked())
	case "disconnected":
		in.Disconnected()
	case "forget":
		in.Forget(tokens[s.as])
	case "reset":
		in.Reset()
	default:
		t.Fatalf("unknown step %q", s.do)
	}
	return nil
}

// acknowledged are the QoS of the acknowledgements that are due, a digit each.
func acknowledged(in *Inbox) (digits int) {
	for _, qos, ok := in.Due(); ok; _, qos, ok = in.Due() {
		digits = 10*digits + int(qos)
	}
	return digits
}

// TestInboxOrder has messages settled in another order than that in which they came on the connection.
func TestInboxOrder(t *testing.T) {
	var in Inbox
	due := func(want ...uint16) {
		t.Helper()
		var got []uint16
		for id, _, ok := in.Due(); ok; id, _, ok = in.Due() {
			got = append(got, id)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("acknowledged %v, want %v", got, want)
		}
	}
	_, lost := in.Publish(1, false, q1("a"))
	_, b := in.Publish(2, false, q1("b"))
	_, c := in.Publish(3, false, q2("c"))
	in.Settle(lost, false)
	due(1) // and lost with the connection
	in.Disconnected()
	in.Settle(b, false)
	due()
	arrival, again := in.Publish(1, true, q1("a"))
	if arrival != Fresh {
		t.Fatalf("a message whose acknowledgement was lost is %v", arrival)
	}
	if arrival, _ := in.Publish(2, true, q1("b")); arrival != Received {
		t.Fatalf("a message that was settled while away is %v", arrival)
	}
	in.Publish(3, true, q2("c"))
	in.Settle(c, false)
	due() // the first is not settled
	_, d := in.Publish(4, false, q1("d"))
	in.Settle(again, false)
	due(1, 2, 3)
	in.Settle(d, false)
	due(4)
	in.Publish(5, false, q1("e"))
	in.Publish(5, false, q1("another")) // the sender has forgotten the one before
	_, f := in.Publish(6, false, q1("f"))
	in.Settle(f, false)
	due()
	_, h := in.Publish(5, false, q1("yet another"))
	in.Settle(h, false)
	due(6, 5)
	if in.Len() != 1 {
		t.Errorf("%d identifiers are in use, want that of the QoS 2 message", in.Len())
	}
}

// TestInboxZeroToken makes sure that a source without a token cannot acknowledge anything.
func TestInboxZeroToken(t *testing.T) {
	var in Inbox
	in.Forget(0)
	in.Settle(0, false)
	if got := acknowledged(&in); got != 0 {
		t.Errorf("Settle(0) acknowledged %d on an empty Inbox", got)
	}
	_, token := in.Publish(0, false, q1("a"))
	in.Settle(0, false)
	if got := acknowledged(&in); got != 0 || token == 0 {
		t.Errorf("Settle(0) acknowledged %d, the token of identifier 0 is %d", got, token)
	}
}
