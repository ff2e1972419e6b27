package broker

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap/zapcore"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// disk stands for the marks of a lane.
type disk struct {
	mu     sync.Mutex
	saved  []mqtt.Mark // when the process started
	marks  map[uint16]uint32
	slow   bool     // the test calls commit
	commit []func() // removals that are not on disk
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
	if d.slow && (marked || len(d.commit) > 0) {
		d.commit = append(d.commit, done)
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

// write has everything on disk.
func (d *disk) write() {
	d.mu.Lock()
	calls := d.commit
	d.commit = nil
	d.mu.Unlock()
	for _, done := range calls {
		done()
	}
}

// ids are the marked identifiers.
func (d *disk) ids() (ids []uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.marks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func mark(id uint16, payload string) mqtt.Mark {
	return mqtt.Mark{ID: id, Sum: mqtt.Sum([]byte(payload))}
}

// kept starts a broker for dev, with a session of an earlier process and these marks.
func kept(tb testing.TB, saved ...mqtt.Mark) (*rig, *cloud, *disk) {
	tb.Helper()
	d, m := plain("dev"), newDisk(saved...)
	d.Marks, d.Kept = m, &Kept{Endless: true}
	r := start(tb, options{}, d)
	return r, r.clouds["dev"], m
}

// A QoS 2 message that was acknowledged by an earlier process is recognised when it is repeated, and only then.
func TestMarksRestored(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		keep := persistent
		if v == 5 {
			keep = expiry(100)
		}
		r, cl, _ := kept(t, mark(1, "one"), mark(2, "two"), mark(3, "three"))
		c, _ := r.connect(v, "dev", keep)
		c.publish("t", "one", 2, 1, dup)
		c.acked(packets.Pubrec, 1)
		c.ack(packets.Pubrel, 1)
		c.acked(packets.Pubcomp, 1)
		cl.receive(0)
		c.publish("t", "two", 2, 2) // not DUP: the device rebooted
		c.acked(packets.Pubrec, 2)
		cl.receive(1)
		c.publish("t", "another three", 2, 3, dup)
		c.acked(packets.Pubrec, 3)
		cl.receive(2)
		c.publish("t", "one", 2, 1, dup) // released: a new one
		c.acked(packets.Pubrec, 1)
		cl.receive(3)
	})
}

// Marks are of the kept session: for another one they mean nothing.
func TestMarksOfAnotherSession(t *testing.T) {
	r, cl, m := kept(t, mark(1, "one"))
	c, _ := r.connect(4, "dev") // clean
	if ids := m.ids(); len(ids) > 0 {
		t.Errorf("marks %v", ids)
	}
	c.publish("t", "one", 2, 1, dup)
	c.acked(packets.Pubrec, 1)
	cl.receive(1)

	d := plain("new")
	m = newDisk(mark(1, "one"))
	d.Marks = m
	r = start(t, options{}, d) // without a session
	c, _ = r.connect(4, "new", persistent)
	if ids := m.ids(); len(ids) > 0 {
		t.Errorf("marks %v without a session", ids)
	}
	c.publish("t", "one", 2, 1, dup)
	c.acked(packets.Pubrec, 1)
	r.clouds["new"].receive(1)
}

// PUBCOMP waits until the mark is gone from disk, and is sent on the connection on which PUBREL came.
func TestPubcompWaitsForTheDisk(t *testing.T) {
	r, _, m := kept(t, mark(1, "one"))
	m.slow = true
	c, _ := r.connect(4, "dev", persistent)
	c.ack(packets.Pubrel, 1)
	c.silent()
	c.ack(packets.Pubrel, 1)
	c.silent()
	m.write()
	c.acked(packets.Pubcomp, 1)
	c.silent()

	m.Mark(mark(2, "two"))
	c.ack(packets.Pubrel, 2)
	c.quiet()
	c.drop()
	until(t, "disconnected", func() bool { return !r.present("dev") })
	c, _ = r.connect(4, "dev", persistent)
	m.write()
	c.silent() // it has not asked on this connection
	c.ack(packets.Pubrel, 2)
	c.acked(packets.Pubcomp, 2)

	m.Mark(mark(3, "three"))
	c.ack(packets.Pubrel, 3)
	c.publish("t", "new", 2, 3)
	c.acked(packets.Pubrec, 3)
	m.write()
	c.silent() // PUBCOMP would be for the new message
}

// An identifier that is used anew loses the mark of the message before.
func TestStaleMark(t *testing.T) {
	r, _, m := kept(t, mark(1, "on"), mark(2, "on"))
	c, _ := r.connect(4, "dev", persistent)
	c.publish("t", "on", 2, 1)
	c.acked(packets.Pubrec, 1)
	if ids := m.ids(); !slices.Equal(ids, []uint16{2}) {
		t.Errorf("marks %v", ids)
	}
}

// When the device leaves, or the bridge stops, the messages that it has not released get marks.
func TestMarksWhenTheDeviceLeaves(t *testing.T) {
	r, cl, m := kept(t)
	cl.manual = true
	c, _ := r.connect(4, "dev", persistent)
	for id := uint16(1); id <= 4; id++ {
		c.publish("t", "m", 2, id)
	}
	c.publish("t", "m", 1, 5)
	cl.receive(5)
	cl.done(0)
	c.acked(packets.Pubrec, 1)
	cl.done(1)
	c.acked(packets.Pubrec, 2)
	c.ack(packets.Pubrel, 2)
	c.acked(packets.Pubcomp, 2)
	if ids := m.ids(); len(ids) > 0 {
		t.Errorf("marks %v while the device is there", ids)
	}
	r.stop()
	if ids := m.ids(); !slices.Equal(ids, []uint16{1}) {
		t.Errorf("marks %v after the device left, want 1", ids)
	}
	cl.done(2) // while away
	cl.done(4)
	if ids := m.ids(); !slices.Equal(ids, []uint16{1, 3}) {
		t.Errorf("marks %v, want 1 and 3", ids)
	}
}

// Sessions that end with their connections get no marks, and a session that is over neither.
func TestNoMarksForSessionsThatEnd(t *testing.T) {
	for name, connect := range map[string]func(*packets.Packet){
		"clean": func(*packets.Packet) {}, "cleaned": persistent, "ended": expiry(100), "expired": expiry(1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, m := plain("dev"), newDisk()
			d.Marks = m
			r := start(t, options{}, d)
			cl := r.clouds["dev"]
			cl.manual = true
			version := byte(4)
			if name == "ended" || name == "expired" {
				version = 5
			}
			c, _ := r.connect(version, "dev", connect)
			c.publish("t", "m", 2, 1)
			c.publish("t", "m", 2, 2)
			cl.receive(2)
			cl.done(0)
			c.acked(packets.Pubrec, 1)
			m.Mark(mark(3, "m")) // as the lane does when it stores a message
			if name == "ended" {
				c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
					Properties: packets.Properties{SessionExpiryIntervalFlag: true}})
			}
			c.drop()
			until(t, "disconnected", func() bool { return !r.present("dev") })
			switch name {
			case "cleaned":
				_, _ = r.connect(4, "dev")
			case "expired":
				until(t, "the end of the session", func() bool { return r.session("dev") == nil })
			}
			cl.done(1)
			if ids := m.ids(); len(ids) > 0 {
				t.Errorf("marks %v", ids)
			}
		})
	}
}

