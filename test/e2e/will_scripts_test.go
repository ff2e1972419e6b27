package e2e

import (
	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/testdevice"
)

// withWill adds a will.
func withWill(o testdevice.Options, text string, qos byte, retain bool) testdevice.Options {
	o.Will = packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	o.Will.TopicName, o.Will.Payload, o.Will.Qos, o.Will.Retain = "will", mark(text), qos, retain
	return o
}

var willScripts = []script{
	{name: "will after a lost connection", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		app.subscribe(filter{"#", 2})
		for qos := range byte(3) {
			dev.connect(withWill(clean, "lost", qos, qos == 1))
			dev.publish("a", "before", qos)
			dev.ping()
			s.lose(dev)
			app.until("lost")
		}
		dev.connect(withWill(clean, "", 1, true)) // clears what was retained
		dev.publish("a", "before", 1)
		s.lose(dev)
		app.until("")
		app.subscribe(filter{"will", 1})
		app.publish("a", "end", 1)
		app.until("end")
	}},
	{name: "no will after DISCONNECT", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		app.subscribe(filter{"#", 2})
		dev.connect(withWill(clean, "will", 1, false))
		dev.publish("a", "before", 1)
		s.leave(dev)
		dev.connect(withWill(keep, "will", 1, false))
		dev.publish("a", "again", 1)
		app.until("again") // a device that leaves before PUBACK and comes back with another session may have it sent twice
		s.leave(dev)
		dev.connect(keep)
		dev.publish("a", "a session without one", 1)
		s.lose(dev)
		dev.connect(clean)
		dev.publish("a", "end", 1)
		app.until("end")
	}},
	{name: "will after silence", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		app.subscribe(filter{"#", 2})
		o := withWill(clean, "silent", 1, false)
		o.Keepalive = 1
		dev.connect(o)
		dev.publish("a", "before", 1)
		app.until("silent")
		dev.closed("silence")
	}},
	{name: "will after a violation", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		app.subscribe(filter{"#", 2})
		dev.connect(withWill(clean, "broken", 2, false))
		dev.publish("a", "before", 1)
		dev.sendRaw("a packet that only servers send", "\x20\x02\x00\x00")
		app.until("broken")
	}},
	{name: "will after a take-over", play: func(s *scene) {
		first, second, app := s.device("first"), s.device("second"), s.app("app")
		app.subscribe(filter{"#", 2})
		first.connect(as("dev", withWill(clean, "of the first", 1, false)))
		first.publish("a", "from the first", 1)
		second.connect(as("dev", withWill(clean, "of the second", 1, false)))
		first.closed("the take-over")
		second.publish("a", "from the second", 1)
		app.until("from the second")
		second.Drop()
		app.until("of the second")
	}},
	{name: "own will", play: func(s *scene) {
		dev := s.device("dev")
		dev.connect(withWill(keep, "will", 1, false))
		dev.subscribe(filter{"#", 1})
		dev.publish("a", "before", 1)
		dev.ping()
		s.lose(dev)
		dev.connect(keep)
		dev.until("will")
	}},
}
