package e2e

import (
	"fmt"
	"slices"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/testdevice"
)

// Each of these is played with the upstream session outliving the device's absence, and with it ending first.
var sessionScripts = slices.Concat(
	bothWays("session present", func(s *scene, away func(*actor)) {
		dev := s.device("dev")
		dev.connect(keep)
		dev.subscribe(filter{"a", 1})
		away(dev)
		dev.connect(keep)
		away(dev)
		dev.connect(clean)
		away(dev)
		dev.connect(keep)
		away(dev)
		dev.connect(keep)
		away(dev)
		dev.connect(clean)
		away(dev)
		dev.connect(clean)
	}),
	bothWays("messages queued in absence", func(s *scene, away func(*actor)) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(keep)
		dev.subscribe(filter{"fence", 1}, filter{"one", 1}, filter{"two", 2}, filter{"zero", 0})
		s.fence(app, dev)
		for round := range 2 {
			away(dev)
			for i := range 50 {
				app.publish([]string{"one", "two"}[i%2], fmt.Sprint(round, " ", i), 2)
			}
			dev.connect(keep)
			dev.until(fmt.Sprint(round, " 49")) // Mosquitto could have the fence overtake what waits
			s.fence(app, dev)
		}
	}),
	// While the upstream session stays, bridged keeps QoS 0 for the device, too: see qos0 in the configuration.
	bothWays("QoS 0 in absence", func(s *scene, away func(*actor)) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(keep)
		dev.subscribe(filter{"fence", 1}, filter{"zero", 0}, filter{"two", 2})
		s.fence(app, dev)
		away(dev)
		app.publish("zero", "subscribed with QoS 0", 2)
		app.publish("two", "published with QoS 0", 0)
		app.publish("two", "kept", 1)
		dev.connect(keep)
		s.fence(app, dev)
	})[1:],
	[]script{{name: "a session that is over before the cloud hears of it", yaml: "  linger: 0s", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(keep)
		dev.subscribe(filter{"fence", 1}, filter{"a", 1})
		s.fence(app, dev)
		s.leave(dev)
		s.ended("dev", 1)
		app.publish("a", "of the old session", 1)
		dev.connect(clean)
		s.leave(dev)
		dev.connect(keep)
		dev.subscribe(filter{"fence", 1})
		app.publish("a", "not subscribed", 1)
		s.fence(app, dev)
	}}},
	bothWays("what a new session forgets", func(s *scene, away func(*actor)) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(keep)
		dev.subscribe(filter{"fence", 1}, filter{"a", 2})
		s.fence(app, dev)
		away(dev)
		app.publish("a", "forgotten", 2)
		dev.connect(clean)
		dev.subscribe(filter{"fence", 1})
		app.publish("a", "not subscribed", 2)
		s.fence(app, dev)
		away(dev)
		app.publish("fence", "in absence", 2)
		dev.connect(keep)
		dev.subscribe(filter{"fence", 1})
		app.publish("a", "still not subscribed", 2)
		s.fence(app, dev)
	}),
)

// bothWays makes two scripts of one. The play is given a way to have a device leave.
func bothWays(name string, play func(s *scene, away func(*actor))) []script {
	return []script{
		{name: name + ", upstream stays", play: func(s *scene) {
			play(s, s.leave)
		}},
		{name: name + ", upstream ends", yaml: "  linger: 0s", play: func(s *scene) {
			absences := 0
			play(s, func(a *actor) {
				absences++
				s.online("dev", absences)
				s.leave(a)
				s.ended("dev", absences)
			})
		}},
	}
}

