package cloudsim

import (
	"context"
	"fmt"
)

// WaitUntil blocks until cond is true, and tries it after each event of the cloud: a message, an acknowledgement, a
// login, a subscription, an end of a connection. cond may call any method that does not wait. The error is the
// context's, or tells that the cloud was closed.
func (c *Cloud) WaitUntil(ctx context.Context, cond func() bool) error {
	for {
		c.mu.Lock()
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		event := c.changed
		c.mu.Unlock()
		if cond() {
			return nil
		}
		select {
		case <-event:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			return errClosed
		}
	}
}

// WaitReceived waits until n messages have arrived since the start or the last ClearRecords, and returns what is kept.
func (c *Cloud) WaitReceived(ctx context.Context, n int) ([]Received, error) {
	count := func() int64 { return c.rec.totals.Received - c.rec.cleared.Received }
	if err := c.waitCount(ctx, n, count); err != nil {
		return c.Received(), fmt.Errorf("waiting for %d messages from devices: %w", n, err)
	}
	return c.Received(), nil
}

// WaitAcked waits until devices have acknowledged n messages since the start or the last ClearRecords, and returns
// what is kept.
func (c *Cloud) WaitAcked(ctx context.Context, n int) ([]Ack, error) {
	count := func() int64 { return c.rec.totals.Acked - c.rec.cleared.Acked }
	if err := c.waitCount(ctx, n, count); err != nil {
		return c.Acked(), fmt.Errorf("waiting for %d acknowledgements by devices: %w", n, err)
	}
	return c.Acked(), nil
}

// waitCount calls count with c.mu held.
func (c *Cloud) waitCount(ctx context.Context, n int, count func() int64) error {
	return c.WaitUntil(ctx, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return count() >= int64(n)
	})
}

// WaitOnline waits until a device is connected.
func (c *Cloud) WaitOnline(ctx context.Context, device string) error {
	if err := c.WaitUntil(ctx, func() bool { return c.Online(device) }); err != nil {
		return fmt.Errorf("waiting for %q to come online: %w", device, err)
	}
	return nil
}

// WaitOffline waits until a device is not connected.
func (c *Cloud) WaitOffline(ctx context.Context, device string) error {
	if err := c.WaitUntil(ctx, func() bool { return !c.Online(device) }); err != nil {
		return fmt.Errorf("waiting for %q to go offline: %w", device, err)
	}
	return nil
}

// WaitSubscribed waits until a device's session has a filter.
func (c *Cloud) WaitSubscribed(ctx context.Context, device, filter string) error {
	if err := c.WaitUntil(ctx, func() bool { return c.subscribed(device, filter) }); err != nil {
		return fmt.Errorf("waiting for %q to subscribe to %q: %w", device, filter, err)
	}
	return nil
}

// WaitUnsubscribed waits until a device's session does not have a filter.
func (c *Cloud) WaitUnsubscribed(ctx context.Context, device, filter string) error {
	if err := c.WaitUntil(ctx, func() bool { return !c.subscribed(device, filter) }); err != nil {
		return fmt.Errorf("waiting for %q to unsubscribe from %q: %w", device, filter, err)
	}
	return nil
}

func (c *Cloud) subscribed(device, filter string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.identities[device]
	if id == nil || id.session == nil {
		return false
	}
	_, ok := id.session.subs[filter]
	return ok
}

// wakeLocked tells those who wait that something happened. The caller holds c.mu.
func (c *Cloud) wakeLocked() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}
