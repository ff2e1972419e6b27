package soak

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bridged/internal/cloudsim"
)

// cloud is a simulated cloud, what has arrived there, and what its application has sent.
type cloud struct {
	*cloudsim.Cloud
	tb      testing.TB
	name    string
	url     string
	ca      string // file, for wss
	proxy   *proxy // nil for none
	devices []string

	mu   sync.Mutex // protects the following fields
	got  map[string]*order
	sent map[string]int
	held [][2]time.Time // from when to when it held something back
}

const (
	product = "PRODUCT123"
	// The vendors' connect limits are per minute and per 5 s. With these a short run has time for something.
	aliyunPer, tencentPer = 12 * time.Second, time.Second
)

// newCloud makes a cloud, and names for so many devices of it. Its name tells its kind.
func newCloud(tb testing.TB, kind cloudsim.Kind, secure bool, proxy *proxy, devices int) *cloud {
	tb.Helper()
	c := &cloud{tb: tb, name: string(kind), proxy: proxy, got: map[string]*order{}, sent: map[string]int{}}
	rules := cloudsim.RulesFor(kind)
	switch kind {
	case cloudsim.Aliyun:
		rules.Connects.Per = aliyunPer
	case cloudsim.Tencent:
		rules.Connects.Per = tencentPer
	}
	o := cloudsim.Options{
		Kind: kind, Addr: freeAddress(tb), TLSAddr: freeAddress(tb), NoWS: secure, NoWSS: !secure, Rules: &rules,
		KeepReceived: -1, OnMessage: c.take,
	}
	if kind != cloudsim.Generic {
		o.Product = product
	}
	for i := range devices {
		name := fmt.Sprintf("%s-%d", kind, i)
		c.devices = append(c.devices, name)
		c.got[name] = &order{}
		if kind != cloudsim.Generic {
			o.Devices = append(o.Devices, cloudsim.Device{Name: name, Secret: secret(name)})
		}
	}
	sim, err := cloudsim.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	c.Cloud = sim
	tb.Cleanup(sim.Close)
	c.url = sim.WSURL()
	if secure {
		c.url, c.ca = sim.WSSURL(), filepath.Join(tb.TempDir(), "ca.pem")
		if err := sim.CA().WriteFile(c.ca); err != nil {
			tb.Fatal(err)
		}
	}
	return c
}

// secret is a device's. Tencent's are base64.
func secret(name string) string {
	return base64.StdEncoding.EncodeToString([]byte("secret of " + name))
}

// freeAddress is one with a port that no outgoing connection takes while nobody listens.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	const low, high = 10000, 32000
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			tb.Fatal(err)
		}
		return l.Addr().String()
	}
	tb.Fatal("no free port")
	return ""
}

// yaml is the cloud, and its devices.
func (c *cloud) yaml() (section, devices string) {
	keys := []string{"provider: " + c.name, fmt.Sprintf("url: %q", c.url), "keepalive: 30s"}
	switch c.Kind() {
	case cloudsim.Aliyun:
		keys = append(keys, "product_key: "+product, fmt.Sprintf("limits: {connects: 5/%s}", aliyunPer))
	case cloudsim.Tencent:
		keys = append(keys, "product_id: "+product, fmt.Sprintf("limits: {connects: 1/%s}", tencentPer))
	}
	if c.ca != "" {
		keys = append(keys, fmt.Sprintf("tls: {ca_file: %q}", c.ca))
	}
	if c.proxy != nil {
		keys = append(keys, "proxy: "+c.proxy.url())
	}
	section = fmt.Sprintf("  %s: {%s}\n", c.name, strings.Join(keys, ", "))
	for _, name := range c.devices {
		more := ""
		if c.Kind() != cloudsim.Generic {
			more = fmt.Sprintf(", device_secret: %q", secret(name))
		}
		devices += fmt.Sprintf("  - {name: %s, cloud: %s%s}\n", name, c.name, more)
	}
	return section, devices
}

func (c *cloud) take(m cloudsim.Received) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.got[m.Device]
	if o == nil || m.Topic != "up/"+m.Device {
		c.got[c.devices[0]].complain("%s published to %s", m.Device, m.Topic)
		return
	}
	o.take(m.Device, m.Payload)
}

// counts are how many messages of a device have arrived, and how many were sent to it.
func (c *cloud) counts(device string) (got, sent int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got[device].next, c.sent[device]
}

// publish sends messages to the devices until ctx ends. What has no room in the cloud's queue was not sent.
func (c *cloud) publish(ctx context.Context, dice dice) error {
	for wait(ctx, dice.between(0, 200*time.Millisecond)) {
		name := c.devices[dice.IntN(len(c.devices))]
		for range 1 + dice.IntN(3) {
			c.mu.Lock()
			n := c.sent[name]
			c.sent[name]++ // the device may have it at once
			c.mu.Unlock()
			err := c.Publish(name, "down/"+name, text(name, n), 1)
			if err == nil {
				continue
			}
			c.mu.Lock()
			c.sent[name]--
			c.mu.Unlock()
			if !errors.Is(err, cloudsim.ErrNoSession) && !errors.Is(err, cloudsim.ErrNotSubscribed) &&
				!errors.Is(err, cloudsim.ErrQueueFull) {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// hold notes that the cloud holds back CONNACKs, or does not read.
func (c *cloud) hold(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); on {
		c.held = append(c.held, [2]time.Time{now, now.Add(time.Hour)})
	} else {
		c.held[len(c.held)-1][1] = now
	}
}

// blameless says whether a violation may be the cloud's own doing. A login that it holds back it counts when it goes
// on, even if that was given up long ago. And what was sent at a decent rate while it did not read, it reads all at
// once.
func (c *cloud) blameless(v cloudsim.Violation) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	after, timed := map[cloudsim.Rule]time.Duration{
		cloudsim.RuleConnectRate: aliyunPer, cloudsim.RuleUplinkRate: time.Second,
	}[v.Rule]
	return timed && slices.ContainsFunc(c.held, func(h [2]time.Time) bool {
		return v.Time.After(h[0]) && v.Time.Before(h[1].Add(after))
	})
}
