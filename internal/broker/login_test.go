package broker

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap/zapcore"
	"golang.org/x/crypto/bcrypt"
)

func credentials(user, password string) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		c := &pk.Connect
		c.UsernameFlag, c.Username, c.PasswordFlag, c.Password = true, []byte(user), true, []byte(password)
	}
}

func hashed(tb testing.TB, password string) []byte {
	tb.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

func TestLogin(t *testing.T) {
	here, elsewhere := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")
	devices := []Device{
		{Name: "plain", Login: Login{ClientID: "id-plain", Username: "u", Password: "p"}},
		{Name: "hash", Login: Login{ClientID: "id-hash", Username: "u", PasswordHash: hashed(t, "p")}},
		{Name: "id only", Login: Login{ClientID: "id-only"}},
		{Name: "no user", Login: Login{ClientID: "id-nouser", Password: "p"}},
		{Name: "here", Login: Login{ClientID: "id-here", Password: "p", AllowFrom: []netip.Prefix{elsewhere, here}}},
		{Name: "elsewhere", Login: Login{ClientID: "id-elsewhere", Password: "p", AllowFrom: []netip.Prefix{elsewhere}}},
		{Name: "shared 1", Login: Login{ClientID: "shared", Username: "one", Password: "p1"}},
		{Name: "shared 2", Login: Login{ClientID: "shared", Username: "two", Password: "p2"}},
		{Name: "anonymous", Login: Login{ClientID: "id-anon", Username: "x", Password: "y", Anonymous: true}},
		{Name: "any elsewhere", Login: Login{Anonymous: true, AllowFrom: []netip.Prefix{elsewhere}}},
		{Name: "any", Login: Login{Username: "any", Password: "any"}},
	}
	for i, test := range []struct {
		id     string
		change func(*packets.Packet)
		want   string // device, or the reason of the refusal
	}{
		{"id-plain", credentials("u", "p"), "plain"},
		{"id-plain", credentials("u", "wrong"), "wrong user name or password"},
		{"id-plain", credentials("wrong", "p"), "wrong user name or password"},
		{"id-plain", credentials("u", ""), "wrong user name or password"},
		{"id-plain", nil, "wrong user name or password"},
		{"id-plain", credentials("any", "any"), "wrong user name or password"}, // the exact client id decides
		{"id-hash", credentials("u", "p"), "hash"},
		{"id-hash", credentials("u", "p"), "hash"}, // remembered
		{"id-hash", credentials("u", "wrong"), "wrong user name or password"},
		{"id-hash", credentials("wrong", "p"), "wrong user name or password"},
		{"id-only", nil, "id only"},
		{"id-only", credentials("whatever", "whatever"), "id only"},
		{"id-nouser", credentials("whatever", "p"), "no user"},
		{"id-here", credentials("", "p"), "here"},
		{"id-elsewhere", credentials("", "p"), "address not allowed"},
		{"shared", credentials("two", "p2"), "shared 2"},
		{"shared", credentials("one", "p1"), "shared 1"},
		{"shared", credentials("one", "p2"), "wrong user name or password"},
		{"id-anon", credentials("a", "b"), "anonymous"},
		{"id-anon", nil, "anonymous"},
		{"whatever", credentials("any", "any"), "any"},
		{"", credentials("any", "any"), "any"},
		{"whatever", credentials("any", "wrong"), "wrong user name or password"},
	} {
		t.Run(fmt.Sprintf("%d %s", i, test.want), func(t *testing.T) {
			r := start(t, options{}, devices...)
			c := dial(t, r.addr())
			pk := connectPacket(4, test.id)
			if test.change != nil {
				test.change(pk)
			}
			c.send(pk)
			ack := c.expect(packets.Connack)
			if ack.ReasonCode == 0 {
				if !r.present(test.want) {
					t.Fatalf("it is not %s that logged in", test.want)
				}
				return
			}
			wantCode := byte(connackNotAllowed)
			if test.want == badCredentials.String() {
				wantCode = connackCredentials
			}
			e := r.logged(zapcore.WarnLevel, "login refused").ContextMap()
			if e["reason"] != test.want || ack.ReasonCode != wantCode || e["client_id"] != test.id {
				t.Errorf("CONNACK %d, want %d (%s); log line %v", ack.ReasonCode, wantCode, test.want, e)
			}
			c.closed()
		})
	}
}

func TestRefusedLogin5(t *testing.T) {
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}
	r := start(t, options{},
		Device{Name: "a", Login: Login{ClientID: "a", Password: "p"}},
		Device{Name: "b", Login: Login{ClientID: "b", AllowFrom: elsewhere}})
	for id, want := range map[string]packets.Code{
		"a": packets.ErrBadUsernameOrPassword, "b": packets.ErrNotAuthorized, "c": packets.ErrNotAuthorized,
	} {
		c := dial(t, r.addr())
		c.version = 5
		c.send(connectPacket(5, id))
		if ack := c.expect(packets.Connack); ack.ReasonCode != want.Code || ack.Properties.ReasonString == "" {
			t.Errorf("%s: CONNACK %#x %q", id, ack.ReasonCode, ack.Properties.ReasonString)
		}
		c.closed()
	}
	if n := r.b.Counters().Refused; n != 3 {
		t.Errorf("%d refused", n)
	}
}

