package broker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/lane"
)

// made makes a device that was not there at the start, with a cloud of its own.
func (r *rig) made(d Device) Device {
	c := newCloud(r.tb, lane.Config{}, lane.Config{})
	d.Up, d.Down, d.Upstream, d.Marks = c.up, c.down, c, c.up
	r.clouds[d.Name] = c
	return d
}

// again is a device of the rig with another login.
func (r *rig) again(name string, l Login) Device {
	d := *r.b.devices[name].setup()
	d.Login = l
	return d
}

func (r *rig) must(err error) {
	r.tb.Helper()
	if err != nil {
		r.tb.Fatal(err)
	}
}

func TestAddAndRemove(t *testing.T) {
	r := start(t, options{}, plain("a"))
	a, _ := r.connect(4, "a")
	r.must(r.b.Add(r.made(plain("b"))))
	b, _ := r.connect(5, "b")
	r.clouds["b"].expect("connected")
	b.publish("t", "x", 1, 1)
	b.acked(packets.Puback, 1)
	if got := r.clouds["b"].receive(1); string(got[0].Message.Payload) != "x" {
		t.Errorf("%+v", got)
	}
	r.must(r.b.Remove("b"))
	if events := r.clouds["b"].log(); !slices.Equal(events, []string{"connected", "disconnected true"}) {
		t.Errorf("%q", events)
	}
	b.cut(packets.ErrAdministrativeAction)
	late := dial(t, r.addr())
	late.version = 5
	late.send(connectPacket(5, "b"))
	if ack := late.expect(packets.Connack); ack.ReasonCode != packets.ErrNotAuthorized.Code {
		t.Errorf("reason code %#x", ack.ReasonCode)
	}
	if _, ok := r.b.DeviceStatus("b"); ok {
		t.Error("it is still there")
	}
	a.quiet()
	r.clouds["a"].expect("connected")
	if err := r.b.Add(r.made(plain("a"))); err == nil {
		t.Error("a name twice")
	}
}

func TestUpdatedLogin(t *testing.T) {
	here := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	hash, other := hashed(t, "p"), hashed(t, "p")
	full := Login{ClientID: "a", Username: "u", Password: "p"}
	hashes := Login{ClientID: "a", PasswordHash: hash}
	for name, test := range map[string]struct {
		before, after Login
		stays         bool
	}{
		"nothing":             {full, full, true},
		"password":            {full, Login{ClientID: "a", Username: "u", Password: "q"}, false},
		"username":            {full, Login{ClientID: "a", Username: "v", Password: "p"}, false},
		"client id":           {Login{ClientID: "a"}, Login{ClientID: "b"}, false},
		"any client id":       {Login{ClientID: "a", Username: "u"}, Login{Username: "u"}, true},
		"address":             {Login{ClientID: "a"}, Login{ClientID: "a", AllowFrom: elsewhere}, false},
		"its address":         {Login{ClientID: "a"}, Login{ClientID: "a", AllowFrom: here}, true},
		"password not needed": {Login{ClientID: "a", Password: "p"}, Login{ClientID: "a"}, true},
		"anonymous":           {Login{ClientID: "a", Password: "p"}, Login{ClientID: "a", Anonymous: true}, true},
		"password now needed": {Login{ClientID: "a"}, Login{ClientID: "a", Password: "q"}, false},
		"the same hash":       {hashes, Login{ClientID: "a", Username: "u", PasswordHash: hash}, true},
		"another hash":        {hashes, Login{ClientID: "a", PasswordHash: other}, false},
		"a hash not checked":  {Login{ClientID: "a", Anonymous: true, PasswordHash: hash}, hashes, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := plain("dev")
			d.Login = test.before
			r := start(t, options{}, d)
			c, _ := r.connect(4, "a", credentials("u", "p"))
			r.clouds["dev"].expect("connected")
			r.must(r.b.Update(r.again("dev", test.after)))
			if test.stays {
				c.quiet()
				r.clouds["dev"].expect("connected")
				return
			}
			c.closed()
			r.clouds["dev"].expect("connected", "disconnected false")
		})
	}
}

// Two devices exchange their logins: whoever is connected is the wrong one now.
func TestExchangedLogins(t *testing.T) {
	r := start(t, options{}, plain("a"), plain("b"))
	c, _ := r.connect(4, "a")
	r.must(r.b.SetDevices([]Device{r.again("a", Login{ClientID: "b"}), r.again("b", Login{ClientID: "a"})}))
	c.closed()
	r.connect(4, "a")
	r.clouds["b"].expect("connected")
	r.clouds["a"].expect("connected", "disconnected false")
}

// A login that passes while its device is removed, or its password is changed, does not get in after that.
func TestChangeDuringLogin(t *testing.T) {
	for name, change := range map[string]func(*rig) error{
		"removed": func(r *rig) error { return r.b.Remove("a") },
		"changed": func(r *rig) error { return r.b.Update(r.again("a", Login{ClientID: "a", Password: "q"})) },
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, options{}, Device{Name: "a", Login: Login{ClientID: "a", PasswordHash: hashed(t, "p")}})
			r.b.logins.slot <- struct{}{}
			c := dial(t, r.addr())
			pk := connectPacket(4, "a")
			credentials("", "p")(pk)
			c.send(pk)
			until(t, "connected", func() bool { return r.b.Counters().Connections == 1 })
			c.silent() // the login is being checked, against what holds now
			r.must(change(r))
			<-r.b.logins.slot
			c.closed()
			if events := r.clouds["a"].log(); len(events) != 0 {
				t.Errorf("%q", events)
			}
		})
	}
}

// Devices come and go, and change, while all connect and reconnect.
func TestChangesUnderLoad(t *testing.T) {
	r := start(t, options{}, plain("stays"))
	stays, _ := r.connect(4, "stays")
	var made [4]Device
	for i := range made {
		made[i] = r.made(plain(fmt.Sprintf("d%d", i)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range made {
		wg.Go(func() {
			for ctx.Err() == nil {
				c := dial(t, r.addr())
				c.send(connectPacket(4, made[i].Name))
				_, _ = c.receive(patience) // or it was let go
				c.drop()
			}
		})
	}
	for i := range 200 {
		d := made[i%len(made)]
		switch i / len(made) % 3 {
		case 0:
			r.must(r.b.Add(d))
		case 1:
			d.Login.Username = "u"
			r.must(r.b.Update(d))
		case 2:
			r.must(r.b.Remove(d.Name))
		}
	}
	cancel()
	wg.Wait()
	stays.quiet()
	r.clouds["stays"].expect("connected")
	r.stop()
	if err := r.b.Add(made[0]); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
}
