package bridge

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/cloudsim"
	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/mqtt"
	"bridged/internal/testdevice"
)

// hall is a bridge for devices that sign for Alibaba Cloud themselves, and that cloud.
type hall struct {
	*rig
	c    *cloudsim.Cloud
	dir  string
	yaml string
}

const hallSecret = "h4llsecret"

func hallYAML(c *cloudsim.Cloud, secure bool, more string) string {
	url, trust := c.WSURL(), ""
	if secure {
		url, trust = c.WSSURL(), ", tls: {ca_file: ca.pem}"
	}
	return fmt.Sprintf(`
clouds:
  pt: {provider: passthrough, vendor: aliyun, url: %q, limits: {connects: 0}%s}
devices:
  - {name: hall, cloud: pt, login: {allow_from: [127.0.0.0/8]}, queue: {spill_after: 100ms}%s}
`, url, trust, more)
}

func newHall(t *testing.T, secure bool, more string) *hall {
	t.Helper()
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Aliyun, Product: "pk", Devices: []cloudsim.Device{
		{Name: "a", Secret: hallSecret}, {Name: "b", Secret: hallSecret},
	}})
	rules := c.Rules()
	rules.Connects = cloudsim.Rate{} // which would only make tests wait
	c.SetRules(rules)
	h := &hall{c: c, dir: t.TempDir(), yaml: hallYAML(c, secure, more)}
	if secure {
		if err := c.CA().WriteFile(filepath.Join(h.dir, "ca.pem")); err != nil {
			t.Fatal(err)
		}
	}
	h.rig = runIn(t, h.dir, h.yaml)
	return h
}

// restart ends the bridge and starts another one.
func (h *hall) restart(t *testing.T) {
	t.Helper()
	h.stop()
	h.rig = runIn(t, h.dir, h.yaml)
}

// signed is what a device's firmware presents over plain TCP at a time.
func signed(t *testing.T, device, secret string, at time.Time) testdevice.Options {
	t.Helper()
	l, err := credentials.Aliyun{
		ProductKey: "pk", DeviceName: device, Secret: credentials.Secret(secret), Timestamp: true,
	}.Sign(at, "")
	if err != nil {
		t.Fatal(err)
	}
	return testdevice.Options{ClientID: l.ClientID, Username: l.Username, Password: l.Password}
}

var firmware = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// try logs in and returns the device with the code of its CONNACK.
func (h *hall) try(t *testing.T, o testdevice.Options) (*testdevice.Device, byte) {
	t.Helper()
	d := testdevice.Dial(t, h.addr())
	return d, d.Login(o).ReturnCode
}

func (h *hall) refused(t *testing.T, o testdevice.Options, want byte) {
	t.Helper()
	if _, code := h.try(t, o); code != want {
		t.Fatalf("CONNACK %d, want %d", code, want)
	}
}

func TestPassThrough(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("wss %v", secure), func(t *testing.T) {
			h := newHall(t, secure, "")
			a := h.connect(signed(t, "a", hallSecret, firmware))
			b := h.connect(signed(t, "b", hallSecret, firmware))
			for _, d := range []*testdevice.Device{a, b} {
				if codes := d.Subscribe(1, "down"); codes[0] != 1 {
					t.Fatalf("SUBACK %v", codes)
				}
			}
			a.Publish("up", []byte("hello"), 1)
			testdevice.Expect[*packets.PubackPacket](a)
			got, err := h.c.WaitReceived(within(t), 1)
			if err != nil || got[0].Device != "a" || string(got[0].Payload) != "hello" {
				t.Fatalf("%+v, %v", got, err)
			}
			if err := h.c.Publish("a", "down", []byte("for a"), 1); err != nil {
				t.Fatal(err)
			}
			if m := testdevice.Expect[*packets.PublishPacket](a); string(m.Payload) != "for a" {
				t.Fatalf("%s", m.Payload)
			}
			mode := map[bool]string{false: "securemode=3", true: "securemode=2"}[secure]
			for _, device := range []string{"a", "b"} {
				conns := h.c.Connections(device)
				if len(conns) != 1 || !strings.Contains(conns[0].ClientID, mode) || !conns[0].Clean {
					t.Errorf("connections of %s: %+v", device, conns)
				}
				if st := h.status("hall:" + device + "&pk"); !st.Session.Device || st.Cloud != "pt" {
					t.Errorf("%+v", st)
				}
			}
			if f := h.c.LoginFailures(); len(f) > 0 {
				t.Errorf("%+v", f)
			}
		})
	}
}

