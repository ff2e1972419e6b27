package main

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// testcase is a load. Messages have QoS 1.
type testcase struct {
	name    string
	about   string
	scheme  string // ws or wss
	devices int
	payload int     // bytes
	rate    float64 // messages a second of all devices together, or
	window  int     // messages that each device has unacknowledged at any time
	down    bool    // the cloud sends
	gather  bool    // both ends write what they have at once, in one piece
	// idle is for how long nothing is sent but pings.
	idle      time.Duration
	pingEvery time.Duration // of a device
	keepalive time.Duration
	mosquitto bool // it makes sense for a bridge with one session
	main      bool // run unless others are asked for
}

// allCases lists each case, over WebSocket and over TLS.
func allCases() (all []*testcase) {
	const payload = 200
	base := []testcase{
		{name: "50", about: "100 devices, 50 messages/s each", devices: 100, rate: 5000, mosquitto: true, main: true},
		{name: "100", about: "100 devices, 100 messages/s each", devices: 100, rate: 10000, mosquitto: true, main: true},
		{name: "full", about: "100 devices, as fast as possible with 16 messages in flight each", devices: 100, window: 16,
			mosquitto: true, main: true},
		{name: "one", about: "one device, as fast as possible with 100 messages in flight", devices: 1, window: 100,
			mosquitto: true},
		{name: "bulk", about: "as full, but devices and the cloud write all that they have at once in one piece",
			devices: 100, window: 16, gather: true, mosquitto: true},
		{name: "down", about: "to 100 devices, 50 messages/s each", devices: 100, rate: 5000, down: true, mosquitto: true},
		// The keepalive is such that the pings of all come round within the time that is measured. bridged pings the
		// cloud as often as the devices ping it.
		{name: "idle", about: "2,000 devices connect at once, and do nothing but ping", devices: 2000,
			idle: 12 * time.Second, pingEvery: 12 * time.Second, keepalive: 20 * time.Second, main: true},
		{name: "idle4500", about: "the same with 4,500", devices: 4500,
			idle: 12 * time.Second, pingEvery: 12 * time.Second, keepalive: 20 * time.Second},
	}
	for _, n := range []int{10, 100, 1000, 4500} {
		base = append(base, testcase{
			name: fmt.Sprintf("grow%d", n), about: fmt.Sprintf("%d devices, 2,000 messages/s in all", n),
			devices: n, rate: 2000,
		})
	}
	for _, scheme := range []string{"wss", "ws"} {
		for _, c := range base {
			c.name += "/" + scheme
			c.scheme = scheme
			c.payload = payload
			if c.keepalive == 0 {
				c.keepalive = 10 * time.Minute // no ping disturbs
			}
			c.main = c.main && scheme == "wss"
			all = append(all, &c)
		}
	}
	return all
}

// choose returns the cases that patterns name, separated by commas: full/wss, full, grow*, all. None means the main
// ones.
func choose(patterns string) (chosen []*testcase, err error) {
	named := strings.FieldsFunc(patterns, func(r rune) bool { return r == ',' || r == ' ' })
	for _, c := range allCases() {
		ok := len(named) == 0 && c.main
		short, _, _ := strings.Cut(c.name, "/")
		for _, p := range named {
			for _, name := range []string{c.name, short} {
				matched, err := path.Match(p, name)
				if err != nil {
					return nil, fmt.Errorf("case %q: %w", p, err)
				}
				ok = ok || matched || p == "all"
			}
		}
		if ok {
			chosen = append(chosen, c)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no case is called %q; the cases are %s", patterns, caseNames())
	}
	return chosen, nil
}

func caseNames() string {
	var names []string
	for _, c := range allCases() {
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}
