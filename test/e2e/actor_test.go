package e2e

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/testdevice"
)

// actor is somebody in a scene: a client id, one connection at a time, and a transcript of what came over it.
//
// The transcript has a part for each kind of packet whose order among others means nothing. There are no packet
// identifiers in it: answers are told with what they answer.
type actor struct {
	*testdevice.Device
	tb   testing.TB
	name string // and client id, unless told otherwise
	addr string

	messages  []string // PUBLISH
	releases  []string // PUBREL
	completes []string // PUBCOMP
	answers   []string // everything else

	lazy  bool                     // acknowledges nothing
	owed  []*packets.PublishPacket // what came since it is lazy, on the present connection
	sent  map[uint16]string        // what awaits an answer
	done  map[uint16]struct{}      // answered, and not waited for yet
	taken map[uint16]string        // what came with QoS 2, until PUBREL
	seen  map[string]int           // payloads that came and were not waited for

	departures int // that the scene has waited for
}

func newActor(tb testing.TB, name, addr string) *actor {
	return &actor{
		tb: tb, name: name, addr: addr,
		sent: make(map[uint16]string), taken: make(map[uint16]string), done: make(map[uint16]struct{}),
		seen: make(map[string]int),
	}
}

// connect connects by a new connection. Nothing happens to the one before.
func (a *actor) connect(o testdevice.Options) {
	a.tb.Helper()
	if o.ClientID == "" {
		o.ClientID = a.name
	}
	o.Username, o.Password = o.ClientID, secretMark
	a.Device = testdevice.Dial(a.tb, a.addr)
	a.owed = nil
	ack := a.Login(o)
	a.note(&a.answers, "CONNACK %d, session present %v", ack.ReturnCode, ack.SessionPresent)
}

// note adds to a part of the transcript.
func (a *actor) note(part *[]string, format string, args ...any) {
	*part = append(*part, a.name+" gets "+fmt.Sprintf(format, args...))
}

// transcript is everything that the actor saw.
func (a *actor) transcript() []string {
	return slices.Concat(a.messages, a.releases, a.completes, a.answers)
}

// show makes a payload fit for a transcript.
func show(payload []byte) string {
	if len(payload) > 100 {
		return fmt.Sprintf("%d bytes %x", len(payload), sha256.Sum256(payload))
	}
	return fmt.Sprintf("%q", strings.TrimPrefix(string(payload), payloadMark+" "))
}

// mark gives a payload the mark that is searched for in logs. An empty one stays empty.
func mark(text string) []byte {
	if text == "" {
		return nil
	}
	return payload(text)
}

// next takes the next packet, which must come, and answers it.
func (a *actor) next() packets.ControlPacket {
	a.tb.Helper()
	got := a.Next(patience)
	switch p := got.(type) {
	case nil:
		a.tb.Fatalf("%s got nothing within %s (connection: %v); so far:\n%s", a.name, patience, a.Err(),
			strings.Join(a.transcript(), "\n"))
	case *packets.PublishPacket:
		a.publication(p)
	case *packets.PubrelPacket:
		a.note(&a.releases, "PUBREL for %s", a.taken[p.MessageID])
		if !a.lazy {
			delete(a.taken, p.MessageID)
			a.Ack(packets.Pubcomp, p.MessageID)
		}
	case *packets.PubackPacket:
		a.answered(&a.answers, "PUBACK", p.MessageID, true)
	case *packets.PubrecPacket:
		a.answered(&a.answers, "PUBREC", p.MessageID, a.lazy)
		if !a.lazy {
			a.Ack(packets.Pubrel, p.MessageID)
		}
	case *packets.PubcompPacket:
		a.answered(&a.completes, "PUBCOMP", p.MessageID, true)
	case *packets.SubackPacket:
		a.answered(&a.answers, fmt.Sprintf("SUBACK %v", p.ReturnCodes), p.MessageID, true)
	case *packets.UnsubackPacket:
		a.answered(&a.answers, "UNSUBACK", p.MessageID, true)
	case *packets.PingrespPacket:
		a.answered(&a.answers, "PINGRESP", 0, true)
	default:
		a.note(&a.answers, "%T", p)
	}
	return got
}