// A login that the cloud refuses is refused with its word, leaves nothing behind, and is not asked about again and
// again.
func TestPassThroughRefused(t *testing.T) {
	h := newHall(t, false, "")
	wrong := signed(t, "a", "wrong", firmware)
	h.refused(t, wrong, refusedNotAllowed)
	until(t, "nothing is left", func() bool { return len(h.bridge.Status()) == 0 })
	if n := len(h.c.LoginFailures()); n != 1 {
		t.Fatalf("%d logins refused", n)
	}
	h.refused(t, wrong, refusedNotAllowed)
	if n := len(h.c.LoginFailures()); n != 1 {
		t.Fatalf("%d logins refused, though the second was the same", n)
	}
	h.refused(t, signed(t, "nobody", hallSecret, firmware), refusedNotAllowed)
	h.refused(t, testdevice.Options{ClientID: "a", Username: "a&pk", Password: "x"}, refusedIdentifier)
	h.refused(t, testdevice.Options{ClientID: "a|securemode=3|", Username: "a", Password: "x"}, refusedIdentifier)
	h.connect(signed(t, "a", hallSecret, firmware))
	h.stop()
	if n := h.notes(t); n != 1 {
		t.Errorf("%d logins are remembered", n)
	}
	for _, e := range h.logs.All() {
		if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, wrong.Password) {
			t.Errorf("the log shows a password: %s", text)
		}
	}
}

