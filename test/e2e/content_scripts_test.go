package e2e

import (
	"bytes"
	"fmt"
	"strings"
)

// contentScripts are about what messages may hold.
var contentScripts = []script{
	{name: "payloads", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		payloads := []string{"", "\x00", string(every), strings.Repeat("\xff\x00", 1000)}
		for _, a := range []*actor{app, dev} {
			if a == dev {
				dev.connect(clean)
			}
			a.subscribe(filter{"to/" + a.name, 2}, filter{"fence", 1})
		}
		for qos := range byte(3) {
			for _, text := range payloads {
				dev.publish("to/app", text, qos)
				app.publish("to/dev", text, qos)
			}
		}
		large := string(bytes.Repeat(every, 1024))[:256<<10-len(mark(" "))+1]
		for qos := range byte(3) {
			dev.publish("to/app", large, qos)
		}
		app.publish("to/dev", large, 1) // once: over its WebSocket listener Mosquitto takes seconds for it
		s.fence(app, dev)
		s.fence(dev, app)
	}},
	{name: "topics", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		topics := []string{
			"温度/センサー/é", "with space/ and more ", "😀", "e\u0301 is not \u00e9", "\ufeffmark", "{}[]%$&'\"\\",
			strings.Repeat("long/", 100), strings.Repeat("x", 65000), strings.Repeat("é", 30000),
		}
		dev.connect(clean)
		dev.subscribe(filter{"fence", 1})
		app.subscribe(filter{"fence", 1})
		for _, topic := range topics {
			app.subscribe(filter{topic, 1})
			dev.publish(topic, "up", 1)
			s.fence(dev, app)
			app.unsubscribe(topic)
			dev.subscribe(filter{topic, 1})
			app.publish(topic, "down", 1)
			s.fence(app, dev)
		}
	}},
	{name: "violations", play: func(s *scene) {
		dev := s.device("dev")
		connect := func() { dev.connect(clean); dev.publish("a", "well", 1) }
		for _, f := range []string{"", "a/#/b", "a#", "+a", "a/b+", "#/", "a\x00b"} {
			connect()
			dev.sendRaw(fmt.Sprintf("SUBSCRIBE to %q", f), packet(0x82, "\x00\x07"+text(f)+"\x01"))
			connect()
			dev.sendRaw(fmt.Sprintf("UNSUBSCRIBE from %q", f), packet(0xA2, "\x00\x07"+text(f)))
		}
		for _, topic := range []string{"", "a/#", "+", "a\x00b", "\xff", "\xed\xa0\x80"} {
			connect()
			dev.sendRaw(fmt.Sprintf("PUBLISH to %q", topic), packet(0x32, text(topic)+"\x00\x07"))
		}
		// SUBACK and PINGRESP are not among them: Mosquitto takes them from clients, which may be other Mosquittos.
		for _, raw := range []struct{ what, bytes string }{
			{"SUBSCRIBE without filters", packet(0x82, "\x00\x07")},
			{"SUBSCRIBE with QoS 3", packet(0x82, "\x00\x07\x00\x01a\x03")},
			{"SUBSCRIBE with wrong flags", packet(0x80, "\x00\x07\x00\x01a\x01")},
			{"SUBSCRIBE with packet identifier 0", packet(0x82, "\x00\x00\x00\x01a\x01")},
			{"UNSUBSCRIBE without filters", packet(0xA2, "\x00\x07")},
			{"PUBLISH with QoS 3", packet(0x36, "\x00\x01a\x00\x07")},
			{"PUBLISH with packet identifier 0", packet(0x32, "\x00\x01a\x00\x00")},
			{"PUBLISH with a topic beyond its end", packet(0x30, "\x00\x02a")},
			{"PUBREL with wrong flags", packet(0x60, "\x00\x07")},
			{"CONNACK", packet(0x20, "\x00\x00")},
			{"type 0", packet(0x00, "")},
			{"type 15", packet(0xF0, "")},
			{"a malformed length", "\x30\xff\xff\xff\xff\x7f"},
			{"a second CONNECT", packet(0x10, "\x00\x04MQTT\x04\x02\x00\x00\x00\x03dev")},
		} {
			connect()
			dev.sendRaw(raw.what, raw.bytes)
		}
	}},
}

// Mosquitto takes no control characters and no noncharacters in topics, as a broker may (MQTT 3.1.1, 1.5.3). What is
// passed on to it all the same ends the cloud session, and again each time when it is sent again.
var unusual = []string{"a\tb", "\x7f", "\u0085", "\ufffe", "\ufdd0"}

var unusualScripts = []script{
	{name: "unusual characters in PUBLISH", play: func(s *scene) {
		dev := s.device("dev")
		for _, topic := range unusual {
			dev.connect(clean)
			dev.sendRaw(fmt.Sprintf("PUBLISH to %q", topic), packet(0x32, text(topic)+"\x00\x07"))
			dev.Drop()
			dev.connect(clean)
			dev.publish("a", "afterwards", 1)
		}
	}},
	{name: "unusual characters in SUBSCRIBE", play: func(s *scene) {
		dev := s.device("dev")
		for _, f := range unusual {
			dev.connect(clean)
			dev.sendRaw(fmt.Sprintf("SUBSCRIBE to %q", f), packet(0x82, "\x00\x07"+text(f)+"\x01"))
			dev.Drop()
			dev.connect(clean)
			dev.publish("a", "afterwards", 1)
		}
	}},
}

// packet makes one of less than 128 bytes.
func packet(head byte, body string) string { return string([]byte{head, byte(len(body))}) + body }

// text encodes a string of less than 256 bytes (MQTT 3.1.1, 1.5.3).
func text(s string) string { return string([]byte{0, byte(len(s))}) + s }

// sendRaw sends bytes that end the connection.
func (a *actor) sendRaw(what, raw string) {
	a.tb.Helper()
	if _, err := a.Conn().Write([]byte(raw)); err != nil {
		a.tb.Fatal(err)
	}
	a.closed(what)
}
