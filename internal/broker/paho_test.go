package broker

import (
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// wait waits for a token of paho's client.
func wait(tb testing.TB, token paho.Token) {
	tb.Helper()
	if !token.WaitTimeout(patience) {
		tb.Fatal("paho's client gets no answer")
	}
	if err := token.Error(); err != nil {
		tb.Fatal(err)
	}
}

// Somebody else's client.
func TestPaho(t *testing.T) {
	for _, version := range []uint{3, 4} {
		t.Run(versionName(byte(version)), func(t *testing.T) {
			d := plain("dev")
			d.Login.Username, d.Login.Password = "user", "password"
			r := start(t, options{}, d)
			cl := r.clouds["dev"]
			got := make(chan paho.Message, 10)
			c := paho.NewClient(paho.NewClientOptions().
				AddBroker("tcp://"+r.addr().String()).SetClientID("dev").SetUsername("user").SetPassword("password").
				SetProtocolVersion(version).SetCleanSession(false).SetKeepAlive(time.Second).SetAutoReconnect(false).
				SetWill("w", "bye", 1, false).
				SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { got <- m }))
			wait(t, c.Connect())
			wait(t, c.Subscribe("down/#", 2, nil))
			for qos := range byte(3) {
				wait(t, c.Publish("up", qos, false, []byte{'0' + qos}))
				cl.send("down/x", string('0'+rune(qos)), qos)
				select {
				case m := <-got:
					if m.Qos() != qos || m.Topic() != "down/x" || m.Payload()[0] != '0'+qos {
						t.Errorf("got %s, QoS %d", m.Payload(), m.Qos())
					}
				case <-time.After(patience):
					t.Fatal("no message")
				}
			}
			cl.receive(3)
			wait(t, c.Unsubscribe("down/#"))
			until(t, "everything is acknowledged", func() bool { return cl.down.Counters().Delivered == 3 })
			if w := cl.asked().Will; string(w.Payload) != "bye" {
				t.Errorf("will %+v", w)
			}
			c.Disconnect(100)
			cl.expect("connected", "disconnected true")
		})
	}
}
