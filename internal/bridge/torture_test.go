package bridge

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/cloudsim"
	"bridged/internal/testdevice"
	"bridged/internal/upstream"
)

// The cloud's connections are cut a hundred times at random moments under load, in every way that the simulator knows.
// Everything that was acknowledged to a device arrives, in order, and repetitions say so; and the same downwards. With
// tight queues both sides are not read most of the time.
func TestCutAHundredTimes(t *testing.T) {
	t.Run("wide", func(t *testing.T) { cutAHundredTimes(t, "", 16, 10, 1) })
	t.Run("tight", func(t *testing.T) {
		cutAHundredTimes(t, ", queue: {max_messages: 3, spill_after: 1h}", 2*64+16, 1, 50)
	})
}

// cutAHundredTimes has so many messages of each device unacknowledged, loses at most so many acknowledgements at once,
// and sends so many messages in a row to devices.
func cutAHundredTimes(t *testing.T, queue string, window, lost, burst int) {
	const (
		devices = 8
		cuts    = 100
	)
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, KeepReceived: 10_000_000}) // all of them, however fast
	yaml := twoWays(t, c)
	for i := range devices {
		fmt.Fprintf(yaml, "  - {name: d%d, cloud: %s%s}\n", i, []string{"ws", "wss"}[i%2], queue)
	}
	r := run(t, yaml.String())

	done := make(chan struct{}) // the cuts are over
	stress := make([]*stressed, devices)
	var wg sync.WaitGroup
	for i := range stress {
		name := fmt.Sprintf("d%d", i)
		stress[i] = &stressed{d: r.connect(testdevice.Options{ClientID: name, Persist: true}), name: name}
		stress[i].d.Subscribe(1, "down")
	}
	for _, s := range stress {
		wg.Go(func() { s.run(window, done) })
	}
	sent := make([]int, devices) // downwards
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(time.Duration(2*(1-min(i%burst, 1))) * time.Millisecond):
			}
			d := i % devices
			if err := c.Publish(stress[d].name, "down", []byte(strconv.Itoa(sent[d])), 1); err != nil {
				t.Errorf("publish: %v", err)
				return
			}
			sent[d]++
		}
	})

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range cuts {
		name := stress[rng.IntN(devices)].name
		switch rng.IntN(6) {
		case 0:
			c.Drop(name, cloudsim.CutClose)
		case 1:
			c.Drop(name, cloudsim.CutReset)
		case 2:
			c.Drop(name, cloudsim.CutCloseFrame)
		case 3:
			c.CutInFrame(name)
		case 4:
			c.LoseAcks(name, 1+rng.IntN(lost))
		case 5:
			c.DropAfter(name, 1+rng.IntN(30), 1, cloudsim.CutReset)
		}
		<-time.After(time.Duration(rng.IntN(30)) * time.Millisecond) // the load goes on
	}
	c.Heal()
	close(done)
	wg.Wait()

	for i, s := range stress {
		until(t, s.name+": everything delivered", func() bool {
			st := r.status(s.name)
			s.takeDown()
			return st.Up.Queued == 0 && st.Down.Queued == 0 && s.downNext == sent[i]
		})
		checkArrivals(t, c, s)
		if len(c.Connections(s.name)) < 3 {
			t.Errorf("%s was hardly ever cut", s.name)
		}
		if s.downNext != sent[i] {
			t.Errorf("%s got %d of %d messages", s.name, s.downNext, sent[i])
		}
		t.Logf("%s: %d up, %d down, %d connections", s.name, s.sent, sent[i], len(c.Connections(s.name)))
	}
	r.balanced()
}

// checkArrivals checks what the cloud received from a device: every message, in order; what comes again is marked,
// and is followed by everything after it.
func checkArrivals(t *testing.T, c *cloudsim.Cloud, s *stressed) {
	t.Helper()
	next, last := 0, -1
	for _, m := range c.ReceivedFrom(s.name) {
		n, err := strconv.Atoi(string(m.Payload))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case n > next || n != last+1 && !m.Dup:
			t.Fatalf("%s: message %d after %d, while %d was due (DUP %v)", s.name, n, last, next, m.Dup)
		case n < next && !m.Dup:
			t.Fatalf("%s: message %d again, without DUP", s.name, n)
		case n == next:
			next++
		}
		last = n
	}
	if next != s.sent {
		t.Errorf("%s: %d of %d messages arrived", s.name, next, s.sent)
	}
}

