package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/cloudsim"
	"bridged/internal/lane"
	"bridged/internal/testdevice"
)

// restarts runs a bridge for the device dev in front of a generic cloud, again and again.
type restarts struct {
	tb    testing.TB
	dir   string
	extra string
	cloud *cloudsim.Cloud
	kill  bool // it ends as if it were killed, otherwise in order
	*rig
}

func restarting(tb testing.TB, extra string) *restarts {
	tb.Helper()
	r := &restarts{tb: tb, dir: tb.TempDir(), extra: extra}
	r.cloud = simulate(tb, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	r.again()
	return r
}

// again ends the bridge and starts it.
func (r *restarts) again() {
	r.tb.Helper()
	if r.kill {
		r.dir = r.snapshot() // what it does from now on is not seen by the next one
	}
	if r.rig != nil {
		r.stop()
	}
	r.rig = runIn(r.tb, r.dir, genericYAML(r.cloud, r.extra))
}

// snapshot copies the directory, at a moment when nothing is being written.
func (r *restarts) snapshot() string {
	r.tb.Helper()
	var last map[string][]byte
	for {
		files := make(map[string][]byte)
		err := fs.WalkDir(os.DirFS(r.dir), ".", func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				files[path], err = os.ReadFile(filepath.Join(r.dir, path))
			}
			return err
		})
		if err != nil {
			r.tb.Fatal(err)
		}
		if maps.EqualFunc(files, last, bytes.Equal) {
			break
		}
		last = files
	}
	dir := r.tb.TempDir()
	for path, content := range last {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
			r.tb.Fatal(err)
		}
	}
	return dir
}

// twice runs a test with bridges that are stopped, and with bridges that are killed.
func twice(t *testing.T, extra string, test func(*testing.T, *restarts)) {
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("kill=%v", kill), func(t *testing.T) {
			r := restarting(t, extra)
			r.kill = kill
			test(t, r)
		})
	}
}

func (r *restarts) online() {
	r.tb.Helper()
	until(r.tb, "online", func() bool { return r.status("dev").Session.State == "online" })
}

// keeps is dev with a session that is kept.
var keeps = testdevice.Options{ClientID: "dev", Username: "u", Password: "p", Persist: true}

// resume connects dev and returns session present.
func (r *restarts) resume() (*testdevice.Device, bool) {
	r.tb.Helper()
	d := testdevice.Dial(r.tb, r.addr())
	return d, d.Login(keeps).SessionPresent
}

// A kept session goes on after a restart: the device is told so, gets what was stored for it, in order, and what it
// subscribed to.
func TestSessionSurvivesRestart(t *testing.T) {
	twice(t, "    upstream: always\n", testSessionSurvives)
}

func testSessionSurvives(t *testing.T, r *restarts) {
	d, present := r.resume()
	if present {
		t.Error("session present at first")
	}
	r.online()
	d.Subscribe(1, "a", "b")
	d.Unsubscribe("b")
	d.Drop()
	for i := range 5 {
		if err := r.cloud.Publish("dev", "a", fmt.Append(nil, i), 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.cloud.WaitAcked(within(t), 5); err != nil { // stored, then
		t.Fatal(err)
	}
	r.cloud = simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true}) // it knows nothing of the session
	for range 2 {
		r.again()
		if err := r.cloud.WaitSubscribed(within(t), "dev", "a"); err != nil {
			t.Fatal(err)
		}
	}
	if s, _ := r.cloud.Session("dev"); len(s.Subs) != 1 {
		t.Errorf("subscriptions %v", s.Subs)
	}
	if d, present = r.resume(); !present {
		t.Error("the session is not present")
	}
	for i := range 5 {
		p := testdevice.Expect[*packets.PublishPacket](d)
		if string(p.Payload) != fmt.Sprint(i) {
			t.Errorf("message %d is %q", i, p.Payload)
		}
		d.Ack(packets.Puback, p.MessageID)
	}
	until(t, "delivered", func() bool { return r.status("dev").Down.Delivered == 5 })
	d.Drop()

	d = r.connect(dev) // clean: that ends it
	d.Drop()
	r.kill = false // the moment until that is on disk is not waited for
	r.again()
	if _, present = r.resume(); present {
		t.Error("the session is present, although a clean one has ended it")
	}
}