// notes counts the logins that are remembered, and looks for what must not be on disk.
func (h *hall) notes(t *testing.T) int {
	t.Helper()
	count := 0
	err := filepath.WalkDir(h.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, device := range []string{"a", "b"} {
			if o := signed(t, device, hallSecret, firmware); strings.Contains(string(data), o.Password) {
				t.Errorf("%s shows the password of %s", path, device)
			}
			if strings.Contains(string(data), proofPrefix+"hall:"+device) {
				count++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// While the cloud is away a device is let in with the login that the cloud accepted last, also after a restart.
func TestPassThroughWhileAway(t *testing.T) {
	h := newHall(t, false, "")
	o := signed(t, "a", hallSecret, firmware)
	h.connect(o).Disconnect()
	h.remembered(t, "a")
	h.c.Down()
	d := h.connect(o)
	d.Publish("up", []byte("1"), 1)
	testdevice.Expect[*packets.PubackPacket](d)
	h.refused(t, signed(t, "a", hallSecret, firmware.Add(time.Second)), refusedUnavailable)
	h.refused(t, signed(t, "b", hallSecret, firmware), refusedUnavailable)
	d.Publish("up", []byte("2"), 1) // is not disturbed by that
	testdevice.Expect[*packets.PubackPacket](d)

	h.restart(t)
	h.refused(t, signed(t, "b", hallSecret, firmware), refusedUnavailable)
	d = h.connect(o)
	d.Publish("up", []byte("3"), 1)
	testdevice.Expect[*packets.PubackPacket](d)
	if err := h.c.Up(); err != nil {
		t.Fatal(err)
	}
	got, err := h.c.WaitReceived(within(t), 3)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range got {
		if string(m.Payload) != fmt.Sprint(i+1) {
			t.Errorf("message %d is %s", i+1, m.Payload)
		}
	}
}

// remembered waits until a login is.
func (h *hall) remembered(t *testing.T, device string) {
	t.Helper()
	p := h.bridge.guests.proofs
	until(t, "the login is remembered", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.hashes["hall:"+device+"&pk"] != nil
	})
}

// What a device has left is delivered when it comes again, which it has to: its login is not kept.
func TestPassThroughBacklog(t *testing.T) {
	h := newHall(t, false, "")
	o := signed(t, "a", hallSecret, firmware)
	d := h.connect(o)
	h.remembered(t, "a")
	h.c.Down()
	for n := range 10 {
		d.Publish("up", fmt.Append(nil, n), 1)
		testdevice.Expect[*packets.PubackPacket](d)
	}
	d.Disconnect()
	h.restart(t)
	if err := h.c.Up(); err != nil {
		t.Fatal(err)
	}
	if st := h.status("hall:a&pk"); st.Up.Stored != 10 {
		t.Fatalf("%+v", st)
	}
	h.connect(o)
	got, err := h.c.WaitReceived(within(t), 10)
	if err != nil || string(got[9].Payload) != "9" {
		t.Fatalf("%v, %v", got, err)
	}
}

// A device that comes again with a new signature takes its own place. Somebody who only knows its name does not.
func TestPassThroughAgain(t *testing.T) {
	h := newHall(t, false, "")
	old := h.connect(signed(t, "a", hallSecret, firmware))
	h.refused(t, signed(t, "a", "wrong", firmware), refusedNotAllowed)
	old.Publish("up", []byte("still here"), 1)
	testdevice.Expect[*packets.PubackPacket](old)
	d := h.connect(signed(t, "a", hallSecret, firmware.Add(time.Hour)))
	old.Closed()
	d.Publish("up", []byte("me too"), 1)
	testdevice.Expect[*packets.PubackPacket](d)
	got, err := h.c.WaitReceived(within(t), 2)
	if err != nil || string(got[0].Payload) != "still here" || string(got[1].Payload) != "me too" {
		t.Fatalf("%v, %v", got, err)
	}
	same := h.connect(signed(t, "a", hallSecret, firmware.Add(time.Hour)))
	d.Closed()
	same.Publish("up", []byte("the same login"), 1)
	testdevice.Expect[*packets.PubackPacket](same)
	if n := h.status("hall:a&pk").Session.Connects; n > 4 {
		t.Errorf("%d sessions", n)
	}
}

// A device whose login the cloud does not accept any more is let go, so that it makes another one.
func TestPassThroughExpires(t *testing.T) {
	h := newHall(t, false, "")
	o := signed(t, "a", hallSecret, firmware)
	d := h.connect(o)
	h.remembered(t, "a")
	if err := h.c.SetDevice(cloudsim.Device{Name: "a", Product: "pk", Secret: hallSecret, Disabled: true}); err != nil {
		t.Fatal(err)
	}
	h.c.Drop("a", cloudsim.CutReset)
	d.Closed()
	h.refused(t, o, refusedNotAllowed)
	h.c.Down()
	h.bridge.guests.mu.Lock()
	clear(h.bridge.guests.refusals)
	h.bridge.guests.mu.Unlock()
	h.refused(t, o, refusedUnavailable) // it is not remembered as a good one
}

// What the cloud has kept for a device comes right after it has accepted the login, before the device is in.
func TestPassThroughKeptSession(t *testing.T) {
	h := newHall(t, false, ", linger: 0s")
	o := signed(t, "a", hallSecret, firmware)
	o.Persist = true
	d := h.connect(o)
	d.Subscribe(1, "down")
	d.Disconnect()
	if err := h.c.WaitOffline(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		if err := h.c.Publish("a", "down", fmt.Append(nil, n), 1); err != nil {
			t.Fatal(err)
		}
	}
	d = h.connect(o)
	for n := range 20 {
		if m := testdevice.Expect[*packets.PublishPacket](d); string(m.Payload) != fmt.Sprint(n) {
			t.Fatalf("message %d is %s", n, m.Payload)
		}
	}
}

func TestPassThroughBounds(t *testing.T) {
	h := newHall(t, false, ", max_devices: 1")
	a := h.connect(signed(t, "a", hallSecret, firmware))
	h.refused(t, signed(t, "b", hallSecret, firmware), refusedNotAllowed)
	h.reload(strings.Replace(h.yaml, "127.0.0.0/8", "127.0.0.1", 1))
	a.Publish("up", []byte("x"), 1)
	testdevice.Expect[*packets.PubackPacket](a)
	h.reload(strings.Replace(h.yaml, "127.0.0.0/8", "192.0.2.0/24", 1))
	a.Closed() // it could not log in again
	h.refused(t, signed(t, "b", hallSecret, firmware), refusedNotAllowed)
}

// A reload leaves devices alone whose entry stays, and lets those go whose entry does not.
func TestPassThroughReload(t *testing.T) {
	h := newHall(t, false, "")
	d := h.connect(signed(t, "a", hallSecret, firmware))
	h.reload(h.yaml)
	h.reload(strings.Replace(h.yaml, "spill_after: 100ms", "spill_after: 200ms", 1))
	d.Publish("up", []byte("x"), 1)
	testdevice.Expect[*packets.PubackPacket](d)
	if n := len(h.c.Connections("a")); n != 1 {
		t.Fatalf("%d connections", n)
	}
	c := h.reload(strings.Replace(h.yaml, "name: hall", "name: other", 1))
	if len(c.Devices.Removed) != 1 || c.Devices.Removed[0] != "hall:a&pk" {
		t.Errorf("%+v", c)
	}
	d.Closed()
	h.connect(signed(t, "a", hallSecret, firmware))
	if st := h.status("other:a&pk"); !st.Session.Device {
		t.Errorf("%+v", st)
	}
}

// Logins that come at the same time do not get past max_devices, and those that come during a reload are not let in by
// what was configured before.
func TestPassThroughDuringChanges(t *testing.T) {
	for name, test := range map[string]struct {
		change func(g *guests)
		want   int // how many devices there are afterwards
	}{
		"together": {func(*guests) {}, 2},
		"removed":  {func(g *guests) { g.use(nil) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
			r := run(t, fmt.Sprintf(`
clouds: {pt: {provider: passthrough, vendor: generic, url: %q}}
devices: [{name: hall, cloud: pt, login: {allow_from: [127.0.0.1]}, max_devices: 2}]
`, c.WSURL()))
			r.bridge.changing.Lock() // as a reload does
			var logins sync.WaitGroup
			var in atomic.Int64
			for n := range 10 {
				logins.Go(func() {
					if testdevice.Dial(t, r.addr()).Login(testdevice.Options{ClientID: fmt.Sprint(n)}).ReturnCode == 0 {
						in.Add(1)
					}
				})
			}
			<-time.After(200 * time.Millisecond) // all wait for the change to end
			test.change(r.bridge.guests)
			r.bridge.changing.Unlock()
			logins.Wait()
			if n := len(r.bridge.all()); int(in.Load()) != test.want || n != test.want {
				t.Errorf("%d were let in, there are %d devices, want %d", in.Load(), n, test.want)
			}
		})
	}
}

// A login whose entry is removed while it waits is answered at once.
func TestPassThroughRemovedMeanwhile(t *testing.T) {
	h := newHall(t, false, "")
	_, address := newGate(t, "")
	h.reload(strings.Replace(h.yaml, strings.TrimPrefix(h.c.WSURL(), "ws://"), address, 1))
	d := testdevice.Dial(t, h.addr())
	code := make(chan byte, 1)
	go func() { code <- d.Login(signed(t, "a", hallSecret, firmware)).ReturnCode }()
	until(t, "it waits", func() bool { gu := h.bridge.find("hall:a&pk"); return gu != nil && guestOf(gu).waits() })
	gu := guestOf(h.bridge.find("hall:a&pk"))
	h.reload(strings.Replace(h.yaml, "name: hall", "name: other", 1))
	select {
	case c := <-code:
		if c != refusedUnavailable {
			t.Errorf("CONNACK %d", c)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits for a cloud that nobody asks")
	}
	if v, told := gu.begin(credentials.Login{ClientID: "x"}, false).wait(within(t)); !told || v != wasRemoved {
		t.Errorf("one that comes too late: %+v, %v", v, told)
	}
}

// What a login has to look like depends on how its cloud is reached, and that may change while a device is connected.
func TestPassThroughOtherTransport(t *testing.T) {
	h := newHall(t, true, "")
	d := h.connect(signed(t, "a", hallSecret, firmware))
	for n, secure := range []bool{false, true} {
		h.reload(hallYAML(h.c, secure, ""))
		d.Publish("up", []byte("x"), 1)
		testdevice.Expect[*packets.PubackPacket](d)
		if _, err := h.c.WaitReceived(within(t), n+1); err != nil {
			t.Fatal(err)
		}
	}
	if f := h.c.LoginFailures(); len(f) > 0 {
		t.Errorf("%+v", f)
	}
}

// gate is a way to a cloud that swallows everything until it opens.
type gate struct {
	net.Listener
	opened chan struct{}
}

func newGate(t *testing.T, cloud string) (g *gate, address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g = &gate{Listener: l, opened: make(chan struct{})}
	ended := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				serving.Go(func() { <-ended; _ = c.Close() })
				select {
				case <-g.opened:
				case <-ended:
					return
				}
				far, err := net.Dial("tcp", cloud)
				if err != nil {
					return
				}
				serving.Go(func() { _, _ = io.Copy(far, c); _ = far.Close() })
				_, _ = io.Copy(c, far)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		close(ended)
		_ = l.Close()
		serving.Wait()
	})
	return g, l.Addr().String()
}

// A cloud that does not even refuse does not keep a device waiting whose login is known: most hang up after some
// seconds. If the cloud refuses it later, the device has to go.
func TestPassThroughSilence(t *testing.T) {
	for _, disabled := range []bool{false, true} {
		t.Run(fmt.Sprintf("disabled %v", disabled), func(t *testing.T) {
			h := newHall(t, false, "")
			o := signed(t, "a", hallSecret, firmware)
			h.connect(o).Disconnect()
			h.remembered(t, "a")
			cloud := strings.TrimPrefix(h.c.WSURL(), "ws://")
			host, path, _ := strings.Cut(cloud, "/")
			g, address := newGate(t, host)
			h.reload(strings.Replace(h.yaml, cloud, address+"/"+path, 1))
			begun := time.Now()
			d := h.connect(o)
			if took := time.Since(begun); took < proofAfter || took > 2*proofAfter {
				t.Errorf("CONNACK came after %s", took)
			}
			d.Publish("up", []byte("stored"), 1)
			testdevice.Expect[*packets.PubackPacket](d)
			if disabled {
				if err := h.c.SetDevice(cloudsim.Device{Name: "a", Product: "pk", Secret: hallSecret, Disabled: true}); err != nil {
					t.Fatal(err)
				}
			}
			close(g.opened)
			if disabled {
				d.Closed()
				h.forgotten(t, "a")
				return
			}
			if _, err := h.c.WaitReceived(within(t), 1); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// forgotten checks that a login is not remembered any more.
func (h *hall) forgotten(t *testing.T, device string) {
	t.Helper()
	name := "hall:" + device + "&pk"
	until(t, "the login is forgotten", func() bool {
		_, noted := h.bridge.spool.Notes()[proofPrefix+name]
		return !noted
	})
	if h.bridge.guests.proofs.match(within(t), name, loginOf(signed(t, device, hallSecret, firmware))) {
		t.Error("the login is still known")
	}
}

func loginOf(o testdevice.Options) credentials.Login {
	return credentials.Login{ClientID: o.ClientID, Username: o.Username, Password: o.Password}
}

// A device that does not come although its login was accepted is not online for ever.
func TestPassThroughNobodyComes(t *testing.T) {
	h := newHall(t, false, ", linger: 0s")
	h.connect(signed(t, "a", hallSecret, firmware)).Disconnect()
	if err := h.c.WaitOffline(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	d := h.bridge.find("hall:a&pk")
	d.worker.Await(true)
	if err := h.c.WaitOnline(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	h.bridge.guests.tidy(time.Now()) // it may still come
	if !d.worker.Awaits() {
		t.Error("it is given up at once")
	}
	h.bridge.guests.tidy(time.Now().Add(enterWithin))
	if err := h.c.WaitOffline(within(t), "a"); err != nil {
		t.Fatal(err)
	}
}

// A device that comes and goes with a login that was accepted before does not have another one wait in vain.
func TestPassThroughOvertaken(t *testing.T) {
	h := newHall(t, false, ", linger: 0s")
	h.connect(signed(t, "a", hallSecret, firmware)).Disconnect()
	if err := h.c.WaitOffline(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	d := h.bridge.find("hall:a&pk")
	h.c.Delay("a", 100*time.Millisecond)
	login := testdevice.Dial(t, h.addr())
	code := make(chan byte, 1)
	go func() { code <- login.Login(signed(t, "a", hallSecret, firmware.Add(time.Hour))).ReturnCode }()
	until(t, "it waits", func() bool { return d.worker.Awaits() && guestOf(d).waits() })
	d.worker.Connected(mqtt.Connect{Clean: true})
	d.worker.Disconnected(true, 0)
	select {
	case c := <-code:
		if c != 0 {
			t.Errorf("CONNACK %d", c)
		}
	case <-time.After(5 * time.Second):
		t.Error("the cloud is not asked")
	}
}

// A device that got in while its login was being refused does not stay without one.
func TestPassThroughWithoutALogin(t *testing.T) {
	h := newHall(t, false, "")
	d := h.connect(signed(t, "a", hallSecret, firmware))
	gu := guestOf(h.bridge.find("hall:a&pk"))
	h.bridge.guests.tidy(time.Now())
	d.Publish("up", []byte("x"), 1)
	testdevice.Expect[*packets.PubackPacket](d)
	gu.mu.Lock()
	gu.login, gu.good = credentials.Login{}, credentials.Login{}
	gu.mu.Unlock()
	h.bridge.guests.tidy(time.Now())
	d.Closed()
}

// A verdict that comes after nobody waited for it any more counts all the same.
func TestGuestIsRefusedLate(t *testing.T) {
	g := &guest{name: "x", login: credentials.Login{ClientID: "x"}}
	l := credentials.Login{ClientID: "x", Username: "u"}
	tr := g.begin(l, false)
	sign := func() {
		if _, err := g.Sign(time.Time{}, ""); err != nil {
			t.Fatal(err)
		}
	}
	sign()
	g.judge(failure.New(failure.Refused, failure.StageTCP, nil, ""))
	if v, told := tr.wait(t.Context()); !told || !v.away {
		t.Fatalf("%+v, %v", v, told)
	}
	sign()
	g.judge(failure.New(failure.ConnackPassword, failure.StageConnect, nil, ""))
	if v, ok := g.accept(tr); ok || v.code != refusedCredentials {
		t.Fatalf("%+v, %v", v, ok)
	}
}

// Whoever makes up devices does not keep others from connecting: a bounded number of them is asked about at once.
func TestPassThroughStrangers(t *testing.T) {
	h := newHall(t, false, "")
	h.connect(signed(t, "a", hallSecret, firmware))
	h.c.StallUpgrade(true)
	codes := make(chan byte)
	const n = maxStrangers + 10
	for i := range n {
		d := testdevice.Dial(t, h.addr())
		o := signed(t, fmt.Sprintf("made-up-%d", i), "x", firmware)
		go func() { codes <- d.Login(o).ReturnCode }()
	}
	until(t, "all places are taken", func() bool { return len(h.bridge.Status()) == 1+maxStrangers })
	h.c.StallUpgrade(false)
	for range n {
		if code := <-codes; code != refusedNotAllowed {
			t.Errorf("CONNACK %d", code)
		}
		if devices := len(h.bridge.Status()); devices > 1+maxStrangers {
			t.Errorf("%d devices", devices)
		}
	}
	until(t, "nothing is left", func() bool { return len(h.bridge.Status()) == 1 })
}