// stressed is a device that publishes numbers as fast as it gets them acknowledged, and checks the numbers it gets.
type stressed struct {
	d        *testdevice.Device
	name     string
	sent     int
	acked    []uint16 // identifiers that wait for PUBACK, in order
	downNext int
}

func (s *stressed) run(window int, done <-chan struct{}) {
	for {
		select {
		case <-done:
			for len(s.acked) > 0 {
				s.take(testdevice.Patience)
			}
			return
		default:
		}
		for len(s.acked) < window {
			s.acked = append(s.acked, s.d.Publish("up", []byte(strconv.Itoa(s.sent)), 1))
			s.sent++
		}
		s.take(testdevice.Patience)
	}
}

// take handles the next packet.
func (s *stressed) take(within time.Duration) bool {
	switch p := s.d.Next(within).(type) {
	case *packets.PubackPacket:
		if len(s.acked) == 0 || p.MessageID != s.acked[0] {
			s.d.Fatalf("%s: PUBACK %d, want the first of %v", s.name, p.MessageID, s.acked)
		}
		s.acked = s.acked[1:]
	case *packets.PublishPacket:
		n, err := strconv.Atoi(string(p.Payload))
		// What the cloud sends again because an acknowledgement was lost is a message of its own on this hop.
		if err != nil || n > s.downNext {
			s.d.Fatalf("%s: got %q (DUP %v), want %d", s.name, p.Payload, p.Dup, s.downNext)
		}
		if n == s.downNext {
			s.downNext++
		}
		s.d.Ack(packets.Puback, p.MessageID)
	default:
		if within == testdevice.Patience {
			s.d.Fatalf("%s: got %v (%v), with %d messages unacknowledged", s.name, p, s.d.Err(), len(s.acked))
		}
		return false
	}
	return true
}

// takeDown handles what is there.
func (s *stressed) takeDown() {
	for s.take(time.Millisecond) {
	}
}

// Five hundred devices come at once, over WSS and WS, talk both ways, and go. TestMain sees that nothing is left.
func TestFiveHundredDevices(t *testing.T) {
	const n = 500
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic})
	yaml := twoWays(t, c)
	for i := range n {
		fmt.Fprintf(yaml, "  - {name: d%d, cloud: %s, linger: 0s}\n", i, []string{"ws", "wss"}[i%2])
	}
	r := run(t, yaml.String())
	devices := make([]*testdevice.Device, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			name := fmt.Sprintf("d%d", i)
			d := r.connect(testdevice.Options{ClientID: name})
			devices[i] = d
			if codes := d.Subscribe(1, "down"); codes[0] != 1 {
				d.Fatalf("%s: SUBACK %v", name, codes)
			}
			for range 3 {
				d.Publish("up", []byte(name), 1)
				testdevice.Expect[*packets.PubackPacket](d)
			}
			// All that may have come from the disk, and the SUBACK from here, before the session was there.
			if err := c.WaitSubscribed(within(t), name, "down"); err != nil {
				d.Fatalf("%s: %v", name, err)
			}
			if err := c.Publish(name, "down", []byte(name), 1); err != nil {
				d.Fatalf("%s: %v", name, err)
			}
			if p := testdevice.Expect[*packets.PublishPacket](d); string(p.Payload) != name {
				d.Fatalf("%s got %q", name, p.Payload)
			} else {
				d.Ack(packets.Puback, p.MessageID)
			}
		})
	}
	wg.Wait()
	if _, err := c.WaitAcked(within(t), n); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitReceived(within(t), 3*n); err != nil {
		t.Fatal(err)
	}
	if got := c.Totals(); got.Received != 3*n || got.Connects != n || got.Violations != 0 {
		t.Errorf("received %d, connects %d, violations %d", got.Received, got.Connects, got.Violations)
	}
	for i, d := range devices {
		if i%2 == 0 {
			d.Disconnect()
		}
	}
	until(t, "half of them idle", func() bool {
		idle := 0
		for _, st := range r.bridge.Status() {
			if st.Session.State == upstream.Idle {
				idle++
			}
		}
		return idle == n/2
	})
	r.stop()
	if w := r.warnings(); len(w) > 0 {
		t.Errorf("%d warnings in normal operation, the first: %s", len(w), w[0])
	}
}
