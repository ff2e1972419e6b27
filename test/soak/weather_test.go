package soak

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"bridged/internal/cloudsim"
)

// weather has things go wrong at a cloud until ctx ends. Then it is well.
//
// A proxy makes an orderly end of whatever happens to a connection. Many of these, one soon after the other, are what
// two clients with the same identity look like, and then bridged pauses for minutes. So behind a proxy less happens.
func (c *cloud) weather(ctx context.Context, dice dice, count func(fault string)) error {
	pause := 2 * time.Second
	if c.proxy != nil {
		pause *= 5
	}
	var err error
	for err == nil && wait(ctx, dice.between(0, pause)) {
		f := faults[dice.IntN(len(faults))]
		if f.proxy && c.proxy == nil {
			continue
		}
		count(f.name)
		if err = f.happen(ctx, c, dice); err != nil {
			err = fmt.Errorf("%s: %w", f.name, err)
		}
	}
	c.Heal()
	err = errors.Join(err, c.Up())
	if c.proxy != nil {
		err = errors.Join(err, c.proxy.start())
	}
	return err
}

// fault is something that happens to a cloud, and is over when happen returns.
type fault struct {
	name   string
	proxy  bool // it happens to its proxy
	happen func(ctx context.Context, c *cloud, dice dice) error
}

// during has something be so for a while.
func during(ctx context.Context, dice dice, set func(on bool)) {
	set(true)
	wait(ctx, dice.between(200*time.Millisecond, 3*time.Second))
	set(false)
}

// some is a device of the cloud, or all of them.
func (c *cloud) some(dice dice) string {
	if dice.oneIn(10) {
		return cloudsim.All
	}
	return c.devices[dice.IntN(len(c.devices))]
}

var faults = []fault{
	{name: "outage", happen: func(ctx context.Context, c *cloud, dice dice) error {
		c.Down()
		wait(ctx, dice.between(200*time.Millisecond, 4*time.Second))
		return c.Up()
	}},
	{name: "login refused", happen: func(ctx context.Context, c *cloud, dice dice) error {
		name := c.devices[dice.IntN(len(c.devices))]
		during(ctx, dice, func(on bool) {
			code := byte(0)
			if on {
				code = []byte{3, 5}[dice.IntN(2)]
			}
			if c.RefuseLogins(name, code); on {
				c.Drop(name, cloudsim.CutReset)
			}
		})
		return nil
	}},
	{name: "kick", happen: func(_ context.Context, c *cloud, dice dice) error {
		c.Drop(c.devices[dice.IntN(len(c.devices))], []cloudsim.Cut{cloudsim.CutClose, cloudsim.CutCloseFrame}[dice.IntN(2)])
		return nil
	}},
	{name: "reset", happen: func(_ context.Context, c *cloud, dice dice) error {
		c.Drop(c.some(dice), cloudsim.CutReset)
		return nil
	}},
	{name: "cut in a frame", happen: func(_ context.Context, c *cloud, dice dice) error {
		c.CutInFrame(c.devices[dice.IntN(len(c.devices))])
		return nil
	}},
	{name: "reset later", happen: func(_ context.Context, c *cloud, dice dice) error {
		c.DropAfter(c.some(dice), 1+dice.IntN(8), 1, cloudsim.CutReset)
		return nil
	}},
	{name: "rubbish", happen: func(_ context.Context, c *cloud, dice dice) error {
		c.SendBytes(c.devices[dice.IntN(len(c.devices))], []byte("\xff\xff\xff\xff\xff rubbish"), dice.oneIn(2))
		return nil
	}},
	{name: "stalled reads", happen: func(ctx context.Context, c *cloud, dice dice) error {
		device := c.some(dice)
		during(ctx, dice, func(on bool) {
			c.hold(on)
			c.StallReads(device, on)
		})
		return nil
	}},
	{name: "stalled CONNACK", happen: func(ctx context.Context, c *cloud, dice dice) error {
		device := c.some(dice)
		during(ctx, dice, func(on bool) {
			c.hold(on)
			c.StallConnack(device, on)
			if on {
				c.Drop(device, cloudsim.CutReset)
			}
		})
		return nil
	}},
	{name: "stalled upgrade", happen: func(ctx context.Context, c *cloud, dice dice) error {
		during(ctx, dice, func(on bool) {
			c.StallUpgrade(on)
			if on {
				c.Drop(c.some(dice), cloudsim.CutReset)
			}
		})
		return nil
	}},
	{name: "stalled TLS", happen: func(ctx context.Context, c *cloud, dice dice) error {
		during(ctx, dice, func(on bool) {
			c.StallTLS(on)
			if on {
				c.Drop(c.some(dice), cloudsim.CutReset)
			}
		})
		return nil
	}},
	{name: "HTTP error", happen: func(_ context.Context, c *cloud, dice dice) error {
		status := []int{
			http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusForbidden,
			http.StatusNotFound,
		}[dice.IntN(5)]
		err := c.AnswerUpgrade(status, 1+dice.IntN(2))
		c.Drop(c.devices[dice.IntN(len(c.devices))], cloudsim.CutReset)
		return err
	}},
	{name: "slow", happen: func(ctx context.Context, c *cloud, dice dice) error {
		device, by := c.some(dice), dice.between(50*time.Millisecond, 2*time.Second)
		during(ctx, dice, func(on bool) {
			if !on {
				by = 0
			}
			c.Delay(device, by)
		})
		return nil
	}},
	{name: "late acknowledgements", happen: func(ctx context.Context, c *cloud, dice dice) error {
		device := c.some(dice)
		during(ctx, dice, func(on bool) {
			if on {
				c.WithholdAcks(device)
				return
			}
			if dice.oneIn(2) {
				c.Drop(device, cloudsim.CutReset)
			}
			c.ReleaseAcks(device)
		})
		return nil
	}},
	{name: "lost acknowledgements", happen: func(_ context.Context, c *cloud, dice dice) error {
		c.LoseAcks(c.some(dice), 1+dice.IntN(8))
		return nil
	}},
	{name: "dead proxy", proxy: true, happen: func(ctx context.Context, c *cloud, dice dice) error {
		c.proxy.kill()
		wait(ctx, dice.between(100*time.Millisecond, 3*time.Second))
		return c.proxy.start()
	}},
}
