package lane

import (
	"testing"
	"time"

	"bridged/internal/mqtt"
)

func TestPolicies(t *testing.T) {
	bounds := map[string]struct {
		cfg Config
		n   int // messages that fit
	}{
		"messages": {Config{MaxMessages: 3}, 3},
		"bytes":    {Config{MaxBytes: 3*base + 2}, 3},
		"memory":   {Config{Budget: NewBudget(8 * base)}, 8},
	}
	for name, tt := range bounds {
		fill := func(t *testing.T, policy Policy) (*Lane, *source, int) {
			cfg := tt.cfg
			cfg.Hold, cfg.OnFull = true, policy
			if cfg.Budget != nil {
				cfg.Budget = NewBudget(cfg.Budget.limit.Load())
			}
			l, s := New(cfg), new(source)
			for n := 1; n <= tt.n; n++ {
				offer(t, l, s, n, 1, 0)
			}
			return l, s, tt.n
		}
		t.Run(name+"/block", func(t *testing.T) {
			l, s, n := fill(t, Block)
			before := ledger(t, l)
			if l.Offer(message(1, 0), s, 100) {
				t.Fatal("a full lane took a message")
			}
			after := ledger(t, l)
			if after.Accepted != before.Accepted || after.Queued != before.Queued || after.Bytes != before.Bytes {
				t.Fatalf("a message that was not taken changed the counters from %+v to %+v", before, after)
			}
			r := attach(l, new(consumer))
			if _, rooms := s.got(); rooms != 0 {
				t.Fatal("Room was called too early")
			}
			r.Done(1)
			if settled, rooms := s.got(); rooms != 1 || len(settled) != 1 {
				t.Fatalf("%d calls of Room, settled %v", rooms, settled)
			}
			offer(t, l, s, 100, 1, 0)
			r.Done(2)
			if _, rooms := s.got(); rooms != 0 {
				t.Fatal("Room was called twice")
			}
			if c := ledger(t, l); c.Queued != n-1 || c.DroppedTotal() != 0 {
				t.Fatalf("counters %+v", c)
			}
		})
		t.Run(name+"/drop oldest", func(t *testing.T) {
			l, s, n := fill(t, DropOldest)
			c := new(consumer)
			r := l.Attach(c, Window{Messages: 1})
			r.Start()
			offer(t, l, s, 100, 1, 0)
			wantSettled(t, s) // 2 is gone, and its report waits for 1, which is in flight
			r.Done(1)
			wantSettled(t, s, settlement{1, Delivered}, settlement{2, Dropped})
			wantDelivered(t, c, 1, 3)
			if c := ledger(t, l); c.Dropped[QueueFull] != 1 || c.Queued != n-1 {
				t.Fatalf("counters %+v", c)
			}
		})
		t.Run(name+"/drop oldest, all in flight", func(t *testing.T) {
			l, s, n := fill(t, DropOldest)
			r := attach(l, new(consumer))
			offer(t, l, s, 100, 1, 0)
			if c := ledger(t, l); c.Dropped[QueueFull] != 1 || c.InFlight != n {
				t.Fatalf("counters %+v", c)
			}
			for seq := range uint64(n) {
				r.Done(seq + 1)
			}
			settled, _ := s.got()
			if last := settled[len(settled)-1]; last != (settlement{100, Dropped}) || len(settled) != n+1 {
				t.Fatalf("settled %v", settled)
			}
		})
		t.Run(name+"/drop newest", func(t *testing.T) {
			l, s, n := fill(t, DropNewest)
			offer(t, l, s, 100, 1, 0)
			wantSettled(t, s)
			c := new(consumer)
			r := attach(l, c)
			if got := len(c.got()); got != n {
				t.Fatalf("%d delivered, want %d", got, n)
			}
			for seq := range uint64(n) {
				r.Done(seq + 1)
			}
			settled, _ := s.got()
			if last := settled[len(settled)-1]; last != (settlement{100, Dropped}) || len(settled) != n+1 {
				t.Fatalf("settled %v", settled)
			}
			if c := ledger(t, l); c.Dropped[QueueFull] != 1 || c.Accepted != uint64(n)+1 {
				t.Fatalf("counters %+v", c)
			}
		})
		for _, policy := range []Policy{Block, DropOldest, DropNewest} {
			t.Run(name+"/QoS 0", func(t *testing.T) {
				l, s, n := fill(t, policy)
				offer(t, l, nil, 0, 0, 0)
				if c := ledger(t, l); c.Dropped[QueueFull] != 1 || c.Queued != n {
					t.Fatalf("policy %d: counters %+v", policy, c)
				}
				if settled, rooms := s.got(); len(settled)+rooms != 0 {
					t.Fatalf("policy %d: settled %v, %d calls of Room", policy, settled, rooms)
				}
			})
		}
	}
}