// publication handles a PUBLISH.
func (a *actor) publication(p *packets.PublishPacket) {
	a.tb.Helper()
	flags := ""
	if p.Retain {
		flags += " retained"
	}
	if p.Dup {
		flags += " DUP"
	}
	topic := p.TopicName
	if len(topic) > 100 {
		topic = fmt.Sprintf("%d bytes %x", len(topic), sha256.Sum256([]byte(topic)))
	}
	a.note(&a.messages, "PUBLISH %s %s QoS %d%s", topic, show(p.Payload), p.Qos, flags)
	a.seen[string(p.Payload)]++
	switch {
	case p.Qos == 2:
		a.taken[p.MessageID] = show(p.Payload)
		fallthrough
	case p.Qos == 1:
		if a.lazy {
			a.owed = append(a.owed, p)
		} else {
			a.acknowledge(p)
		}
	}
}

// acknowledge sends PUBACK or PUBREC.
func (a *actor) acknowledge(p *packets.PublishPacket) {
	a.tb.Helper()
	if p.Qos == 1 {
		a.Ack(packets.Puback, p.MessageID)
	} else {
		a.Ack(packets.Pubrec, p.MessageID)
	}
}

// settle ends being lazy: it acknowledges what came.
func (a *actor) settle() {
	a.tb.Helper()
	a.lazy = false
	for _, p := range a.owed {
		a.acknowledge(p)
	}
	a.owed = nil
}

func (a *actor) answered(part *[]string, what string, id uint16, final bool) {
	if label, ok := a.sent[id]; ok {
		what += " for " + label
	} else {
		what += " for nothing that was asked"
	}
	a.note(part, "%s", what)
	if final {
		delete(a.sent, id)
		a.done[id] = struct{}{}
	}
}

// wait goes on until an answer has come.
func (a *actor) wait(id uint16) {
	a.tb.Helper()
	for {
		if _, ok := a.done[id]; ok {
			delete(a.done, id)
			return
		}
		a.next()
	}
}

// publish publishes, and waits until that is acknowledged.
func (a *actor) publish(topic, text string, qos byte) {
	a.tb.Helper()
	a.put(topic, text, qos, false)
}

// retain publishes with the retain flag, and waits until that is acknowledged.
func (a *actor) retain(topic, text string, qos byte) {
	a.tb.Helper()
	a.put(topic, text, qos, true)
}

func (a *actor) put(topic, text string, qos byte, retain bool) {
	a.tb.Helper()
	p := a.NewPublish(topic, mark(text), qos)
	p.Retain = retain
	a.ask(p, p.MessageID, show(p.Payload))
	if qos > 0 {
		a.wait(p.MessageID)
	}
}

// ask sends a packet that is answered under an identifier; label is how the transcript calls it.
func (a *actor) ask(p packets.ControlPacket, id uint16, label string) {
	a.tb.Helper()
	a.sent[id] = label
	a.Send(p)
}

// filter is one of a SUBSCRIBE.
type filter struct {
	name string
	qos  byte
}

// subscribe subscribes, and waits for the answer.
func (a *actor) subscribe(filters ...filter) {
	a.tb.Helper()
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID = a.ID()
	for _, f := range filters {
		p.Topics, p.Qoss = append(p.Topics, f.name), append(p.Qoss, f.qos)
	}
	a.ask(p, p.MessageID, fmt.Sprintf("%.10q", p.Topics))
	a.wait(p.MessageID)
}

// unsubscribe unsubscribes, and waits for the answer.
func (a *actor) unsubscribe(filters ...string) {
	a.tb.Helper()
	p := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
	p.MessageID, p.Topics = a.ID(), filters
	a.ask(p, p.MessageID, fmt.Sprintf("%q", p.Topics))
	a.wait(p.MessageID)
}

// ping sends PINGREQ, and waits for the answer.
func (a *actor) ping() {
	a.tb.Helper()
	a.ask(packets.NewControlPacket(packets.Pingreq), 0, "PINGREQ")
	a.wait(0)
}

// until goes on until a message with this payload has come, and what came with QoS 2 is done with.
func (a *actor) until(text string) {
	a.tb.Helper()
	want := string(mark(text))
	for a.seen[want] == 0 || len(a.taken) > 0 && !a.lazy {
		a.next()
	}
	a.seen[want]--
}

// closed goes on until the server has closed the connection because of what it was sent last, if it does.
func (a *actor) closed(because string) {
	a.tb.Helper()
	timeout := time.After(patience)
	for {
		p := a.Next(patience)
		select {
		case <-timeout:
			a.note(&a.answers, "no end after %s", because)
			return
		default:
		}
		if p == nil {
			a.note(&a.answers, "a closed connection after %s", because)
			return
		}
		a.note(&a.answers, "%T after %s", p, because)
	}
}
