package bridge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bridged/internal/cloudsim"
	"bridged/internal/config"
	"bridged/internal/lane"
	"bridged/internal/testdevice"
)

// fleetYAML has devices of these names at c, each with extra. A name with "=" in it brings a password along.
func fleetYAML(c *cloudsim.Cloud, extra string, names ...string) string {
	var yaml strings.Builder
	fmt.Fprintf(&yaml, "clouds:\n  lab: {provider: generic, url: %q}\ndevices:\n", c.WSURL())
	for _, n := range names {
		name, password, _ := strings.Cut(n, "=")
		fmt.Fprintf(&yaml, "  - {name: %s, login: {username: u, password: p%s}%s}\n", name, password, extra)
	}
	return yaml.String()
}

func login(name string) testdevice.Options {
	return testdevice.Options{ClientID: name, Username: "u", Password: "p"}
}

// traffic is a device that publishes and receives until done is closed, on one connection to which nothing may happen.
type traffic struct {
	name       string
	d          *testdevice.Device
	sent, acks int
	got        []string
}

func (f *traffic) run(done <-chan struct{}) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for running := true; running || f.acks < f.sent; {
		select {
		case <-done:
			running, done = false, nil
		case <-tick.C:
			if running && f.sent-f.acks < 20 {
				f.d.Publish("up/"+f.name, []byte(strconv.Itoa(f.sent)), 1)
				f.sent++
			}
		}
		f.take(0)
	}
}

// take handles what has come.
func (f *traffic) take(wait time.Duration) bool {
	p := f.d.Next(wait)
	switch p := p.(type) {
	case nil:
		if err := f.d.Err(); err != nil {
			f.d.Fatalf("%s: the connection has ended: %v", f.name, err)
		}
		return false
	case *packets.PubackPacket:
		f.acks++
	case *packets.PublishPacket:
		f.got = append(f.got, string(p.Payload))
		f.d.Ack(packets.Puback, p.MessageID)
	}
	return true
}

// numbers is "0", "1" and so on.
func numbers(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = strconv.Itoa(i)
	}
	return all
}

// received is what the cloud got from a device, in order.
func received(c *cloudsim.Cloud, name string) (all []string) {
	for _, m := range c.ReceivedFrom(name) {
		all = append(all, string(m.Payload))
	}
	return all
}

// Reloads that add, remove and change devices leave the others alone: one connection on each side, every message once
// and in order.
func TestReloadLeavesOthersAlone(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	r := run(t, fleetYAML(c, "", "a", "b", "x", "y"))
	done := make(chan struct{})
	var wg sync.WaitGroup
	var steady [2]*traffic
	var down [2]int
	for i, name := range []string{"a", "b"} {
		steady[i] = &traffic{name: name, d: r.connect(login(name))}
		steady[i].d.Subscribe(1, "down/"+name)
		wg.Go(func() { steady[i].run(done) })
	}
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
			}
			i := n % 2
			if err := c.Publish(steady[i].name, "down/"+steady[i].name, []byte(strconv.Itoa(down[i])), 1); err != nil {
				t.Error(err)
			}
			down[i]++
		}
	})
	x := r.connect(login("x"))
	y := r.connect(login("y"))
	for round := range 3 {
		got := r.reload(fleetYAML(c, "", "a", "b", "y=q", "z"))
		want := Difference{Added: []string{"z"}, Removed: []string{"x"}, Changed: []string{"y"}, Unchanged: 2}
		if diff := cmp.Diff(want, got.Devices, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("round %d: %s", round, diff)
		}
		x.Closed()
		y.Closed()
		z := r.connect(login("z"))
		z.Publish("up/z", []byte("z"), 1)
		testdevice.Expect[*packets.PubackPacket](z)
		r.reload(fleetYAML(c, "", "a", "b", "x", "y"))
		z.Closed()
		x, y = r.connect(login("x")), r.connect(login("y"))
	}
	close(done)
	wg.Wait()
	for i, f := range steady {
		until(t, "everything has come", func() bool {
			for f.take(10 * time.Millisecond) {
			}
			return len(f.got) >= down[i]
		})
		if diff := cmp.Diff(numbers(f.sent), received(c, f.name)); diff != "" {
			t.Errorf("%s up: %s", f.name, diff)
		}
		if diff := cmp.Diff(numbers(down[i]), f.got); diff != "" {
			t.Errorf("%s down: %s", f.name, diff)
		}
		if n, st := len(c.Connections(f.name)), r.status(f.name); n != 1 || st.Session.Connects != 1 {
			t.Errorf("%s has connected %d times, says %d", f.name, n, st.Session.Connects)
		}
		t.Logf("%s: %d up, %d down", f.name, f.sent, down[i])
	}
	if n := len(c.Violations()); n != 0 {
		t.Errorf("%d violations", n)
	}
}

