package bridge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"bridged/internal/netconn"
	"bridged/internal/pulse"
)

// Summary tells how all devices are together.
type Summary struct {
	Devices    int
	Online     int   // devices with a session at their cloud
	NeedAction int   // devices that are offline until a person mends what is wrong
	Stored     int   // messages on disk
	Fault      error // of the disk, nil if there is none
}

// Summary tells how all devices are together. It takes little time, also with many of them.
func (b *Bridge) Summary() Summary {
	var s Summary
	for _, d := range b.all() {
		s.Devices++
		if w := d.worker.Summary(); w.State.Connected() {
			s.Online++
		} else if f := w.Failing(); f != nil && f.Info().Alarm {
			s.NeedAction++
		}
	}
	up, down := b.stored()
	s.Stored = up + down
	if f := b.spool.Status().Fault; f != nil {
		s.Fault = f.Err
	}
	return s
}

// String is one line for people.
func (s Summary) String() string {
	line := fmt.Sprintf("%d of %s online", s.Online, count(s.Devices, "device"))
	if s.NeedAction == 1 {
		line += ", 1 needs action"
	} else if s.NeedAction > 1 {
		line += fmt.Sprintf(", %d need action", s.NeedAction)
	}
	line += ", " + count(s.Stored, "message") + " stored"
	if s.Fault != nil {
		line += "; the disk: " + strings.Join(strings.Fields(s.Fault.Error()), " ")
	}
	return line
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// StopsWithin is how long Run takes at most, after its context has ended and on a disk that works.
func (b *Bridge) StopsWithin() time.Duration {
	return b.config().ShutdownTimeout + flushTimeout + storeTimeout
}

// storeTimeout is what the disk may take for the rest, which nothing bounds.
const storeTimeout = time.Minute

// Started is closed when Run has begun to relay.
func (b *Bridge) Started() <-chan struct{} { return b.started }

// Stuck names what has made no progress for longer than limit and cannot be waiting for anything but the process
// itself; see package pulse. In a bridge that is well it is nothing, whatever the disk and the network do.
func (b *Bridge) Stuck(limit time.Duration) (names []string) {
	now := time.Now()
	keeper := []*pulse.Pulse{b.keeper.Pulse()}
	for _, p := range slices.Concat(b.spool.Pulses(), keeper, netconn.Pulses(), b.broker.Pulses()) {
		if p.Stuck(now, limit) {
			names = append(names, p.Name)
		}
	}
	return names
}