// While nothing changes a kept session costs no writing, however often the device comes and goes.
func TestKeptSessionWritesNothing(t *testing.T) {
	r := restarting(t, "")
	come := func() {
		d, _ := r.resume()
		r.online()
		d.Subscribe(1, "a")
		d.Drop()
		until(t, "gone", func() bool { return !r.status("dev").Session.Device })
	}
	come()
	until(t, "written", func() bool { return r.bridge.Spool().Commits > 0 })
	r.again()
	for range 5 {
		come()
	}
	pause(300 * time.Millisecond) // more than the spool's tick
	if n := r.bridge.Spool().Commits; n != 0 {
		t.Errorf("%d commits", n)
	}
}

// A QoS 2 message that was stored and acknowledged with PUBREC is not taken again after a restart.
func TestExactlyOnceUpOverRestart(t *testing.T) { twice(t, "", testExactlyOnceUp) }

func testExactlyOnceUp(t *testing.T, r *restarts) {
	d, _ := r.resume()
	r.online()
	r.cloud.Down()
	until(t, "the cloud is away", func() bool { return r.status("dev").Session.State != "online" })
	p := d.NewPublish("t", []byte("x"), 2)
	d.Send(p)
	testdevice.Expect[*packets.PubrecPacket](d)
	d.Drop()
	for range 2 {
		r.again()
		var present bool
		if d, present = r.resume(); !present {
			t.Error("the session is not present")
		}
		p.Dup = true
		d.Send(p)
		testdevice.Expect[*packets.PubrecPacket](d)
		d.Drop()
	}
	r.again()
	d, _ = r.resume()
	d.Ack(packets.Pubrel, p.MessageID)
	testdevice.Expect[*packets.PubcompPacket](d)
	d.Drop()
	r.again()
	d, _ = r.resume()
	d.Send(p) // the same once more, but released: a new one
	testdevice.Expect[*packets.PubrecPacket](d)
	if err := r.cloud.Up(); err != nil {
		t.Fatal(err)
	}
	until(t, "delivered", func() bool { return r.status("dev").Up.Delivered == 2 })
	if n := len(r.cloud.Received()); n != 2 {
		t.Errorf("the cloud got %d messages, want 2", n)
	}
}

// The same for one that the cloud has, if the bridge was stopped in order.
func TestExactlyOnceUpOverStop(t *testing.T) {
	r := restarting(t, "")
	d, _ := r.resume()
	r.online()
	p := d.NewPublish("t", []byte("x"), 2)
	d.Send(p)
	testdevice.Expect[*packets.PubrecPacket](d)
	r.again()
	d, _ = r.resume()
	p.Dup = true
	d.Send(p)
	testdevice.Expect[*packets.PubrecPacket](d)
	d.Ack(packets.Pubrel, p.MessageID)
	testdevice.Expect[*packets.PubcompPacket](d)
	r.online()
	if n := len(r.cloud.Received()); n != 1 {
		t.Errorf("the cloud got %d messages, want 1", n)
	}
}

// A QoS 2 message from the cloud that was stored is not taken again when the cloud repeats it after a restart.
func TestExactlyOnceDownOverRestart(t *testing.T) {
	twice(t, "    upstream: always\n", testExactlyOnceDown)
}