func TestReloadThatFails(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := c.CA().WriteFile(ca); err != nil {
		t.Fatal(err)
	}
	yaml := fleetYAML(c, "", "a", "b")
	r := run(t, yaml)
	a := r.connect(login("a"))
	next := load(t, r.dir, strings.Replace(fleetYAML(c, "", "b", "z"), "lab: {provider: generic, url: \""+c.WSURL()+"\"}",
		fmt.Sprintf("lab: {provider: generic, url: %q, tls: {ca_file: %q}}", c.WSSURL(), ca), 1))
	if err := os.Remove(ca); err != nil { // after it was checked
		t.Fatal(err)
	}
	if _, err := r.bridge.Reload(context.Background(), next); err == nil || !strings.Contains(err.Error(), ca) {
		t.Errorf("error %v", err)
	}
	a.Publish("t", []byte("x"), 1)
	testdevice.Expect[*packets.PubackPacket](a)
	if st := r.bridge.Status(); len(st) != 2 || st[0].Name != "a" || st[0].Session.Connects != 1 {
		t.Errorf("%+v", st)
	}
}

// A secret that was rotated at the cloud: what waits is delivered with the new one, and the device notices nothing.
func TestRotatedSecret(t *testing.T) {
	c := simulate(t, cloudsim.Options{
		Kind: cloudsim.Aliyun, NoWSS: true, Product: "pk", Devices: []cloudsim.Device{{Name: "dev", Secret: "old"}},
	})
	secret := filepath.Join(t.TempDir(), "secret")
	write := func(s string) {
		if err := os.WriteFile(secret, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	yaml := fmt.Sprintf(`
clouds:
  sh: {provider: aliyun, url: "%s", product_key: pk, limits: {connects: "0"}}
devices:
  - {name: dev, cloud: sh, login: {username: u, password: p}, device_secret: {file: "%s"}}
`, c.WSURL(), secret)
	r := run(t, yaml)
	d := r.connect(dev)
	d.Subscribe(1, "down")
	if err := c.WaitSubscribed(within(t), "dev", "down"); err != nil {
		t.Fatal(err)
	}
	if got := r.reload(yaml); got.Devices.Unchanged != 1 || len(c.Connections("dev")) != 1 {
		t.Errorf("nothing has changed, and %+v", got)
	}
	if err := c.SetDevice(cloudsim.Device{Name: "dev", Secret: "new"}); err != nil {
		t.Fatal(err)
	}
	c.Drop("dev", cloudsim.CutReset)
	until(t, "refused", func() bool { return len(c.LoginFailures()) > 0 })
	for i := range 50 {
		d.Publish("t", []byte(strconv.Itoa(i)), 1)
	}
	write("new")
	if got := r.reload(yaml); !cmp.Equal(got.Devices.Changed, []string{"dev"}) {
		t.Errorf("%+v", got)
	}
	for range 50 {
		testdevice.Expect[*packets.PubackPacket](d)
	}
	until(t, "delivered", func() bool { return len(received(c, "dev")) >= 50 })
	if diff := cmp.Diff(numbers(50), received(c, "dev")); diff != "" {
		t.Error(diff)
	}
	if err := c.WaitSubscribed(within(t), "dev", "down"); err != nil { // for the device, which does not know
		t.Fatal(err)
	}
	if err := c.Publish("dev", "down", []byte("x"), 1); err != nil {
		t.Fatal(err)
	}
	testdevice.Expect[*packets.PublishPacket](d)
}

// A session that goes on after its secret was rotated: what is in flight either way stays in flight, QoS 2 included.
func TestRotatedSecretInFlight(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	yaml := genericYAML(c, "    username: one\n    password: pw\n")
	r := run(t, yaml)
	d := r.connect(keeps)
	d.Subscribe(2, "down")
	if err := c.WaitSubscribed(within(t), "dev", "down"); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish("dev", "down", []byte("x"), 2); err != nil {
		t.Fatal(err)
	}
	p := testdevice.Expect[*packets.PublishPacket](d)
	r.reload(strings.Replace(yaml, "one", "two", 1))
	until(t, "back", func() bool { return r.status("dev").Session.State == "online" && len(c.Connections("dev")) == 2 })
	d.Ack(packets.Pubrec, p.MessageID)
	testdevice.Expect[*packets.PubrelPacket](d)
	d.Ack(packets.Pubcomp, p.MessageID)
	if _, err := c.WaitAcked(within(t), 1); err != nil {
		t.Fatal(err)
	}
	d.Quiet(short) // the cloud has sent it again, which was recognised
	if st := r.status("dev"); st.Down.Accepted != 1 || st.Session.Connects != 2 {
		t.Errorf("%+v", st)
	}
}

// Another cloud: the device stays connected, what it has subscribed to is subscribed to there, and what waits goes
// there.
func TestMovedToAnotherCloud(t *testing.T) {
	from := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	to := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	r := run(t, genericYAML(from, ""))
	d := r.connect(dev)
	d.Subscribe(1, "down")
	until(t, "online", func() bool { return from.Online("dev") })
	from.Down()
	until(t, "away", func() bool { return r.status("dev").Session.State != "online" })
	for i := range 20 {
		d.Publish("t", []byte(strconv.Itoa(i)), 1)
	}
	got := r.reload(genericYAML(to, ""))
	if !cmp.Equal(got.Devices.Changed, []string{"dev"}) || !cmp.Equal(got.Clouds.Changed, []string{"lab"}) {
		t.Errorf("%+v", got)
	}
	if err := to.WaitSubscribed(within(t), "dev", "down"); err != nil {
		t.Fatal(err)
	}
	until(t, "delivered", func() bool { return len(received(to, "dev")) >= 20 })
	if diff := cmp.Diff(numbers(20), received(to, "dev")); diff != "" {
		t.Error(diff)
	}
	for range 20 {
		testdevice.Expect[*packets.PubackPacket](d)
	}
	d.Unsubscribe("down")
	if err := to.WaitUnsubscribed(within(t), "dev", "down"); err != nil {
		t.Fatal(err)
	}
	d.Disconnect()
	until(t, "gone", func() bool { return !r.status("dev").Session.Device })
}

// The queue's settings, linger and upstream do not touch the session.
func TestReloadInPlace(t *testing.T) {
	r, c := generic(t, "")
	d := r.connect(dev)
	until(t, "online", func() bool { return c.Online("dev") })
	c.WithholdAcks("dev")
	for i := range 20 {
		d.Publish("t", []byte(strconv.Itoa(i)), 1)
	}
	until(t, "all there", func() bool { return r.status("dev").Up.Queued == 20 })
	r.reload(genericYAML(c, "    upstream: always\n    linger: 0s\n    queue: {max_messages: 5, on_full: drop_newest}\n"))
	d.Publish("t", []byte("too much"), 1)
	until(t, "dropped", func() bool { return r.status("dev").Up.Dropped[lane.QueueFull] == 1 })
	c.ReleaseAcks("dev")
	for range 21 {
		testdevice.Expect[*packets.PubackPacket](d)
	}
	if diff := cmp.Diff(numbers(20), received(c, "dev")); diff != "" {
		t.Error(diff)
	}
	d.Disconnect()
	until(t, "gone", func() bool { return !r.status("dev").Session.Device })
	pause(short)
	if n := len(c.Connections("dev")); n != 1 || !c.Online("dev") {
		t.Errorf("%d connections, online %v", n, c.Online("dev"))
	}
	r.reload(genericYAML(c, "    linger: 0s\n"))
	if err := c.WaitOffline(within(t), "dev"); err != nil {
		t.Fatal(err)
	}
}

// A device that is removed gets its acknowledgements; what it has not delivered is kept and reported, and its again
// when it is added again, after a restart as well.
func TestRemovedDeviceKeepsItsBacklog(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
			r := restarting(t, "")
			c := r.cloud
			d, _ := r.resume()
			r.online()
			d.Subscribe(1, "down")
			c.Down()
			until(t, "away", func() bool { return r.status("dev").Session.State != "online" })
			for i := range 20 {
				d.Publish("t", []byte(strconv.Itoa(i)), 1)
			}
			for range 20 {
				testdevice.Expect[*packets.PubackPacket](d)
			}
			without := fleetYAML(c, "", "other")
			got := r.reload(without)
			want := []Leftover{{Device: "dev", Up: 20}}
			if !cmp.Equal(got.Left, want) || !cmp.Equal(r.bridge.Unclaimed(), want) {
				t.Errorf("left %v, unclaimed %v", got.Left, r.bridge.Unclaimed())
			}
			d.Closed()
			r.bridge.mu.Lock()
			if n := len(r.bridge.stranded); n != 0 {
				t.Errorf("%d lanes are not released", n)
			}
			r.bridge.mu.Unlock()
			if _, ok := r.bridge.DeviceStatus("dev"); ok {
				t.Error("it is still there")
			}
			if err := c.Up(); err != nil {
				t.Fatal(err)
			}
			if restart {
				r.again()
			} else {
				r.reload(genericYAML(c, ""))
			}
			until(t, "delivered", func() bool { return len(received(c, "dev")) >= 20 })
			if diff := cmp.Diff(numbers(20), received(c, "dev")); diff != "" {
				t.Error(diff)
			}
			if _, present := r.resume(); !present {
				t.Error("the session is not present")
			}
			if err := c.WaitSubscribed(within(t), "dev", "down"); err != nil {
				t.Fatal(err)
			}
			if st := r.status("dev"); st.Up.Accepted != 20 || st.Up.Delivered != 20 || len(r.bridge.Unclaimed()) != 0 {
				t.Errorf("%+v", st.Up)
			}
		})
	}
}

