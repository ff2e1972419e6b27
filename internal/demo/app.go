package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bridged/internal/cloudsim"
)

// app is the application in a cloud that talks to one device.
type app struct {
	*deviceSpec
	cloud *cloudsim.Cloud
	down  *book
}

// connection is the epoch of the device's cloud connection.
func (a *app) connection() int64 {
	s, ok := a.cloud.Session(a.name)
	if !ok {
		return 0
	}
	return s.Since.UnixNano()
}

// command sends a command at an interval until ctx ends. It begins after a while, once the device has subscribed.
func (a *app) command(ctx context.Context, every, after time.Duration) {
	if a.cloud.WaitUntil(ctx, a.subscribed) != nil || !pause(ctx, after) {
		return
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		a.send()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *app) subscribed() bool {
	s, ok := a.cloud.Session(a.name)
	_, subscribed := s.Subs[a.commandInCloud]
	return ok && subscribed
}

// send sends one command. The session is persistent: if the device is away the cloud keeps it.
func (a *app) send() {
	n, payload := a.down.send(time.Now(), a.connection(), func(n int) []byte {
		return fmt.Appendf(nil, `{"n":%d,%s}`, n, a.setting(n))
	})
	if err := a.cloud.Publish(a.name, a.commandInCloud, payload, 1); err != nil {
		a.down.unsend(n)
		if !errors.Is(err, cloudsim.ErrNoSession) && !errors.Is(err, cloudsim.ErrNotSubscribed) {
			a.down.report(fmt.Sprintf("the cloud did not take a command: %v", err))
		}
	}
}
