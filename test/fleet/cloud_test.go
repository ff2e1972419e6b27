package fleet

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bridged/internal/cloudsim"
)

// cloud is a simulated cloud that notes when it was dialled, also while it is away: then somebody else has its address,
// a load balancer that has nothing behind it.
type cloud struct {
	*cloudsim.Cloud
	tb       testing.TB
	address  string
	provider string
	names    []string

	mu    sync.Mutex // protects the following field
	dials []time.Time

	balancer net.Listener // nil while the cloud is there
	closing  sync.WaitGroup
}

const product = "PRODUCT123"

func newCloud(tb testing.TB, kind cloudsim.Kind, devices int) *cloud {
	tb.Helper()
	c := &cloud{tb: tb, provider: string(kind), address: freeAddress(tb)}
	o := cloudsim.Options{
		Kind: kind, Addr: c.address, NoWSS: true, Product: product,
		CheckUpgrade: func(*http.Request) int { c.dialled(); return 0 },
	}
	for i := range devices {
		name := fmt.Sprintf("%s-%04d", kind, i)
		c.names = append(c.names, name)
		o.Devices = append(o.Devices, cloudsim.Device{Name: name, Secret: secret(name)})
	}
	sim, err := cloudsim.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	c.Cloud = sim
	tb.Cleanup(func() {
		c.unbalance()
		c.Close()
	})
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

func (c *cloud) dialled() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dials = append(c.dials, time.Now())
}

// dialledSince is how often it was dialled.
func (c *cloud) dialledSince(start time.Time) (n int) {
	for _, at := range c.times() {
		if at.After(start) {
			n++
		}
	}
	return n
}

func (c *cloud) times() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dials[:len(c.dials):len(c.dials)]
}

// away takes the cloud away, and puts a load balancer in its place.
func (c *cloud) away() {
	c.tb.Helper()
	c.Down()
	l, err := net.Listen("tcp", c.address)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.balancer = l
	c.closing.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					c.tb.Errorf("accept: %v", err)
				}
				return
			}
			c.dialled()
			_ = conn.Close() // there is nothing to say
		}
	})
}

func (c *cloud) unbalance() {
	if c.balancer != nil {
		_ = c.balancer.Close() // it is ours and open
		c.closing.Wait()
		c.balancer = nil
	}
}

// back brings it back.
func (c *cloud) back() {
	c.tb.Helper()
	c.unbalance()
	if err := c.Up(); err != nil {
		c.tb.Fatal(err)
	}
}

// online is how many of its steady devices are.
func (c *cloud) online() (n int) {
	for _, name := range c.names[:steady] {
		if c.Online(name) {
			n++
		}
	}
	return n
}

// vex cuts the connections of the other devices as soon as there are any, until ctx ends. So they try to connect more
// often than they may.
func (c *cloud) vex(ctx context.Context) {
	for err := error(nil); err == nil; {
		for _, name := range c.names[steady:] {
			c.Drop(name, cloudsim.CutReset)
		}
		err = c.WaitUntil(ctx, func() bool {
			return slices.ContainsFunc(c.names[steady:], c.Online)
		})
	}
}

// leastConnected is how often the one of these that connected least has connected.
func (c *cloud) leastConnected() int {
	least := math.MaxInt
	for _, name := range c.names[steady:] {
		least = min(least, len(c.Connections(name)))
	}
	return least
}

// yaml is the cloud, and its devices.
func (c *cloud) yaml() (section, devices string) {
	u, err := url.Parse(c.WSURL())
	if err != nil {
		c.tb.Fatal(err)
	}
	key := map[cloudsim.Kind]string{cloudsim.Aliyun: "product_key", cloudsim.Tencent: "product_id"}[c.Kind()]
	section = fmt.Sprintf("  %s: {provider: %s, url: %q, %s: %s}\n", c.provider, c.provider, u, key, product)
	var b strings.Builder
	for _, name := range c.names {
		fmt.Fprintf(&b, "  - {name: %s, cloud: %s, device_secret: %q}\n", name, c.provider, secret(name))
	}
	return section, b.String()
}