// TestDropOldestMakesRoomInBytes drops as many as are needed, and no more.
func TestDropOldestMakesRoomInBytes(t *testing.T) {
	l, s := New(Config{Hold: true, MaxBytes: 4 * base, OnFull: DropOldest}), new(source)
	for n := 1; n <= 4; n++ {
		offer(t, l, s, n, 1, 0)
	}
	offer(t, l, s, 5, 1, int(2*base))
	wantSettled(t, s, settlement{1, Dropped}, settlement{2, Dropped}, settlement{3, Dropped})
	if c := ledger(t, l); c.Queued != 2 || c.Bytes != 4*base {
		t.Fatalf("counters %+v", c)
	}
}

// TestRefuse counts what the source itself cannot relay, in its turn.
func TestRefuse(t *testing.T) {
	l, s, c := New(Config{Hold: true}), new(source), new(consumer)
	l.Refuse(TopicLimit, s, 1)
	wantSettled(t, s, settlement{1, Dropped})
	offer(t, l, s, 2, 1, 0)
	l.Refuse(TooLarge, s, 3)
	l.Refuse(TooLarge, nil, 0)
	wantSettled(t, s)
	r := attach(l, c)
	for _, d := range c.got() {
		r.Done(d.Seq)
	}
	wantSettled(t, s, settlement{2, Delivered}, settlement{3, Dropped})
	if n := ledger(t, l); n.Accepted != 4 || n.Delivered != 1 || n.Dropped[TooLarge] != 2 || n.Dropped[TopicLimit] != 1 {
		t.Fatalf("counters %+v", n)
	}
}

func TestNeverDeliverable(t *testing.T) {
	tests := map[string]struct {
		cfg    Config
		m      mqtt.Message
		reason Reason // 0: taken
	}{
		"payload":             {Config{MaxPayload: 10}, message(1, 11), TooLarge},
		"payload fits":        {Config{MaxPayload: 10}, message(1, 10), 0},
		"bytes":               {Config{MaxBytes: base + 10}, message(1, 11), TooLarge},
		"bytes fit":           {Config{MaxBytes: base + 10}, message(1, 10), 0},
		"memory":              {Config{Budget: NewBudget(base + 10)}, message(1, 11), TooLarge},
		"memory fits":         {Config{Budget: NewBudget(base + 10)}, message(1, 10), 0},
		"topic bytes":         {Config{MaxTopicBytes: 3}, mqtt.Message{Topic: "abcd", QoS: 1}, TopicLimit},
		"topic bytes fit":     {Config{MaxTopicBytes: 3}, mqtt.Message{Topic: "abc", QoS: 1}, 0},
		"topic levels":        {Config{MaxTopicLevels: 2}, mqtt.Message{Topic: "/a/b/c", QoS: 1}, TopicLimit},
		"topic levels fit":    {Config{MaxTopicLevels: 3}, mqtt.Message{Topic: "/a/b/c", QoS: 1}, 0},
		"QoS 0 while away":    {Config{DropQoS0: true}, message(0, 0), QoS0Away},
		"QoS 0 stored":        {Config{}, message(0, 0), 0},
		"QoS 1 while away":    {Config{DropQoS0: true}, message(1, 0), 0},
		"expired on arrival":  {Config{}, mqtt.Message{Topic: "t", QoS: 1, Expires: time.Now().Add(-time.Second)}, Expired},
		"whatever the policy": {Config{MaxPayload: 10, OnFull: DropOldest}, message(2, 11), TooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.cfg.Hold = true
			l, s := New(tt.cfg), new(source)
			if !l.Offer(tt.m, s, 7) {
				t.Fatal("not taken")
			}
			l.Sweep()
			c := ledger(t, l)
			if tt.reason == 0 {
				if c.Queued != 1 {
					t.Fatalf("counters %+v", c)
				}
				return
			}
			if c.Dropped[tt.reason] != 1 || c.Accepted != 1 || c.LastDropped != tt.reason {
				t.Fatalf("counters %+v, want one dropped for %v", c, tt.reason)
			}
			wantSettled(t, s, settlement{7, Dropped}) // the device does not try for ever
			if b := tt.cfg.Budget; b != nil && b.Used() != 0 {
				t.Errorf("%d bytes are taken from the budget", b.Used())
			}
		})
	}
}
