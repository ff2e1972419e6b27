package upstream

import (
	"context"
	"sync"
	"testing"
	"time"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// succeed retires the rig's worker and starts another one in its place.
func (r *rig) succeed(cfg Config, same bool) *Worker {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.w.Retire(ctx)
	cfg.Up, cfg.Down, cfg.Marks, cfg.Log = r.up, r.down, r.down, r.w.cfg.Log
	next := New(cfg)
	next.Succeed(r.w, same)
	next.Start()
	r.tb.Cleanup(func() { next.Stop(context.Background()) })
	return next
}

// A worker that is retired delivers what it has begun, while the device goes on; what comes meanwhile is the next
// one's. What the old one is told afterwards counts for the new one.
func TestSucceed(t *testing.T) {
	c := generic(t)
	r := start(t, base(c.WSURL()))
	old := r.w
	old.Connected(mqtt.Connect{Clean: true})
	granted := make(chan []byte, 1)
	old.Subscribe([]mqtt.Subscription{{Filter: "a", QoS: 1}}, func(codes []byte) { granted <- codes })
	<-granted
	r.inState(Online)
	c.Delay("dev", 2*time.Millisecond)
	for n := range 50 {
		r.offer("t", string(rune('A'+n)), 1, mqtt.Token(n+1))
	}
	next := r.succeed(base(c.WSURL()), true)
	if got := len(c.ReceivedFrom("dev")); got != 50 {
		t.Errorf("the old one has delivered %d messages", got)
	}
	if old.Status().Reason != "the configuration has changed" {
		t.Errorf("%+v", old.Status())
	}
	until(t, "online", func() bool { return next.Status().State == Online })
	if err := c.WaitSubscribed(within(t), "dev", "a"); err != nil {
		t.Fatal(err)
	}
	old.Subscribe([]mqtt.Subscription{{Filter: "b", QoS: 1}}, func(codes []byte) { granted <- codes })
	if codes := <-granted; codes[0] != 1 {
		t.Errorf("SUBACK %v", codes)
	}
	if err := c.WaitSubscribed(within(t), "dev", "b"); err != nil {
		t.Fatal(err)
	}
	if st := next.Status(); !st.Device || st.Connects != 2 {
		t.Errorf("%+v", st)
	}
	old.Disconnected(true, 0)
	if next.Status().Device {
		t.Error("the device has left, and the new one does not know")
	}
	until(t, "idle", func() bool { return next.Status().State == Idle })
	if !old.Offer(mqtt.Message{Topic: "t", Payload: []byte("late"), QoS: 1}, r.dev, 99) {
		t.Fatal("not taken")
	}
	until(t, "delivered", func() bool { return len(c.ReceivedFrom("dev")) == 51 })
}

// A worker that is retired while there is no cloud ends at once, and leaves what it has.
func TestRetireWithoutACloud(t *testing.T) {
	c := generic(t)
	url := c.WSURL()
	c.Down()
	r := start(t, base(url))
	r.offer("t", "x", 1, 1)
	_ = r.failure()
	r.w.Retire(context.Background())
	if n := r.up.Counters().Queued; n != 1 {
		t.Errorf("%d queued", n)
	}
}

// A worker that is dismissed forgets what the down lane has not taken, and gives the memory back.
func TestDismissed(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Memory = lane.NewBudget(1 << 20)
	cfg.Subscribe = []mqtt.Subscription{{Filter: "a", QoS: 1}}
	cfg.Always = true
	down := lane.New(lane.Config{MaxMessages: 1, Hold: true, Budget: cfg.Memory})
	cfg.Down, cfg.Marks = down, down
	r := start(t, cfg)
	r.inState(Online)
	for range 5 {
		if err := c.Publish("dev", "a", []byte("x"), 1); err != nil {
			t.Fatal(err)
		}
	}
	one := down.Counters
	until(t, "parked", func() bool { return one().Queued == 1 && cfg.Memory.Used() > one().Bytes })
	r.w.Dismiss(context.Background())
	if got, want := cfg.Memory.Used(), one().Bytes; got != want {
		t.Errorf("%d bytes are taken, want %d", got, want)
	}
	r.w.Room() // whoever does not know yet
}

func TestKeeperServesAChangingSet(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	cfg.Linger = 0
	k := new(Keeper)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { k.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	r := start(t, cfg)
	for range 1000 {
		k.Add(r.w)
		k.Remove(r.w)
	}
	if n := len(k.all()); n != 0 {
		t.Errorf("%d workers", n)
	}
}
