package broker

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap/zapcore"
)

// guests decides by a function.
type guests func(ctx context.Context, l GuestLogin) Admission

func (g guests) Admit(ctx context.Context, l GuestLogin) Admission { return g(ctx, l) }

// guest is a device that only Guests lets in.
func guest(name string) Device { return Device{Name: name, Guest: true, MaxQoS: 1} }

func withGuests(g guests) options { return options{config: func(c *Config) { c.Guests = g }} }

func TestGuests(t *testing.T) {
	asked := make(chan GuestLogin, 100)
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	r := start(t, withGuests(func(_ context.Context, l GuestLogin) Admission {
		asked <- l
		switch l.Username {
		case "good":
			return Admission{Device: "hall:x"}
		case "not a guest":
			return Admission{Device: "dev"}
		case "gone":
			return Admission{Device: "hall:gone"}
		}
		return Admission{Code: byte(len(l.Username)), Reason: "the cloud says no"}
	}), guest("hall:x"), plain("dev"), Device{Name: "far", Login: Login{ClientID: "far", AllowFrom: elsewhere}},
		Device{Name: "locked", Login: Login{ClientID: "locked", Password: "p"}})

	c, _ := r.connect(4, "any id", credentials("good", "secret"), func(pk *packets.Packet) { pk.Connect.Clean = false })
	want := GuestLogin{Remote: netip.MustParseAddr("127.0.0.1"), ClientID: "any id", Username: "good", Password: "secret"}
	if l := <-asked; l != want {
		t.Errorf("asked about %+v, want %+v", l, want)
	}
	c.publish("t", "hello", 1, 1)
	r.clouds["hall:x"].receive(1)

	for user, code := range map[string]byte{
		"1": 1, "22": 2, "333": 3, "4444": 4, "55555": 5, "": 5, "666666": 5, "gone": 3, "not a guest": 3,
	} {
		d := dial(t, r.addr())
		pk := connectPacket(4, "anybody")
		credentials(user, "p")(pk)
		d.send(pk)
		if ack := d.expect(packets.Connack); ack.ReasonCode != code {
			t.Errorf("user name %q: CONNACK %d, want %d", user, ack.ReasonCode, code)
		}
		if l := <-asked; l.ClientID != "anybody" || !l.Clean {
			t.Errorf("asked about %+v", l)
		}
	}
	if e := r.logged(zapcore.WarnLevel, "login refused"); e.ContextMap()["reason"] == "" {
		t.Errorf("logged %v", e.ContextMap())
	}

	r.connect(4, "dev")                                            // is nobody's guest
	for id, code := range map[string]byte{"locked": 4, "far": 5} { // a wrong password, and a wrong address
		d := dial(t, r.addr())
		pk := connectPacket(4, id)
		credentials("good", "wrong")(pk)
		d.send(pk)
		if ack := d.expect(packets.Connack); ack.ReasonCode != code {
			t.Errorf("client id %s of a known device: CONNACK %d, want %d", id, ack.ReasonCode, code)
		}
	}
	if len(asked) > 0 {
		t.Errorf("asked about %+v, who is known", <-asked)
	}
}

// Nobody logs in as a guest's device by its name or address.
func TestGuestsAreNoDevices(t *testing.T) {
	r := start(t, options{}, guest("hall:x"))
	for _, id := range []string{"hall:x", "", "y"} {
		d := dial(t, r.addr())
		d.send(connectPacket(4, id))
		if ack := d.expect(packets.Connack); ack.ReasonCode != 5 {
			t.Errorf("client id %q: CONNACK %d", id, ack.ReasonCode)
		}
	}
}

// A login that waits for a decision holds up nobody, not even the end.
func TestGuestsThatWait(t *testing.T) {
	waiting := make(chan struct{}, 1)
	r := start(t, withGuests(func(ctx context.Context, _ GuestLogin) Admission {
		waiting <- struct{}{}
		<-ctx.Done()
		return Admission{Code: connackUnavailable}
	}), guest("hall:x"), plain("dev"))
	d := dial(t, r.addr())
	d.send(connectPacket(4, "x"))
	<-waiting
	r.connect(4, "dev")
	begun := time.Now()
	r.stop()
	if took := time.Since(begun); took > admitWithin/2 {
		t.Errorf("stopping took %s", took)
	}
}

// Nobody is asked about a device that has hung up meanwhile, and what one has sent meanwhile is not lost.
func TestGuestsThatHangUp(t *testing.T) {
	waiting, decide := make(chan context.Context, 1), make(chan struct{})
	r := start(t, withGuests(func(ctx context.Context, _ GuestLogin) Admission {
		waiting <- ctx
		select {
		case <-ctx.Done():
			return Admission{Code: connackUnavailable, Reason: "it has hung up"}
		case <-decide:
			return Admission{Device: "hall:x"}
		}
	}), guest("hall:x"))
	for _, linger := range []int{-1, 0} { // FIN and RST
		d := dial(t, r.addr())
		d.send(connectPacket(4, "x"))
		ctx := <-waiting
		if err := d.conn.(*net.TCPConn).SetLinger(linger); err != nil {
			t.Fatal(err)
		}
		d.drop()
		select {
		case <-ctx.Done():
		case <-time.After(patience):
			t.Fatal("the login goes on without the device")
		}
	}
	d := dial(t, r.addr())
	d.send(connectPacket(4, "x"))
	<-waiting
	d.publish("t", "early", 1, 1)
	decide <- struct{}{}
	d.expect(packets.Connack)
	r.clouds["hall:x"].receive(1)
	d.publish("t", "late", 1, 2)
	r.clouds["hall:x"].receive(2)
}

// One that waits longer than connect_timeout, which is for CONNECT, is still told what was decided.
func TestGuestsThatWaitLong(t *testing.T) {
	const timeout = 200 * time.Millisecond
	r := start(t, options{config: func(c *Config) {
		c.ConnectTimeout = timeout
		c.Guests = guests(func(context.Context, GuestLogin) Admission {
			<-time.After(2 * timeout)
			return Admission{Device: "hall:x"}
		})
	}}, guest("hall:x"))
	c, _ := r.connect(4, "x", func(pk *packets.Packet) { pk.Connect.Keepalive = 0 })
	<-time.After(2 * timeout)
	c.publish("t", "hello", 1, 1)
	r.clouds["hall:x"].receive(1)
}

// A guest has to go when its address is not allowed any more.
func TestGuestsAddress(t *testing.T) {
	r := start(t, withGuests(func(context.Context, GuestLogin) Admission { return Admission{Device: "hall:x"} }),
		guest("hall:x"))
	c, _ := r.connect(4, "x")
	allow := func(from string) {
		r.must(r.b.Update(r.again("hall:x", Login{AllowFrom: []netip.Prefix{netip.MustParsePrefix(from)}})))
	}
	allow("127.0.0.0/8")
	c.quiet()
	allow("192.0.2.0/24")
	c.closed()
}