// A device is removed while nothing can be stored: what it has left stays in memory, and is stored when that works.
func TestRemovedDeviceWithoutADisk(t *testing.T) {
	const little, more = "limits: {disk: 1MiB}\n", "limits: {disk: 2MiB}\n"
	for name, then := range map[string]func(*rig, *cloudsim.Cloud){
		"it comes back": func(r *rig, c *cloudsim.Cloud) {
			r.reload(little + genericYAML(c, ""))
			if err := c.Up(); err != nil {
				t.Fatal(err)
			}
			until(t, "delivered", func() bool { return r.status("dev").Up.Delivered == 6 })
		},
		"the disk comes back": func(r *rig, c *cloudsim.Cloud) {
			r.reload(more + fleetYAML(c, "", "other"))
			until(t, "released", func() bool {
				r.bridge.mu.Lock()
				defer r.bridge.mu.Unlock()
				return len(r.bridge.stranded) == 0
			})
			if got := r.bridge.Unclaimed(); !cmp.Equal(got, []Leftover{{Device: "dev", Up: 6}}) {
				t.Errorf("unclaimed %v", got)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
			r := run(t, little+genericYAML(c, ""))
			c.Down()
			d := r.connect(dev)
			until(t, "away", func() bool { return r.status("dev").Session.Failures > 0 })
			for range 6 {
				d.Publish("t", make([]byte, 200_000), 1)
			}
			until(t, "taken", func() bool { return r.status("dev").Up.Accepted == 6 })
			r.reload(little + fleetYAML(c, "", "other"))
			if got := r.bridge.Unclaimed(); !cmp.Equal(got, []Leftover{{Device: "dev", Up: 6}}) {
				t.Errorf("unclaimed %v", got)
			}
			then(r, c)
		})
	}
}

