package e2e

import (
	"fmt"

	"bridged/internal/testdevice"
)

// clean connects with a clean session, and keeps for one that is kept.
var (
	clean = testdevice.Options{}
	keep  = testdevice.Options{Persist: true}
)

var subscriptionScripts = []script{
	{name: "granted QoS", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(clean)
		for qos := range byte(3) {
			dev.subscribe(filter{fmt.Sprint("q", qos), qos})
		}
		dev.subscribe(filter{"fence", 1})
		for sub := range byte(3) {
			for pub := range byte(3) {
				app.publish(fmt.Sprint("q", sub), fmt.Sprint(pub, " to ", sub), pub)
			}
		}
		s.fence(app, dev)
	}},
	{name: "subscribing again", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		app.retain("a", "kept", 2)
		dev.connect(clean)
		dev.subscribe(filter{"fence", 1})
		for _, qos := range []byte{0, 2, 1, 1, 0} {
			dev.subscribe(filter{"a", qos})
			app.publish("a", fmt.Sprint("while at ", qos), 2)
			s.fence(app, dev)
		}
	}},
	{name: "the same filter twice in a SUBSCRIBE", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		app.retain("a", "kept", 2)
		dev.connect(clean)
		dev.subscribe(filter{"a", 0}, filter{"a", 2}, filter{"fence", 1}, filter{"a", 1})
		app.publish("a", "live", 2)
		s.fence(app, dev)
		dev.unsubscribe("a", "a")
		app.publish("a", "nobody's", 2)
		s.fence(app, dev)
	}},
	{name: "overlapping filters", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		app.retain("a/b", "kept", 2)
		dev.connect(clean)
		dev.subscribe(filter{"a/#", 0}, filter{"fence", 1}, filter{"+/b", 2}, filter{"a/b", 1})
		for qos := range byte(3) {
			app.publish("a/b", fmt.Sprint("to all three, QoS ", qos), qos)
		}
		app.publish("a/c", "to one", 2)
		s.fence(app, dev)
		dev.unsubscribe("+/b")
		app.publish("a/b", "to two", 2)
		s.fence(app, dev)
		dev.unsubscribe("a/b", "a/#")
		app.publish("a/b", "to none", 2)
		s.fence(app, dev)
	}},
	{name: "wildcards", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		topics := []string{"a", "a/", "/a", "/", "//", "a/b", "a//b", "a/b/c", "A", " a", "a/b "}
		dev.connect(clean)
		dev.subscribe(filter{"fence", 1})
		for _, f := range []string{"#", "+", "/#", "/+", "+/+", "a/#", "a/+", "+/b/#", "a/+/b", "//", " a"} {
			dev.subscribe(filter{f, 1})
			for _, topic := range topics {
				app.publish(topic, f, 1)
			}
			s.fence(app, dev)
			dev.unsubscribe(f)
		}
	}},
	{name: "$ topics", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(clean)
		dev.subscribe(filter{"fence", 1}, filter{"#", 0})
		app.publish("$own/a", "not for #", 1)
		app.publish("$own/$b", "not for #", 1)
		app.publish("a/$b", "for #", 1)
		s.fence(app, dev)
		dev.subscribe(filter{"$own/#", 1}, filter{"+/a", 1}, filter{"$own/+", 2})
		app.publish("$own/a", "for $own", 2)
		dev.publish("$own/a", "from the device", 2)
		s.fence(app, dev)
		dev.subscribe(filter{"$SYS/broker/version", 1})
		dev.publish("$own/b", "taken", 1)
		s.fence(app, dev)
		dev.unsubscribe("$own/#", "$own/+")
		app.publish("$own/a", "for nobody", 1)
		s.fence(app, dev)
	}},
	{name: "shared subscription", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(clean)
		dev.subscribe(filter{"fence", 1}, filter{"$share/group/a", 1})
		for i := range 3 {
			app.publish("a", fmt.Sprint(i), 1)
		}
		s.fence(app, dev)
		dev.unsubscribe("$share/group/a")
		app.publish("a", "nobody's", 1)
		s.fence(app, dev)
	}},
	{name: "unsubscribe", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(clean)
		dev.unsubscribe("never/subscribed")
		dev.subscribe(filter{"fence", 1}, filter{"a", 1}, filter{"b", 1}, filter{"c", 1})
		dev.unsubscribe("a", "never/subscribed", "c")
		for _, topic := range []string{"a", "b", "c"} {
			app.publish(topic, topic, 1)
		}
		s.fence(app, dev)
		dev.unsubscribe("a")
		dev.subscribe(filter{"a", 2})
		app.publish("a", "again", 2)
		s.fence(app, dev)
	}},
	{name: "many filters in a SUBSCRIBE", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(clean)
		filters := []filter{{"fence", 1}}
		names := []string{}
		for i := range 250 {
			filters = append(filters, filter{fmt.Sprint("f/", i), byte(i % 3)})
			names = append(names, fmt.Sprint("f/", i))
		}
		dev.subscribe(filters...)
		for _, i := range []int{0, 99, 100, 101, 249} {
			app.publish(fmt.Sprint("f/", i), fmt.Sprint(i), 2)
		}
		s.fence(app, dev)
		dev.unsubscribe(names...)
		app.publish("f/249", "nobody's", 2)
		s.fence(app, dev)
	}},
	{name: "refused filters", cloud: refusing, play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		app.retain("secret/a", "kept", 1)
		dev.connect(keep)
		dev.subscribe(filter{"secret/a", 1})
		dev.subscribe(filter{"fence", 1}, filter{"secret/#", 2}, filter{"open/a", 2}, filter{"secret/b", 0})
		app.publish("secret/a", "not for the device", 1)
		app.publish("open/a", "for the device", 2)
		s.fence(app, dev)
		dev.unsubscribe("secret/a")
		s.leave(dev)
		s.ended("dev", 1)
		dev.connect(keep)
		app.publish("secret/a", "nor now", 1)
		s.fence(app, dev)
	}, yaml: "  linger: 0s"},
}