// flowScripts are about acknowledgements that come late, twice, or not before the connection is gone.
var flowScripts = []script{
	{name: "redelivery with DUP", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(keep)
		dev.subscribe(filter{"a", 2}, filter{"fence", 1})
		dev.lazy = true
		app.publish("a", "zero", 0)
		app.publish("a", "one", 1)
		app.publish("a", "two", 2)
		app.publish("a", "three", 1)
		dev.until("three")
		for range 2 {
			s.lose(dev)
			dev.connect(keep)
			dev.until("three")
		}
		dev.settle()
		s.fence(app, dev)
		s.leave(dev)
		dev.connect(keep)
		s.fence(app, dev)
	}},
	{name: "PUBREL is sent again", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(keep)
		dev.subscribe(filter{"a", 2}, filter{"fence", 1})
		dev.lazy = true
		app.publish("a", "one", 2)
		dev.until("one")
		dev.acknowledge(dev.owed[0])
		dev.next() // PUBREL, left unanswered
		s.lose(dev)
		dev.connect(keep)
		dev.next()
		dev.lazy = false
		for id := range dev.taken {
			delete(dev.taken, id)
			dev.Ack(packets.Pubcomp, id)
		}
		s.fence(app, dev)
		s.lose(dev)
		dev.connect(keep)
		s.fence(app, dev)
	}},
	{name: "a device sends again", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		app.subscribe(filter{"#", 2})
		dev.connect(keep)
		two := dev.NewPublish("a", mark("exactly once"), 2)
		dev.ask(two, two.MessageID, "two")
		dev.lazy = true
		dev.wait(two.MessageID) // PUBREC, left unanswered
		s.lose(dev)
		for range 2 {
			dev.connect(keep)
			two.Dup = true
			dev.ask(two, two.MessageID, "two")
			dev.wait(two.MessageID)
			s.lose(dev)
		}
		dev.connect(keep)
		dev.lazy = false
		for range 2 {
			dev.sent[two.MessageID] = "PUBREL"
			dev.Ack(packets.Pubrel, two.MessageID)
			dev.wait(two.MessageID)
		}
		dev.publish("a", "end", 1)
		app.until("end")
	}},
	{name: "unasked acknowledgements", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(clean)
		dev.subscribe(filter{"fence", 1})
		dev.Ack(packets.Puback, 4711)
		dev.ping()
		dev.Ack(packets.Pubcomp, 4711)
		dev.ping()
		dev.Ack(packets.Pubrel, 4711)
		dev.next()
		dev.ping()
		s.fence(app, dev)
	}},
	{name: "a device that acknowledges nothing", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(keep)
		dev.subscribe(filter{"a", 2}, filter{"fence", 1})
		dev.lazy = true
		for i := range 100 {
			app.publish("a", fmt.Sprint(i), byte(1+i%2))
		}
		const window = 20 // Mosquitto's max_inflight_messages
		dev.until(fmt.Sprint(window - 1))
		dev.ping()
		dev.settle()
		dev.until("99")
		s.fence(app, dev)
	}},
	{name: "acknowledgements in order", play: func(s *scene) {
		dev := s.device("dev")
		dev.connect(clean)
		var ids []uint16
		for i := range 60 {
			p := dev.NewPublish("a", mark(fmt.Sprint(i)), byte(i%3))
			if p.Qos > 0 {
				ids = append(ids, p.MessageID)
			}
			dev.ask(p, p.MessageID, show(p.Payload))
		}
		for _, id := range ids {
			dev.wait(id)
		}
	}},
	{name: "own messages", play: func(s *scene) {
		dev := s.device("dev")
		dev.connect(clean)
		dev.subscribe(filter{"own/#", 2})
		for qos := range byte(3) {
			dev.publish(fmt.Sprint("own/", qos), fmt.Sprint(qos), qos)
		}
		dev.publish("own/end", "end", 0)
		dev.until("end")
	}},
	{name: "two devices", devices: []string{"one", "two"}, play: func(s *scene) {
		one, two := s.device("one"), s.device("two")
		for _, dev := range []*actor{one, two} {
			dev.connect(clean)
			dev.subscribe(filter{"both/#", 2}, filter{"only/" + dev.name, 1})
		}
		for qos := range byte(3) {
			one.publish("both/a", fmt.Sprint("from one ", qos), qos)
			one.until(fmt.Sprint("from one ", qos))
			two.until(fmt.Sprint("from one ", qos))
			two.publish("only/one", fmt.Sprint("to one ", qos), qos)
			one.until(fmt.Sprint("to one ", qos))
			two.publish("only/two", fmt.Sprint("to two ", qos), qos)
			two.until(fmt.Sprint("to two ", qos))
		}
	}},
	{name: "take-over", play: func(s *scene) {
		first, second, app := s.device("first"), s.device("second"), s.app("app")
		first.connect(as("dev", keep))
		first.subscribe(filter{"a", 2}, filter{"fence", 1})
		first.lazy = true
		app.publish("a", "unacknowledged", 1)
		first.until("unacknowledged")
		second.connect(as("dev", keep))
		first.closed("the take-over")
		second.until("unacknowledged")
		s.fence(app, second)
		first.connect(as("dev", clean))
		second.closed("the take-over")
		first.lazy = false
		first.subscribe(filter{"fence", 1})
		app.publish("a", "not subscribed", 1)
		s.fence(app, first)
	}},
}

// as has an actor connect under another client id than its name.
func as(id string, o testdevice.Options) testdevice.Options {
	o.ClientID = id
	return o
}
