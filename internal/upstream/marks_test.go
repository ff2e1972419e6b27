package upstream

import (
	"maps"
	"slices"
	"sync"
	"testing"

	"bridged/internal/cloudsim"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// disk stands for the marks of the down lane.
type disk struct {
	mu    sync.Mutex
	saved []mqtt.Mark // when the process started
	marks map[uint16]uint32
	slow  bool     // the test calls write
	dones []func() // of removals that are not on disk
}

func newDisk(saved ...mqtt.Mark) *disk {
	d := &disk{saved: saved, marks: make(map[uint16]uint32)}
	for _, m := range saved {
		d.marks[m.ID] = m.Sum
	}
	return d
}

func (d *disk) Marks() []mqtt.Mark { return d.saved }

func (d *disk) Mark(m mqtt.Mark) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marks[m.ID] = m.Sum
}

func (d *disk) Unmark(id uint16, done func()) {
	d.mu.Lock()
	_, marked := d.marks[id]
	delete(d.marks, id)
	if d.slow && marked {
		d.dones = append(d.dones, done)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	done()
}

func (d *disk) ClearMarks() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.marks)
}

// pending is how many removals are not on disk.
func (d *disk) pending() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.dones)
}

// write has the removals on disk.
func (d *disk) write() {
	d.mu.Lock()
	dones := d.dones
	d.dones = nil
	d.mu.Unlock()
	for _, done := range dones {
		done()
	}
}

func (d *disk) ids() []uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.marks))
}

func mark(id uint16, payload string) mqtt.Mark {
	return mqtt.Mark{ID: id, Sum: mqtt.Sum([]byte(payload))}
}

// unfinished is a cloud with messages of QoS 2 in its session for dev that were sent, to a process that was killed
// before it acknowledged them.
func unfinished(t *testing.T, payloads ...string) *cloudsim.Cloud {
	t.Helper()
	c := generic(t)
	r := start(t, base(c.WSURL()))
	r.w.Connected(mqtt.Connect{Expiry: mqtt.Forever})
	subscribe(t, r, "down", 2)
	for _, p := range payloads {
		if err := c.Publish("dev", "down", []byte(p), 2); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the messages", func() bool { return r.down.Counters().Queued == len(payloads) })
	r.stop()
	if s, _ := c.Session("dev"); len(s.Unacked) != len(payloads) || s.Unacked[0].PacketID != 1 {
		t.Fatalf("session %+v", s)
	}
	return c
}

func unacked(c *cloudsim.Cloud) int {
	s, _ := c.Session("dev")
	return len(s.Unacked)
}

// A QoS 2 message that an earlier process has stored is recognised when the cloud sends it again, and only that.
func TestMarksRestored(t *testing.T) {
	c := unfinished(t, "one", "two", "three")
	cfg := base(c.WSURL())
	m := newDisk(mark(1, "one"), mark(3, "another"))
	cfg.Marks, cfg.Always = m, true
	r := start(t, cfg)
	until(t, "PUBCOMP for the first", func() bool { return unacked(c) == 2 })
	until(t, "the others", func() bool { return r.down.Counters().Accepted == 2 })
	if ids := m.ids(); len(ids) > 0 {
		t.Errorf("marks %v", ids) // one was released, the other is of another message
	}
	r.deliver()
	for i, want := range []string{"two", "three"} {
		until(t, "delivery", func() bool { _, n := r.dev.counts(); return n > i })
		if d := r.dev.delivered[i]; string(d.Message.Payload) != want {
			t.Errorf("delivered %q, want %q", d.Message.Payload, want)
		}
		r.dev.reader.Done(r.dev.delivered[i].Seq)
	}
	until(t, "PUBCOMP for all", func() bool { return unacked(c) == 0 })
	if v := c.Violations(); len(v) != 0 {
		t.Errorf("violations %v", v)
	}
}

// PUBCOMP waits until the mark is gone from disk. If the connection is lost meanwhile, the cloud asks again on the
// next.
func TestPubcompWaitsForTheDisk(t *testing.T) {
	c := unfinished(t, "one")
	cfg := base(c.WSURL())
	m := newDisk(mark(1, "one"))
	m.slow = true
	cfg.Marks, cfg.Always = m, true
	r := start(t, cfg)
	until(t, "PUBREL", func() bool { return m.pending() == 1 })
	if unacked(c) != 1 {
		t.Error("PUBCOMP while the mark is on disk")
	}
	c.Drop("dev", cloudsim.CutReset)
	until(t, "a second session", func() bool { return r.w.Status().Connects == 2 })
	m.write()
	until(t, "PUBCOMP", func() bool { return unacked(c) == 0 })
	if n := r.down.Counters().Accepted; n != 0 {
		t.Errorf("accepted %d", n)
	}
	if v := c.Violations(); len(v) != 0 {
		t.Errorf("violations %v", v)
	}
}

// Marks are of a session of the cloud. If that is gone they mean nothing, whether the device wanted that or not.
func TestMarksOfALostSession(t *testing.T) {
	for name, connect := range map[string]mqtt.Connect{
		"lost":  {Expiry: mqtt.Forever},
		"clean": {Clean: true},
		"reset": {Reset: true, Expiry: 60},
	} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			if name != "lost" {
				c = unfinished(t, "one")
			}
			cfg := base(c.WSURL())
			m := newDisk(mark(1, "one"))
			cfg.Marks = m
			r := start(t, cfg)
			r.w.Connected(connect)
			subscribe(t, r, "down", 2)
			if ids := m.ids(); len(ids) > 0 {
				t.Errorf("marks %v", ids)
			}
			if n := r.w.flow.in.Len(); n > 0 {
				t.Errorf("%d identifiers in use", n)
			}
		})
	}
}

