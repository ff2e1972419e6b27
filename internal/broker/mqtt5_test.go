package broker

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/mqtt"
)

// What the CONNACK tells an MQTT 5 device.
func TestConnackProperties(t *testing.T) {
	base := func(change func(*packets.Properties)) packets.Properties {
		p := packets.Properties{
			ReceiveMaximum: receiveMaximum, MaximumPacketSize: 256 << 10, SubIDAvailableFlag: true, SharedSubAvailableFlag: true,
		}
		if change != nil {
			change(&p)
		}
		return p
	}
	for name, test := range map[string]struct {
		maxQoS byte
		retain bool
		change func(*packets.Packet)
		want   packets.Properties
	}{
		"everything": {2, true, nil, base(nil)},
		"QoS 1": {1, true, nil, base(func(p *packets.Properties) {
			p.MaximumQos, p.MaximumQosFlag = 1, true
		})},
		"QoS 0": {0, true, nil, base(func(p *packets.Properties) { p.MaximumQosFlag = true })},
		"no retain": {2, false, nil, base(func(p *packets.Properties) {
			p.RetainAvailable, p.RetainAvailableFlag = 0, true
		})},
		"session expiry": {2, true, expiry(77), base(func(p *packets.Properties) {
			p.SessionExpiryInterval, p.SessionExpiryIntervalFlag = 77, true
		})},
		"session for ever": {2, true, expiry(mqtt.Forever), base(func(p *packets.Properties) {
			p.SessionExpiryInterval, p.SessionExpiryIntervalFlag = mqtt.Forever, true
		})},
	} {
		t.Run(name, func(t *testing.T) {
			d := plain("dev")
			d.MaxQoS, d.Retain = test.maxQoS, test.retain
			r := start(t, options{}, d)
			var changes []func(*packets.Packet)
			if test.change != nil {
				changes = append(changes, test.change)
			}
			_, ack := r.connect(5, "dev", changes...)
			if diff := cmp.Diff(test.want, ack.Properties); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A device that does not heed what it was told is served: the cloud side lowers and strips.
func TestLenient(t *testing.T) {
	d := plain("dev")
	d.MaxQoS, d.Retain = 0, false
	r := start(t, options{}, d)
	cl := r.clouds["dev"]
	c, _ := r.connect(5, "dev")
	c.publish("t", "m", 2, 1, func(pk *packets.Packet) { pk.FixedHeader.Retain = true })
	c.acked(packets.Pubrec, 1)
	if m := cl.receive(1)[0].Message; m.QoS != 2 || !m.Retain {
		t.Errorf("got %+v", m)
	}
}

func TestUnsupportedSubscribeOptions(t *testing.T) {
	const (
		implementation = 0x83
		sharedSub      = 0x9e
		subscriptionID = 0xa1
	)
	type options = packets.Subscription
	for name, test := range map[string]struct {
		filter options
		id     []int // subscription identifier
		want   byte
		reason string
	}{
		"no local":                    {options{Filter: "a", NoLocal: true}, nil, implementation, "No Local"},
		"retain as published":         {options{Filter: "a", RetainAsPublished: true}, nil, implementation, "Retain As"},
		"retain handling 1":           {options{Filter: "a", RetainHandling: 1}, nil, implementation, "Retain Handling"},
		"retain handling 2":           {options{Filter: "a", RetainHandling: 2}, nil, implementation, "Retain Handling"},
		"subscription identifier":     {options{Filter: "a"}, []int{7}, subscriptionID, "identifiers"},
		"shared":                      {options{Filter: "$share/g/a"}, nil, sharedSub, "shared"},
		"without problem information": {options{Filter: "a", NoLocal: true}, nil, implementation, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, cl := one(t)
			c, _ := r.connect(5, "dev", func(pk *packets.Packet) {
				pk.Properties.RequestProblemInfoFlag = test.reason == ""
			})
			pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1,
				Filters: packets.Subscriptions{{Filter: "plain", Qos: 1}, test.filter}}
			want := []byte{1, test.want}
			if test.id != nil { // it concerns all filters
				pk.Properties.SubscriptionIdentifier = test.id
				want[0] = test.want
			}
			c.send(pk)
			ack := c.acked(packets.Suback, 1)
			if !bytes.Equal(ack.ReasonCodes, want) {
				t.Errorf("SUBACK % x, want % x", ack.ReasonCodes, want)
			}
			if got := ack.Properties.ReasonString; !strings.Contains(got, test.reason) || test.reason == "" && got != "" {
				t.Errorf("reason %q", got)
			}
			var passed [][]mqtt.Subscription
			if want[0] == 1 {
				passed = [][]mqtt.Subscription{{{Filter: "plain", QoS: 1}}}
			}
			cl.mu.Lock()
			defer cl.mu.Unlock()
			if diff := cmp.Diff(passed, cl.subs); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Properties that the cloud does not know are dropped and counted; acknowledgements carry none.
func TestStrippedProperties(t *testing.T) {
	for name, change := range map[string]func(*packets.Properties){
		"payload format":   func(p *packets.Properties) { p.PayloadFormat, p.PayloadFormatFlag = 1, true },
		"content type":     func(p *packets.Properties) { p.ContentType = "text/plain" },
		"response topic":   func(p *packets.Properties) { p.ResponseTopic = "r" },
		"correlation data": func(p *packets.Properties) { p.CorrelationData = []byte("c") },
		"user property":    func(p *packets.Properties) { p.User = []packets.UserProperty{{Key: "k", Val: "v"}} },
	} {
		t.Run(name, func(t *testing.T) {
			r, cl := one(t)
			c, _ := r.connect(5, "dev", lastWill("w", "m", 0), func(pk *packets.Packet) { change(&pk.Connect.WillProperties) })
			stripped := func() uint64 {
				st, _ := r.b.DeviceStatus("dev")
				return st.Stripped
			}
			if n := stripped(); n != 1 || cl.asked().Will == nil {
				t.Errorf("%d stripped from the will", n)
			}
			c.publish("t", "m", 1, 1, func(pk *packets.Packet) { change(&pk.Properties) })
			if ack := c.acked(packets.Puback, 1); !cmp.Equal(ack.Properties, packets.Properties{}) {
				t.Errorf("PUBACK with %+v", ack.Properties)
			}
			c.publish("t", "m", 1, 2, func(pk *packets.Packet) { pk.Properties.MessageExpiryInterval = 9 })
			c.acked(packets.Puback, 2)
			if n := stripped(); n != 2 {
				t.Errorf("%d stripped", n)
			}
			cl.receive(2)
		})
	}
}

func TestTopicAlias(t *testing.T) {
	r, cl := one(t)
	c, ack := r.connect(5, "dev")
	if ack.Properties.TopicAliasMaximum != 0 {
		t.Error("topic aliases are offered")
	}
	c.publish("t", "m", 0, 0, func(pk *packets.Packet) {
		pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = 1, true
	})
	c.cut(packets.ErrTopicAliasInvalid)
	cl.receive(0)
}

func TestReasonStringsOnDisconnect(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		r, _ := one(t)
		c, _ := r.connect(5, "dev", func(pk *packets.Packet) { pk.Properties.RequestProblemInfoFlag = quiet })
		_, _ = r.connect(5, "dev")
		pk := c.cut(packets.ErrSessionTakenOver)
		if got := pk.Properties.ReasonString; (got == "") != quiet {
			t.Errorf("quiet %v: reason %q", quiet, got)
		}
	}
}
