package broker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap/zapcore"
)

// Whatever goes wrong, no payload and no password is logged.
func TestNothingSecretLogged(t *testing.T) {
	const secret = "swordfish"
	d := plain("dev")
	d.Login.Username, d.Login.Password = "user", secret
	r := start(t, options{}, d)
	for _, v := range []byte{4, 5} {
		c, _ := r.connect(v, "dev", credentials("user", secret), lastWill("w", secret, 1))
		c.publish("t", secret, 1, 1)
		c.acked(packets.Puback, 1)
		r.clouds["dev"].send("t", secret, 1)
		c.message(secret)
		c.publish("t/#", secret, 1, 2)
		c.cut(packets.ErrProtocolViolation)

		c, _ = r.connect(v, "dev", credentials("user", secret))
		c.write([]byte{0x32, 12, 0, 9, 's', 'w', 'o', 'r', 'd', 'f', 'i', 's', 'h', 0})
		c.cut(packets.ErrMalformedPacket)

		c = dial(t, r.addr())
		c.version = v
		pk := connectPacket(v, "dev")
		credentials("user", secret+"!")(pk)
		lastWill("w/#", secret, 1)(pk)
		c.send(pk)
		if v == 5 {
			c.expect(packets.Connack)
		}
		c.closed()

		c = dial(t, r.addr())
		c.version = v
		pk = connectPacket(v, "dev")
		credentials(secret, secret+"!")(pk)
		c.send(pk)
		c.expect(packets.Connack)
		c.closed()
	}
	r.stop()
	if r.logs.Len() < 8 {
		t.Errorf("only %d log lines", r.logs.Len())
	}
	for _, e := range r.logs.All() {
		if line := fmt.Sprintf("%s %v", e.Message, e.ContextMap()); strings.Contains(line, secret) {
			t.Errorf("a secret in the log: %s", line)
		}
	}
}

// Normal operation logs nothing above info.
func TestNormalOperationLogs(t *testing.T) {
	r, cl := one(t)
	versions(t, func(_ *testing.T, v byte) {
		c, _ := r.connect(v, "dev", keepalive(1))
		c.publish("t", "m", 1, 1)
		c.acked(packets.Puback, 1)
		cl.send("t", "m", 1)
		c.ack(packets.Puback, c.message("m").PacketID)
		c.disconnect()
	})
	r.stop()
	e := r.logged(zapcore.InfoLevel, "device connected").ContextMap()
	if e["device"] != "dev" || e["client_id"] != "dev" || e["remote"] == nil || e["protocol"] != "3.1" {
		t.Errorf("log line %v", e)
	}
	for _, e := range r.logs.All() {
		if e.Level > zapcore.InfoLevel {
			t.Errorf("%s: %s %v", e.Level, e.Message, e.ContextMap())
		}
	}
}