// refusing refuses the device dev what begins with secret.
var refusing = cloud{acl: "user app\ntopic readwrite #\nuser dev\ntopic readwrite fence\ntopic readwrite open/#\n"}

var retainedScripts = []script{
	{name: "retained messages on subscribing", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		for qos := range byte(3) {
			app.retain(fmt.Sprint("kept/", qos), fmt.Sprint("kept ", qos), qos)
		}
		dev.connect(clean)
		dev.subscribe(filter{"fence", 1}, filter{"kept/1", 2})
		s.fence(app, dev)
		dev.subscribe(filter{"kept/2", 2}, filter{"kept/0", 2})
		s.fence(app, dev)
		app.retain("kept/1", "newer", 1) // not flagged: it is live
		s.fence(app, dev)
		dev.subscribe(filter{"kept/1", 0})
		s.fence(app, dev)
	}},
	{name: "retained messages are cleared", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		dev.connect(clean)
		dev.retain("kept", "first", 1)
		dev.retain("kept", "second", 2)
		dev.retain("gone", "third", 1)
		app.subscribe(filter{"fence", 1}, filter{"kept", 1}, filter{"gone", 1})
		app.publish("fence", "1", 1)
		app.until("1")
		dev.retain("gone", "", 1)
		dev.subscribe(filter{"fence", 1}, filter{"gone", 1})
		dev.subscribe(filter{"kept", 1})
		s.fence(app, dev)
		app.retain("kept", "", 1)
		dev.subscribe(filter{"kept", 1})
		s.fence(app, dev)
		app.unsubscribe("kept", "gone")
		app.subscribe(filter{"kept", 1})
		app.subscribe(filter{"gone", 1})
		s.fence(dev, app)
	}},
	{name: "retained messages and sessions", yaml: "  linger: 0s", play: func(s *scene) {
		dev, app := s.device("dev"), s.app("app")
		app.retain("kept", "kept", 1)
		dev.connect(keep)
		dev.subscribe(filter{"fence", 1}, filter{"kept", 1})
		s.fence(app, dev)
		for i := range 3 { // a session that goes on does not get them again
			s.leave(dev)
			if i < 2 {
				s.ended("dev", i+1)
			}
			app.retain("kept", fmt.Sprint("kept in absence ", i), 1)
			dev.connect(keep)
			s.fence(app, dev)
		}
		s.leave(dev)
		dev.connect(clean)
		dev.subscribe(filter{"fence", 1}, filter{"kept", 1})
		s.fence(app, dev)
	}},
	{name: "the device's own retained message", play: func(s *scene) {
		dev := s.device("dev")
		dev.connect(clean)
		dev.subscribe(filter{"own", 2})
		dev.retain("own", "kept", 2)
		dev.publish("own", "not kept", 2)
		dev.subscribe(filter{"own", 1})
		dev.publish("own", "end", 0)
		dev.until("end")
	}},
}
