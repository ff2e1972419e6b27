package e2e

import (
	"fmt"
	"testing"

	"bridged/internal/testdevice"
)

// roundTrip sends a message up from a device and one down to it, on topics that begin with the device's id, and looks
// at both at the cloud's other listener.
func roundTrip(t *testing.T, m *mosquitto, device login) {
	t.Helper()
	observer := sub(t, login{addr: m.addr()}, device.id+"/up", 2)
	d := sub(t, device, device.id+"/down", 2)
	pub(t, login{addr: m.addr()}, device.id+"/down", 2, payload("down"))
	if got := d.receive(); got != (message{topic: device.id + "/down", payload: string(payload("down")), qos: 2}) {
		t.Errorf("%s received %s", device.id, got)
	}
	d.stop()

	pub(t, device, device.id+"/up", 2, payload("up"))
	if got := observer.receive(); got != (message{topic: device.id + "/up", payload: string(payload("up")), qos: 2}) {
		t.Errorf("from %s came %s", device.id, got)
	}
}

// payload is one that is noticed in logs.
func payload(text string) []byte { return []byte(payloadMark + " " + text) }

// dev is the login of the device that most tests have.
func (d *daemon) dev() login {
	return login{addr: d.addr, id: "dev", user: "dev-user", password: secretMark + "-lan"}
}

// devYAML configures that device, and its cloud.
func devYAML(m *mosquitto, more string) string {
	return fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s"}
devices:
  - name: dev
    login: {username: dev-user, password: %s-lan}
%s`, m.url(), secretMark, more)
}

func TestWS(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	d := startDaemon(t, devYAML(m, ""))
	roundTrip(t, m, d.dev())
}

func TestWSSWithPrivateCA(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	m := startMosquitto(t, cloud{tls: ca})
	d := startDaemon(t, fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s", tls: {ca_file: %s}}
devices:
  - {name: dev, login: {username: dev-user, password: %s-lan}}
`, m.url(), ca.file, secretMark))
	roundTrip(t, m, d.dev())
}

// A cloud whose certificate is not to be trusted gets nothing.
func TestWSSWithWrongCA(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{tls: newAuthority(t)})
	d := startDaemon(t, fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s", tls: {ca_file: %s}}
devices:
  - {name: dev, login: {username: dev-user, password: %s-lan}}
`, m.url(), newAuthority(t).file, secretMark), "no session with the cloud", "stopped with messages")
	observer := sub(t, login{addr: m.addr()}, "#", 0)
	pub(t, d.dev(), "t", 0, payload("not for everybody"))
	d.logged(1, `"device":"dev"`, `"class":"tls"`, "certificate")
	pub(t, login{addr: m.addr()}, "fence", 0, nil)
	if got := observer.receive(); got.topic != "fence" {
		t.Errorf("the cloud got %s", got)
	}
}

// Each device has a client certificate, and is to the cloud who its certificate says. A device without one is told why
// it is offline.
func TestWSSWithClientCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	m := startMosquitto(t, cloud{
		tls: ca, ws: "require_certificate true\nuse_identity_as_username true",
		acl: "topic readwrite #\npattern readwrite %u/#\n", // the first line is for those without a name
	})
	certA, keyA := ca.issue(t, "alice")
	certB, keyB := ca.issue(t, "bob")
	d := startDaemon(t, fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s", tls: {ca_file: %s}}
defaults: {login: {anonymous: true}}
devices:
  - {name: a, cert_file: %s, key_file: %s, login: {client_id: alice}}
  - {name: b, cert_file: %s, key_file: %s, login: {client_id: bob}}
  - {name: c, login: {client_id: carol}}
`, m.url(), ca.file, certA, keyA, certB, keyB), "no session with the cloud", "stopped with messages")
	for _, id := range []string{"alice", "bob"} {
		roundTrip(t, m, login{addr: d.addr, id: id})
	}
	observer := sub(t, login{addr: m.addr()}, "+/own", 1)
	alice := login{addr: d.addr, id: "alice"}
	pub(t, alice, "bob/own", 1, payload("not hers"))
	pub(t, alice, "alice/own", 1, payload("hers"))
	if got := observer.receive(); got.topic != "alice/own" {
		t.Errorf("alice is not alice to the cloud: it took %s", got)
	}

	pub(t, login{addr: d.addr, id: "carol"}, "carol/own", 0, payload("nobody's"))
	d.logged(1, `"device":"c"`, `"class":"tls"`)
}

// Each device has a user name and a password in the cloud. One whose password is wrong is told why it is offline.
func TestUserNameAndPassword(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{
		passwords: map[string]string{"alice": secretMark + " of alice", "bob": secretMark + " of bob"},
		acl:       "topic readwrite #\npattern readwrite %u/#\n",
	})
	d := startDaemon(t, fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s"}
defaults: {login: {anonymous: true}}
devices:
  - {name: a, username: alice, password: %[2]s of alice, login: {client_id: alice}}
  - {name: b, username: bob, password: %[2]s of bob, login: {client_id: bob}}
  - {name: c, username: bob, password: %[2]s of alice, login: {client_id: carol}}
`, m.url(), secretMark), "the cloud refused the login", "stopped with messages",
		"no session with the cloud") // Mosquitto 2.0.11 ends the connection of who publishes where it may not
	for _, id := range []string{"alice", "bob"} {
		roundTrip(t, m, login{addr: d.addr, id: id})
	}
	observer := sub(t, login{addr: m.addr()}, "+/own", 1)
	alice := login{addr: d.addr, id: "alice"}
	pub(t, alice, "bob/own", 1, payload("not hers"))
	pub(t, alice, "alice/own", 1, payload("hers"))
	if got := observer.receive(); got.topic != "alice/own" {
		t.Errorf("alice is not alice to the cloud: it took %s", got)
	}

	carol := testdevice.Connect(t, d.addr, testdevice.Options{ClientID: "carol"})
	d.logged(1, `"device":"c"`, `"class":"rejected"`)
	carol.Publish("carol/own", payload("refused"), 0)
	carol.Disconnect()
}

// Devices that can do so speak TLS, others plain TCP, and both go to the same cloud.
func TestTLSOnTheLAN(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t, cloud{})
	ca := newAuthority(t)
	cert, key := ca.issue(t, "localhost")
	secure := freePort(t)
	d := startDaemon(t, fmt.Sprintf(`
listen:
  - url: tcp://127.0.0.1:0
  - {url: 'tls://127.0.0.1:%d', cert_file: %s, key_file: %s}
%s`, secure, cert, key, devYAML(m, "")))
	observer := sub(t, login{addr: m.addr()}, "up", 1)
	tls := d.dev()
	tls.addr = address(secure)
	pub(t, tls, "up", 1, payload("by TLS"), "--cafile", ca.file)
	pub(t, d.dev(), "up", 1, payload("by TCP"))
	for _, text := range []string{"by TLS", "by TCP"} {
		if got := observer.receive(); got.payload != string(payload(text)) {
			t.Errorf("got %s", got)
		}
	}
}