// What was acknowledged with PUBREC and not released gets marks when the process stops, if the cloud keeps the session.
func TestMarksAtTheEnd(t *testing.T) {
	for name, test := range map[string]struct {
		connect    mqtt.Connect
		end, reset bool
		want       []uint16
	}{
		"kept":  {connect: mqtt.Connect{Expiry: 60}, want: []uint16{1}},
		"clean": {connect: mqtt.Connect{Clean: true}},
		"ended": {connect: mqtt.Connect{Expiry: 60}, end: true},
		"reset": {connect: mqtt.Connect{Expiry: 60}, reset: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := generic(t)
			cfg := base(c.WSURL())
			m := newDisk()
			cfg.Marks = m
			r := start(t, cfg)
			r.deliver()
			r.w.Connected(test.connect)
			subscribe(t, r, "down", 2)
			for _, p := range []string{"one", "two"} {
				if err := c.Publish("dev", "down", []byte(p), 2); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "delivery", func() bool { _, n := r.dev.counts(); return n == 2 })
			c.StallReads("dev", true) // no PUBREL comes
			r.dev.reader.Done(r.dev.delivered[0].Seq)
			if ids := m.ids(); len(ids) > 0 {
				t.Errorf("marks %v", ids)
			}
			r.w.Disconnected(true, test.connect.Expiry)
			if test.end {
				r.w.EndSession()
			}
			if test.reset {
				c.Down()
				r.w.Connected(mqtt.Connect{Reset: true, Expiry: 60})
			}
			r.stop()
			if ids := m.ids(); !slices.Equal(ids, test.want) {
				t.Errorf("marks %v, want %v", ids, test.want)
			}
		})
	}
}

// refusing is a down lane that is full until it is opened.
type refusing struct {
	*lane.Lane
	mu     sync.Mutex
	open   bool
	tokens []mqtt.Token
}

func (f *refusing) Offer(m mqtt.Message, from lane.Source, t mqtt.Token) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.open {
		return false
	}
	f.tokens = append(f.tokens, t)
	return f.Lane.Offer(m, from, t)
}

// Messages of a session that the cloud has lost get through, without the identifiers that belong to other messages now.
func TestParkedMessagesOfALostSession(t *testing.T) {
	c := generic(t)
	cfg := base(c.WSURL())
	full := &refusing{Lane: lane.New(lane.Config{Hold: true})}
	cfg.Down, cfg.Marks = full, newDisk()
	r := start(t, cfg)
	r.w.Connected(mqtt.Connect{Clean: true})
	subscribe(t, r, "down", 2)
	for _, p := range []string{"one", "two"} {
		if err := c.Publish("dev", "down", []byte(p), 2); err != nil {
			t.Fatal(err)
		}
	}
	parked := func() int {
		r.w.flow.mu.Lock()
		defer r.w.flow.mu.Unlock()
		return len(r.w.flow.parking.cars)
	}
	until(t, "parked", func() bool { return parked() == 2 })
	c.Drop("dev", cloudsim.CutReset)
	until(t, "a second session", func() bool { return r.w.Status().Connects == 2 && r.w.Status().State == Online })
	full.mu.Lock()
	full.open = true
	full.mu.Unlock()
	r.w.Room()
	if n := parked(); n != 0 || !slices.Equal(full.tokens, []mqtt.Token{0, 0}) {
		t.Errorf("%d parked, offered with tokens %v", n, full.tokens)
	}
}
