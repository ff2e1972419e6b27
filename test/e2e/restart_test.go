package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"golang.org/x/sync/errgroup"

	"bridged/internal/testdevice"
)

const (
	loadDevices  = 4
	loadMessages = 600 // each way and device
	// inFlight is how many messages of one QoS may be on their way, in all windows together.
	inFlight = 100
)

// load is devices at the bridge and an application at the cloud, all of them busy.
type load struct {
	devices  []*peer // each publishes below up/ID and takes what comes below down/ID
	senders  []*peer // at the cloud, one for each device
	observer *peer   // at the cloud, takes everything that devices publish
	run      *errgroup.Group
}

// loadCloud keeps messages in order. With a limit Mosquitto has new ones overtake those that wait.
var loadCloud = cloud{global: "max_inflight_messages 0"}

// startLoad starts devices that log in at addr, and the application.
func startLoad(t *testing.T, m *mosquitto, addr string) *load {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	l := &load{observer: &peer{
		addr: m.addr(), id: "observer", filter: "up/#", expect: loadDevices * loadMessages,
	}}
	l.run, ctx = errgroup.WithContext(ctx)
	begin := func(p *peer) { l.run.Go(func() error { return p.run(ctx) }) }
	begin(l.observer)
	m.expect(1, "observer 2 up/#") // before the first message
	for i := range loadDevices {
		id := fmt.Sprint("load-", i)
		d := &peer{
			addr: addr, id: id, user: id, password: secretMark, topic: "up/" + id, total: loadMessages,
			filter: "down/" + id + "/#", expect: loadMessages,
		}
		l.devices = append(l.devices, d)
		begin(d)
	}
	for _, d := range l.devices { // a session that has not subscribed gets nothing
		m.expect(1, d.id+" 2 "+d.filter)
		s := &peer{addr: m.addr(), id: "to-" + d.id, topic: "down/" + d.id, total: loadMessages}
		l.senders = append(l.senders, s)
		begin(s)
	}
	return l
}

// loadYAML configures the devices.
func loadYAML(m *mosquitto) string {
	var b strings.Builder
	fmt.Fprintf(&b, "clouds: {lab: {provider: generic, url: %q}}\ndevices:\n", m.url())
	for i := range loadDevices {
		fmt.Fprintf(&b, "  - {name: load-%d, login: {username: load-%[1]d, password: %s}}\n", i, secretMark)
	}
	return b.String()
}

// progress waits until some have got through so much of their messages.
func progress(t *testing.T, peers []*peer, percent int) {
	t.Helper()
	until(t, fmt.Sprintf("%d %% of the load", percent), func() bool {
		for _, p := range peers {
			if p.ackedCount() < loadMessages*percent/100 {
				return false
			}
		}
		return true
	})
}

// finish waits until everything is done, and checks that everything has arrived. Interruptions is how often connections
// were cut: each time what was in flight may be repeated.
func (l *load) finish(t *testing.T, interruptions int) {
	t.Helper()
	err := l.run.Wait()
	for _, p := range append(append(l.devices, l.senders...), l.observer) {
		t.Log(p.progress())
	}
	if err != nil {
		t.Error(err)
	}
	for _, d := range l.devices {
		for _, qos := range []string{"/1", "/2"} {
			complete(t, "up/"+d.id+qos, l.observer.taken, loadMessages/2, interruptions*inFlight)
			complete(t, "down/"+d.id+qos, d.taken, loadMessages/2, interruptions*inFlight)
		}
	}
}

// The cloud is restarted, twice, while messages flow both ways. Everything that was acknowledged arrives, in order.
func TestCloudRestarts(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, loadCloud)
	d := startDaemon(t, loadYAML(m), "no session with the cloud")
	l := startLoad(t, m, d.addr)
	for i, peers := range [][]*peer{l.senders, l.devices} { // the first are faster
		progress(t, peers, 20+40*i)
		m.down()
		m.up()
	}
	l.finish(t, 2)
	for _, p := range l.devices {
		if p.connects != 1 {
			t.Errorf("%s noticed: it connected %d times", p.id, p.connects)
		}
		if first := m.count("Received PUBLISH from " + p.id + " (d0"); first > loadMessages {
			t.Errorf("%s: %d messages came to the cloud without DUP, of %d", p.id, first, loadMessages)
		}
		if m.count("Received PUBLISH from "+p.id+" (d") < loadMessages {
			t.Errorf("Mosquitto's log does not show the messages of %s", p.id)
		}
	}
}

// bridged is killed, twice, while messages flow both ways. Devices come back, and everything that was acknowledged to
// them or to the cloud has arrived or does.
func TestBridgedIsKilled(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, loadCloud)
	addr := address(freePort(t))
	conf := writeConfig(t, fmt.Sprintf("listen: [{url: 'tcp://%s'}]\n%s", addr, loadYAML(m)))
	d := runDaemon(t, conf)
	l := startLoad(t, m, d.addr)
	for _, percent := range []int{25, 50} {
		progress(t, l.devices, percent)
		d.crash()
		d = runDaemon(t, conf)
	}
	l.finish(t, 2)
}