// A kept session's time goes on after a restart, and what it held ends with it.
func TestKeptSessionExpires(t *testing.T) {
	for name, remaining := range map[string]time.Duration{"later": 200 * time.Millisecond, "long ago": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, m := plain("dev"), newDisk(mark(1, "one"))
			d.Marks, d.Kept = m, &Kept{Filters: []string{"f"}, Remaining: remaining}
			r := start(t, options{down: lane.Config{Hold: true}}, d)
			cl := r.clouds["dev"]
			cl.expect("session ended")
			r.logged(zapcore.InfoLevel, sessionExpired)
			if ids := m.ids(); len(ids) > 0 {
				t.Errorf("marks %v", ids)
			}
			if cl.send("t", "m", 1); cl.down.Counters().Dropped[lane.NoSession] != 1 {
				t.Errorf("dropped %v", cl.down.Counters().Dropped)
			}
			if _, ack := r.connect(5, "dev", expiry(100)); ack.SessionPresent {
				t.Error("the session is present")
			}
		})
	}
}

// The device finds a session again that an earlier process kept, with what it had subscribed to.
func TestKeptSessionGoesOn(t *testing.T) {
	d := plain("dev")
	d.Kept = &Kept{Filters: []string{"f"}, Remaining: time.Minute}
	r := start(t, options{}, d)
	c, ack := r.connect(5, "dev", expiry(7))
	if !ack.SessionPresent {
		t.Error("the session is not present")
	}
	c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 1,
		Filters: packets.Subscriptions{{Filter: "f"}, {Filter: "g"}}})
	if codes := c.expect(packets.Unsuback).ReasonCodes; !slices.Equal(codes, []byte{0, 0x11}) {
		t.Errorf("UNSUBACK %#x", codes)
	}
	c.disconnect()
	cl := r.clouds["dev"]
	cl.expect("connected", "disconnected true")
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.expiry != 7 {
		t.Errorf("the session is kept for %d seconds", cl.expiry)
	}
}