// A device that is removed gets the acknowledgements that are due before it is let go: what they are for is stored.
func TestRemovedDeviceIsAnswered(t *testing.T) {
	yaml := "    queue: {spill_after: 1m}\n    linger: 0s\n"
	r, c := generic(t, yaml)
	d := r.connect(dev)
	until(t, "online", func() bool { return c.Online("dev") })
	c.WithholdAcks("dev")
	for i := range 20 {
		d.Publish("t", []byte(strconv.Itoa(i)), 1)
	}
	until(t, "all taken", func() bool { return r.status("dev").Up.Accepted == 20 })
	d.Quiet(short)
	c.Down()
	r.reload(fleetYAML(c, "", "other"))
	for range 20 {
		testdevice.Expect[*packets.PubackPacket](d)
	}
	d.Closed()
}

// A device that is removed delivers what it can, and says goodbye to the cloud.
func TestRemovedDeviceSaysGoodbye(t *testing.T) {
	r, c := generic(t, "")
	d := r.connect(dev)
	until(t, "online", func() bool { return c.Online("dev") })
	c.Delay("dev", 5*time.Millisecond)
	for i := range 20 {
		d.Publish("t", []byte(strconv.Itoa(i)), 1)
	}
	until(t, "all taken", func() bool { return r.status("dev").Up.Accepted == 20 })
	if got := r.reload(fleetYAML(c, "", "other")); len(got.Left) != 0 {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(numbers(20), received(c, "dev")); diff != "" {
		t.Error(diff)
	}
	if all := c.Connections("dev"); len(all) != 1 || all[0].Reason != cloudsim.EndDisconnect {
		t.Errorf("%+v", all)
	}
}

// A device gets another name: the identity in the cloud is never in use twice.
func TestRenamedDevice(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	r := run(t, fleetYAML(c, ", client_id: same, upstream: always", "one"))
	for i := range 4 {
		until(t, "online", func() bool { return c.Online("same") })
		r.reload(fleetYAML(c, ", client_id: same, upstream: always", []string{"two", "one"}[i%2]))
	}
	until(t, "online", func() bool { return c.Online("same") })
	for _, conn := range c.Connections("same") {
		if conn.Reason != cloudsim.EndDisconnect && conn.Reason != "" {
			t.Errorf("%+v", conn)
		}
	}
}

func TestReloadsAtTheEnd(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	yaml := [2]string{fleetYAML(c, "", "a", "b"), fleetYAML(c, "", "a", "c=q")}
	r := run(t, yaml[0])
	r.connect(login("a"))
	var cfgs [2]*config.Config
	for i := range cfgs {
		cfgs[i] = load(t, r.dir, yaml[i])
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for {
				if _, err := r.bridge.Reload(context.Background(), cfgs[i%2]); err != nil {
					if !errors.Is(err, ErrStopping) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	<-time.After(short)
	r.stop()
	wg.Wait()
	if n := len(c.Connections("a")); n > 1 {
		t.Errorf("%d connections", n)
	}
}

func TestNeedRestart(t *testing.T) {
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	yaml := fleetYAML(c, "", "a")
	r := run(t, yaml)
	other := "listen: [{url: 'tcp://127.0.0.2:0'}]\nlimits: {max_packet_size: 100KiB, memory: 32MiB, disk: 2GiB}\n" +
		"log: {format: console, level: debug}\n" +
		"admin: {listen: ':0', token: 0123456789abcdef, device_metrics: 1, pprof: true}\n" + yaml
	r.reload(other)
	got := r.reload(other) // it is still so
	if want := []string{
		"listen", "admin.listen", "admin.token", "admin.device_metrics", "admin.pprof", "log.format",
		"limits.max_packet_size",
	}; !cmp.Equal(got.NeedRestart, want) {
		t.Errorf("%q", got.NeedRestart)
	}
	if r.bridge.Spool().Limit != 2<<30 {
		t.Error("the disk's limit is not changed")
	}
	if got := r.reload(yaml); len(got.NeedRestart) != 0 { // as it was at the start
		t.Errorf("%q", got.NeedRestart)
	}
}