// A device that hammers is told of once; another reason is told of again.
func TestRefusalsLoggedOnce(t *testing.T) {
	r := start(t, options{}, Device{Name: "a", Login: Login{ClientID: "a", Password: "p"}})
	for range 20 {
		for _, id := range []string{"a", "b"} {
			c := dial(t, r.addr())
			c.send(connectPacket(4, id))
			c.expect(packets.Connack)
			c.closed()
		}
	}
	r.stop()
	if n := r.logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 2 {
		t.Errorf("%d warnings", n)
	}
	if n := r.logs.FilterLevelExact(zapcore.InfoLevel).Len(); n != 0 {
		t.Errorf("%d lines at info", n)
	}
	for _, e := range r.logs.All() {
		if n, ok := e.ContextMap()["unreported"]; ok {
			t.Errorf("unreported %v, although nothing was left out before", n)
		}
	}
}

// A refused login does not touch the device's connection.
func TestRefusedLoginIsNoTakeover(t *testing.T) {
	r := start(t, options{}, Device{Name: "a", Login: Login{ClientID: "a", Password: "p"}})
	c, _ := r.connect(4, "a", credentials("", "p"))
	other := dial(t, r.addr())
	pk := connectPacket(4, "a")
	credentials("", "wrong")(pk)
	other.send(pk)
	other.expect(packets.Connack)
	other.closed()
	c.quiet()
	r.clouds["a"].expect("connected")
}

// An identifier presented on the LAN is a credential, not a name: it cannot stand for another device.
func TestClientIDIsNoName(t *testing.T) {
	r := start(t, options{},
		Device{Name: "a", Login: Login{ClientID: "b"}},
		Device{Name: "b", Login: Login{ClientID: "a"}})
	b, _ := r.connect(4, "a")
	if r.present("a") || !r.present("b") {
		t.Error("the wrong device is connected")
	}
	a, _ := r.connect(4, "b")
	a.quiet()
	b.quiet()
}

// Reconnects after a first login cost no bcrypt: with a hash that takes most of a second they would show.
func TestPasswordRemembered(t *testing.T) {
	r := start(t, options{}, Device{Name: "a", Login: Login{ClientID: "a", PasswordHash: hashed(t, "p")}})
	g := r.b.logins
	c, _ := r.connect(4, "a", credentials("", "p"))
	c.disconnect()
	g.slot <- struct{}{} // nobody can compute a hash now
	c, _ = r.connect(4, "a", credentials("", "p"))
	c.quiet()
	<-g.slot
}

// Hashes are computed one at a time, and not for longer than the connect timeout.
func TestHashQueue(t *testing.T) {
	r := start(t, options{config: func(c *Config) { c.ConnectTimeout = 300 * time.Millisecond }},
		Device{Name: "a", Login: Login{ClientID: "a", PasswordHash: hashed(t, "p")}})
	g := r.b.logins
	g.slot <- struct{}{}
	var wg sync.WaitGroup
	for _, id := range []string{"a", "unknown"} { // unknown ones wait as well
		c := dial(t, r.addr())
		pk := connectPacket(4, id)
		credentials("", "p")(pk)
		c.send(pk)
		wg.Go(func() {
			if ack, err := c.receive(patience); err != nil || ack.ReasonCode != connackUnavailable {
				t.Errorf("%s: %+v, %v", id, ack, err)
			}
		})
	}
	wg.Wait()
	<-g.slot
	c, _ := r.connect(4, "a", credentials("", "p"))
	c.quiet()
}

func TestStopWhileHashing(t *testing.T) {
	r := start(t, options{}, Device{Name: "a", Login: Login{ClientID: "a", PasswordHash: hashed(t, "p")}})
	r.b.logins.slot <- struct{}{}
	c := dial(t, r.addr())
	c.send(connectPacket(4, "a"))
	until(t, "connected", func() bool { return r.b.Counters().Connections == 1 })
	r.stop()
	c.closed()
}

func TestAssignedClientID(t *testing.T) {
	r := start(t, options{},
		Device{Name: "a", Login: Login{Anonymous: true}},
		Device{Name: "b", Login: Login{ClientID: "a"}}, // so that a's own name is taken
		Device{Name: "c", Login: Login{ClientID: "a-1"}})
	c, ack := r.connect(5, "")
	if ack.Properties.AssignedClientID != "a-2" || !r.present("a") {
		t.Errorf("assigned %q", ack.Properties.AssignedClientID)
	}
	c.disconnect()
	_, ack = r.connect(5, ack.Properties.AssignedClientID)
	if ack.Properties.AssignedClientID != "" || !r.present("a") {
		t.Errorf("assigned %q", ack.Properties.AssignedClientID)
	}
	c, _ = r.connect(4, "")
	c.quiet()
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t)
	r := start(t, options{config: func(c *Config) {
		c.Listeners = append(c.Listeners, Listener{
			Address: "127.0.0.1:0", TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}},
		})
		c.ConnectTimeout = 500 * time.Millisecond
	}}, plain("dev"))
	addr := r.b.Addrs()[1]
	dialTLS := func() *client {
		conn, err := tls.Dial("tcp", addr.String(), &tls.Config{RootCAs: pool, ServerName: "gateway"})
		if err != nil {
			t.Fatal(err)
		}
		return newClient(t, conn)
	}
	c := dialTLS()
	c.login(5, "dev")
	c.publish("t", "m", 1, 1)
	c.acked(packets.Puback, 1)
	r.clouds["dev"].send("t", "down", 1)
	c.message("down")
	next := dialTLS()
	next.login(4, "dev")
	c.cut(packets.ErrSessionTakenOver)
	next.disconnect()
	r.clouds["dev"].expect("connected", "disconnected false", "connected", "disconnected true")

	dial(t, addr).closed() // the connect timeout covers the handshake
	wrong := dial(t, addr)
	wrong.write(encode(t, connectPacket(4, "dev")))
	wrong.closed()
	until(t, "a log line for each", func() bool {
		return r.logs.FilterMessage("connection ended before a session began").Len() == 2
	})
}