func testExactlyOnceDown(t *testing.T, r *restarts) {
	d, _ := r.resume()
	r.online()
	d.Subscribe(2, "a")
	d.Drop()
	until(t, "the device is away", func() bool { return !r.status("dev").Session.Device })
	r.cloud.StallReads("dev", true) // it does not get PUBREC
	if err := r.cloud.Publish("dev", "a", []byte("x"), 2); err != nil {
		t.Fatal(err)
	}
	until(t, "stored", func() bool { return r.status("dev").Down.Stored == 1 })
	r.cloud.Down()
	r.again()
	r.cloud.StallReads("dev", false)
	if err := r.cloud.Up(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.cloud.WaitAcked(within(t), 1); err != nil {
		t.Fatal(err)
	}
	if s := r.cloud.Totals(); s.Resent != 1 {
		t.Errorf("sent again %d times", s.Resent)
	}
	d, _ = r.resume()
	testdevice.Expect[*packets.PubrelPacket](d) // of a message that the process before may have left half-way
	got := testdevice.Expect[*packets.PublishPacket](d)
	d.Ack(packets.Pubrec, got.MessageID)
	testdevice.Expect[*packets.PubrelPacket](d)
	d.Ack(packets.Pubcomp, got.MessageID)
	until(t, "delivered", func() bool { return r.status("dev").Down.Delivered == 1 })
	if c := r.status("dev").Down; c.Accepted != 1 {
		t.Errorf("accepted %d", c.Accepted)
	}
}

// connect5 logs dev in with MQTT 5 and a session expiry in seconds below 256, and returns session present. What the
// test device speaks is MQTT 3.1.1.
func (r *restarts) connect5(expiry byte) (conn net.Conn, present bool) {
	r.tb.Helper()
	conn, err := net.Dial("tcp", r.addr())
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { _ = conn.Close() })                                              // it may be closed already
	connect := slices.Concat([]byte{0x10, 0, 0, 4}, []byte("MQTT"), []byte{5, 0xC0, 0, 0}, // user name and password
		[]byte{5, 17, 0, 0, 0, expiry}, []byte{0, 3}, []byte("dev"), []byte{0, 1, 'u', 0, 1, 'p'})
	connect[1] = byte(len(connect) - 2)
	if _, err := conn.Write(connect); err != nil {
		r.tb.Fatal(err)
	}
	head := make([]byte, 2)
	_, err = io.ReadFull(conn, head)
	ack := make([]byte, head[1])
	if _, err2 := io.ReadFull(conn, ack); err != nil || err2 != nil || head[0] != 0x20 || ack[1] != 0 {
		r.tb.Fatalf("CONNACK %x %x, %v, %v", head, ack, err, err2)
	}
	return conn, ack[0] == 1
}

// A session that is kept for a time goes on after a restart, too, unless its time has passed meanwhile.
func TestExpirySurvivesRestart(t *testing.T) {
	r := restarting(t, "")
	conn, _ := r.connect5(100)
	r.online()
	subscribe := []byte{0x82, 7, 0, 1, 0, 0, 1, 'a', 1}
	if _, err := conn.Write(subscribe); err != nil {
		t.Fatal(err)
	}
	suback := make([]byte, 6)
	if _, err := io.ReadFull(conn, suback); err != nil || !bytes.Equal(suback, []byte{0x90, 4, 0, 1, 0, 1}) {
		t.Fatalf("SUBACK %x, %v", suback, err)
	}
	r.kill = true
	r.again() // while it is connected
	_ = conn.Close()
	conn, present := r.connect5(1)
	if !present {
		t.Error("the session is not present")
	}
	r.online()
	_ = conn.Close()
	until(t, "gone", func() bool { return !r.status("dev").Session.Device })
	if err := r.cloud.Publish("dev", "a", []byte("x"), 1); err != nil {
		t.Fatal(err)
	}
	until(t, "accepted", func() bool { return r.status("dev").Down.Accepted == 1 })
	r.kill = false
	r.stop()
	pause(1200 * time.Millisecond)
	r.again()
	if _, present = r.connect5(100); present { // its time does not begin again
		t.Error("the session is present after its time")
	}
	if n := r.status("dev").Down.Dropped[lane.SessionEnded]; n != 1 {
		t.Errorf("%d messages dropped", n)
	}
}
