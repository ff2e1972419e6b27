package broker

import (
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// pausedBeyondKeepalive has a device wait for room, in vain, for longer than its keepalive.
func pausedBeyondKeepalive(t *testing.T) (*rig, *cloud, *client) {
	t.Helper()
	r, cl := filled(t, 1)
	c, _ := r.connect(4, "dev", keepalive(1))
	c.publishAll(0, maxParked+2)
	until(t, "the parking is full", func() bool { return r.parked("dev") == maxParked })
	over := time.Now().Add(1900 * time.Millisecond)
	until(t, "the keepalive has passed", func() bool { return time.Now().After(over) })
	return r, cl, c
}

// A device that has waited for room beyond its keepalive does not keep its next connection waiting.
func TestTakeOverWhilePausedBeyondKeepalive(t *testing.T) {
	r, _, c := pausedBeyondKeepalive(t)
	r.connect(4, "dev")
	c.closed()
}

// Nor does it keep the broker from stopping.
func TestStopWhilePausedBeyondKeepalive(t *testing.T) {
	r, cl, c := pausedBeyondKeepalive(t)
	r.stop()
	c.closed()
	cl.expect("connected", "disconnected true")
}

// When there is room it goes on: it was not read, and so not silent.
func TestGoesOnAfterPauseBeyondKeepalive(t *testing.T) {
	_, cl, c := pausedBeyondKeepalive(t)
	cl.attach()
	c.ackedAll(maxParked + 2)
	cl.numbered(maxParked + 2)
	c.quiet()
	cl.expect("connected")
	pk, err := c.receive(5 * time.Second) // but its silence counts again
	if err == nil {
		t.Errorf("got %s", packets.PacketNames[pk.FixedHeader.Type])
	}
	cl.expect("connected", "disconnected false")
}

// A device whose connection is reset while it waits for room has left at once. What it sent last comes again.
func TestResetWhilePaused(t *testing.T) {
	r, cl := filled(t, 1)
	c, _ := r.connect(4, "dev", persistent)
	c.publishAll(0, maxParked+2)
	until(t, "the parking is full", func() bool { return r.parked("dev") == maxParked })
	c.reset()
	until(t, "the device is away", func() bool { return !r.present("dev") })
	cl.expect("connected", "disconnected false")

	c, _ = r.connect(4, "dev", persistent)
	c.publishAll(0, maxParked+2, dup)
	cl.attach()
	c.ackedAll(maxParked + 2)
	cl.numbered(maxParked + 2)
}