// bridged is stopped and started in order while messages flow both ways.
func TestBridgedRestarts(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, loadCloud)
	addr := address(freePort(t))
	const timeout = time.Minute
	head := fmt.Sprintf("listen: [{url: 'tcp://%s'}]\nshutdown_timeout: %s\n", addr, timeout)
	conf := writeConfig(t, head+loadYAML(m))
	d := runDaemon(t, conf, "stopped with messages")
	l := startLoad(t, m, d.addr)
	for _, percent := range []int{25, 50} {
		progress(t, l.devices, percent)
		began := time.Now()
		d.end()
		if took := time.Since(began); took > timeout/2 {
			t.Errorf("stopping took %s of %s with a cloud that answers", took, timeout)
		}
		d = runDaemon(t, conf, "stopped with messages")
	}
	l.finish(t, 2)
}

// The subscriptions of a kept session, and what the cloud queues for it, survive that bridged is killed: the device
// need not subscribe again.
func TestSubscriptionsSurvive(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	conf := writeConfig(t, devYAML(m, ""))
	o := testdevice.Options{ClientID: "dev", Username: "dev-user", Password: secretMark + "-lan", Persist: true}
	d := runDaemon(t, conf)
	dev := testdevice.Connect(t, d.addr, o)
	dev.Subscribe(1, "down")
	d.online("dev", 1)
	d.crash()
	m.expect(1, ": Client dev closed its connection.")

	pub(t, login{addr: m.addr()}, "down", 1, payload("in absence"))
	d = runDaemon(t, conf)
	dev = testdevice.Dial(t, d.addr)
	if ack := dev.Login(o); !ack.SessionPresent {
		t.Error("the device is told that its session is gone")
	}
	for _, text := range []string{"in absence", "live"} {
		if text == "live" {
			pub(t, login{addr: m.addr()}, "down", 1, payload(text))
		}
		p := testdevice.Expect[*packets.PublishPacket](dev)
		if string(p.Payload) != string(payload(text)) {
			t.Errorf("got %q, want %q", p.Payload, text)
		}
		dev.Ack(packets.Puback, p.MessageID)
	}
	dev.Disconnect()
	d.gone("dev", 1)
}

// Most libraries hand a QoS 2 message over when it is released. If bridged is killed before the device has answered the
// PUBREL, the message has to come once more, or to be released once more. And what comes under a packet identifier that
// was not released is a repetition to the device: no other message may come under it.
func TestReleasedAfterAKill(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	conf := writeConfig(t, devYAML(m, ""))
	o := testdevice.Options{ClientID: "dev", Username: "dev-user", Password: secretMark + "-lan", Persist: true}
	app := login{addr: m.addr()}
	d := runDaemon(t, conf)
	dev := testdevice.Connect(t, d.addr, o)
	dev.Subscribe(2, "down")
	stored := make(map[uint16]string)
	for i := range 3 { // the last one is not released
		pub(t, app, "down", 2, payload(fmt.Sprint(i)))
		p := testdevice.Expect[*packets.PublishPacket](dev)
		dev.Ack(packets.Pubrec, p.MessageID)
		testdevice.Expect[*packets.PubrelPacket](dev)
		if i < 2 {
			dev.Ack(packets.Pubcomp, p.MessageID)
		} else {
			stored[p.MessageID] = string(p.Payload)
		}
	}
	d.crash()

	d = runDaemon(t, conf)
	dev = testdevice.Dial(t, d.addr)
	if !dev.Login(o).SessionPresent {
		clear(stored)
	}
	s := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	s.MessageID, s.Topics, s.Qoss = dev.ID(), []string{"down"}, []byte{2}
	dev.Send(s) // nothing changes by it if the session goes on
	pub(t, app, "down", 2, payload("new"))
	missing := map[string]bool{string(payload("2")): true, string(payload("new")): true}
	for len(missing) > 0 {
		switch p := dev.Next(patience).(type) {
		case *packets.PublishPacket:
			if _, known := stored[p.MessageID]; !known {
				stored[p.MessageID] = string(p.Payload)
			}
			dev.Ack(packets.Pubrec, p.MessageID)
		case *packets.SubackPacket:
		case *packets.PubrelPacket:
			delete(missing, stored[p.MessageID])
			delete(stored, p.MessageID)
			dev.Ack(packets.Pubcomp, p.MessageID)
		default:
			t.Fatalf("got %v; missing: %v, not released: %v", p, missing, stored)
		}
	}
	dev.Disconnect()
	d.gone("dev", 1)
}
