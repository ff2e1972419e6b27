package netns

import (
	"path/filepath"
	"testing"
	"time"

	"bridged/internal/cloudsim"
)

// cloud is a simulated cloud in a namespace. It lives in the test's process; what is in the namespace are its sockets.
type cloud struct {
	*cloudsim.Cloud
	tb testing.TB
	ca string // file with its authority's certificate
}

// newCloud makes a cloud like any MQTT broker, which listens at an end of a link, and in both address families if the
// address is empty.
func newCloud(tb testing.TB, s *space, address string) *cloud {
	tb.Helper()
	c := &cloud{tb: tb, ca: filepath.Join(tb.TempDir(), "ca.pem")}
	s.do(func() {
		sim, err := cloudsim.New(cloudsim.Options{
			Kind: cloudsim.Generic, Addr: address + ":80", TLSAddr: address + ":443", Hosts: []string{address, cloudName},
		})
		if err != nil {
			tb.Fatal(err)
		}
		c.Cloud = sim
	})
	tb.Cleanup(c.Close)
	if err := c.CA().WriteFile(c.ca); err != nil {
		tb.Fatal(err)
	}
	return c
}

// subscribed waits until a device's session has the subscription that a player makes.
func (c *cloud) subscribed(devices ...string) {
	c.tb.Helper()
	for _, name := range devices {
		has := func() bool {
			s, _ := c.Session(name)
			return len(s.Subs) > 0
		}
		until(c.tb, name+" has subscribed", has, nil)
	}
}

// send publishes numbered messages to a device.
func (c *cloud) send(device string, from, to int) {
	c.tb.Helper()
	for i := from; i < to; i++ {
		if err := c.Publish(device, "down/"+device, text(device, i), 1); err != nil {
			c.tb.Fatal(err)
		}
	}
}

// arrived waits until so many numbered messages of a device have arrived, which must be in order.
func (c *cloud) arrived(device string, n int) {
	c.tb.Helper()
	var got order
	seen := 0
	all := func() bool {
		messages := c.ReceivedFrom(device)
		for _, m := range messages[seen:] {
			if !m.Will {
				got.take(c.tb, device, m.Payload)
			}
		}
		seen = len(messages)
		return got.next >= n
	}
	until(c.tb, device+"'s messages have arrived", all, got.String)
	got.check(c.tb, device+" to the cloud", n)
}

// behaved checks that bridged has kept to the standard.
func (c *cloud) behaved() {
	c.tb.Helper()
	for _, v := range c.Violations() {
		c.tb.Errorf("%s did what a client must not: %s: %s", v.Device, v.Rule, v.Detail)
	}
}

// willOf waits for a device's will, and returns when it came.
func (c *cloud) willOf(device, topic string) time.Time {
	c.tb.Helper()
	var at time.Time
	came := func() bool {
		for _, m := range c.ReceivedFrom(device) {
			if m.Topic == topic {
				at = m.Time
				return true
			}
		}
		return false
	}
	until(c.tb, device+"'s will has come", came, nil)
	return at
}
