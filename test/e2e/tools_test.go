package e2e

import (
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"testing"

	"bridged/internal/testdevice"
)

// These are mosquitto_pub and mosquitto_sub: a device when addr is the bridge's, and who looks on when it is the
// cloud's.

// login is what a client presents.
type login struct {
	addr     string
	id       string
	user     string
	password string
	version  string // of MQTT, as the tools write it: 31, 311 or 5; empty for 311
}

func (l login) args() []string {
	host, port, err := net.SplitHostPort(l.addr)
	if err != nil {
		panic(err)
	}
	args := []string{"-h", host, "-p", port, "-d"}
	if l.id != "" {
		args = append(args, "-i", l.id)
	}
	if l.user != "" {
		args = append(args, "-u", l.user, "-P", l.password)
	}
	if l.version != "" {
		args = append(args, "-V", l.version)
	}
	return args
}

// pub publishes a payload and waits until that has been acknowledged.
func pub(tb testing.TB, l login, topic string, qos byte, payload []byte, more ...string) {
	tb.Helper()
	args := append(l.args(), "-t", topic, "-q", fmt.Sprint(qos))
	if len(payload) == 0 {
		args = append(args, "-n")
	} else {
		args = append(args, "-s")
	}
	p := start(tb, command{name: "mosquitto_pub", args: append(args, more...), stdin: payload})
	if code := p.wait(); code != 0 {
		tb.Fatalf("mosquitto_pub: status %d", code)
	}
}

// subscriber is a mosquitto_sub.
type subscriber struct {
	*process
	tb   testing.TB
	next int // the first message that was not looked at
}

// message is one that a subscriber received.
type message struct {
	topic   string
	payload string
	qos     byte
	retain  bool
}

func (m message) String() string {
	payload := m.payload
	if len(payload) > 64 {
		payload = fmt.Sprintf("%s... (%d bytes)", payload[:64], len(payload))
	}
	return fmt.Sprintf("{%s %q QoS %d retain %v}", m.topic, payload, m.qos, m.retain)
}

const messagePrefix = "MESSAGE "

// sub subscribes to a filter and waits until that was answered.
func sub(tb testing.TB, l login, filter string, qos byte, more ...string) *subscriber {
	tb.Helper()
	args := append(l.args(), "-t", filter, "-q", fmt.Sprint(qos), "-F", messagePrefix+"%q %r %x %t")
	args = append([]string{"-oL", "mosquitto_sub"}, append(args, more...)...) // it would write when its buffer is full
	s := &subscriber{tb: tb, process: start(tb, command{name: "stdbuf", args: args})}
	s.name = "mosquitto_sub"
	s.expect(1, "Subscribed (mid: 1)")
	return s
}

// receive waits for one more message.
func (s *subscriber) receive() message {
	s.tb.Helper()
	s.next++
	text, ok := s.find(s.next, func(l string) bool { return strings.HasPrefix(l, messagePrefix) })
	if !ok {
		s.tb.Fatalf("%s ended before message %d", s, s.next)
	}
	return parseMessage(s.tb, strings.TrimPrefix(text, messagePrefix))
}

func parseMessage(tb testing.TB, text string) message {
	tb.Helper()
	f := strings.SplitN(text, " ", 4)
	if len(f) != 4 || len(f[0]) != 1 || len(f[1]) != 1 {
		tb.Fatalf("not a message: %q", text)
	}
	payload, err := hex.DecodeString(f[2])
	if err != nil {
		tb.Fatalf("not a message: %v", err)
	}
	return message{topic: f[3], payload: string(payload), qos: f[0][0] - '0', retain: f[1] == "1"}
}

// options are the same for a raw connection.
func (l login) options() testdevice.Options {
	return testdevice.Options{ClientID: l.id, Username: l.user, Password: l.password}
}
