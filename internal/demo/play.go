package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"bridged/internal/cloudsim"
)

// play runs everything: the bridge until the last messages have arrived, the sending of messages until ctx ends or the
// time is over.
func (s *stage) play(ctx context.Context) error {
	running, stopBridge := context.WithCancel(context.Background())
	defer stopBridge()
	bridged := make(chan error, 1)
	go func() { bridged <- s.bridge.Run(running) }()

	live, leave := context.WithCancel(context.Background())
	defer leave()
	var watches, devices sync.WaitGroup
	watching, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()
	for _, c := range s.clouds {
		watches.Go(func() { c.watch.run(watching, lineAfter) })
	}
	for _, d := range s.devices {
		devices.Go(func() { d.run(live) })
		devices.Go(func() { d.obey(live) })
	}
	watches.Go(func() { s.noticeLate(watching) })

	ended := s.send(ctx, bridged)
	if ended == nil {
		s.drain()
	}
	for _, d := range s.devices {
		d.leave()
	}
	leave()
	devices.Wait()
	stopBridge()
	if ended == nil {
		ended = <-bridged
	}
	s.awaitGoodbyes()
	for _, c := range s.clouds {
		c.Close() // the watches see the last connections end
	}
	stopWatching()
	watches.Wait()
	return ended
}

// lineAfter is how soon something that happens in a cloud gets its line: after the message that caused it has got its
// own.
const lineAfter = 3 * time.Millisecond

// awaitGoodbyes lets the clouds read the last words of the bridge.
func (s *stage) awaitGoodbyes() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, c := range s.clouds {
		_ = c.WaitUntil(ctx, func() bool { return !slices.ContainsFunc(c.Sessions(), connected) }) // or a second is over
	}
}

func connected(s cloudsim.Session) bool { return s.Connected }

// send has devices and applications send until ctx ends or the time is over, or the bridge ends by itself, which is an
// error.
func (s *stage) send(ctx context.Context, bridged <-chan error) (ended error) {
	sending, cancel := context.WithCancel(context.Background())
	if s.opts.For > 0 {
		sending, cancel = context.WithTimeout(sending, s.opts.For)
	}
	var wg sync.WaitGroup
	for i, d := range s.devices {
		wg.Go(func() { d.measure(sending, s.opts.rhythm.telemetry, s.turn(i, s.opts.rhythm.telemetry)) })
		wg.Go(func() { s.apps[i].command(sending, s.opts.rhythm.command, s.turn(i, s.opts.rhythm.command)) })
	}
	if !s.opts.Calm {
		wg.Go(func() { s.makeTrouble(sending) })
	}
	select {
	case <-sending.Done():
	case <-ctx.Done():
		s.acct.text("\n") // the terminal shows ^C
	case err := <-bridged:
		ended = errors.Join(errors.New("the bridge ended by itself"), err)
	}
	cancel()
	wg.Wait()
	return ended
}

// turn is when the i-th device's turn comes within an interval, so that they do not all talk at once.
func (s *stage) turn(i int, interval time.Duration) time.Duration {
	return interval * time.Duration(2*i+1) / time.Duration(2*len(s.devices))
}

// drain waits until every message has arrived and is acknowledged, and has the books report those that are not.
func (s *stage) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.Drain)
	defer cancel()
	began, told := time.Now(), false
	for s.open() > 0 && pause(ctx, 20*time.Millisecond) {
		if n := s.open(); !told && n > 0 && time.Since(began) > lateAfter {
			told = true
			s.note("", "ending; waiting for "+count(n, "last message"))
		}
	}
	for _, d := range s.devices {
		d.up.close()
		d.down.close()
	}
}

func (s *stage) open() (n int) {
	for _, d := range s.devices {
		n += d.up.open() + d.down.open()
	}
	return n
}

// note tells what the demo itself does.
func (s *stage) note(cloud, text string) {
	s.acct.print(line{device: "demo", mark: event, cloud: cloud, text: text, tone: bold})
}

// arrived enters a message that a cloud has received.
func (s *stage) arrived(c *cloudSpec, r cloudsim.Received) {
	s.cloud(c.name).watch.catchUp()
	d := s.device(r.Device)
	if d == nil { // from the person at the keyboard
		s.acct.message(r.Device, up, c.label(), r.Topic, r.Payload, "arrived", good)
		return
	}
	d.mu.Lock()
	lan := d.lan
	d.mu.Unlock()
	if n := numberOf(r.Payload); n > 0 {
		d.up.arrive(n, r.Payload, r.Dup, lan, d.upEpoch())
		return
	}
	s.fault(fmt.Sprintf("%s received something that %s never sent at %s: %q", c.name, d.name, r.Topic, r.Payload))
}

// noticeLate tells of messages that are not acknowledged soon.
func (s *stage) noticeLate(ctx context.Context) {
	for pause(ctx, lateAfter/2) {
		before := time.Now().Add(-lateAfter)
		for _, d := range s.devices {
			for _, p := range d.up.late(before) {
				s.acct.message(d.name, up, d.label, kindOf(p), p, "no PUBACK yet", alarm)
			}
			for _, p := range d.down.late(before) {
				s.acct.message(d.name, down, d.label, "command", p, "no PUBACK yet", alarm)
			}
		}
	}
}

// watch tells what happens in a cloud.
func (s *stage) watch(c *simulated) *watch {
	tell := func(device string, m mark, t tone, text string) {
		if device == "" {
			device = "?"
		}
		s.acct.print(line{device: device, mark: m, cloud: c.label(), text: text, tone: t})
	}
	return &watch{
		cloud: c.Cloud,
		online: func(n cloudsim.Connection) {
			tell(n.Device, online, good, "online: "+c.login)
		},
		offline: func(n cloudsim.Connection) {
			t := alarm
			if n.Reason == cloudsim.EndDisconnect {
				t = plain
			}
			tell(n.Device, offline, t, "offline: "+endings[n.Reason])
		},
		refused: func(f cloudsim.LoginFailure) {
			if f.Code == 0 && f.Status == 0 {
				return // cut off by an outage
			}
			s.fault(fmt.Sprintf("%s refused a login of %s: %s", c.name, f.Device, f.Reason))
		},
		violation: func(v cloudsim.Violation) {
			s.fault(fmt.Sprintf("%s breaks a rule of %s (%s): %s", v.Device, c.name, v.Rule, v.Detail))
		},
		acked: func(a cloudsim.Ack) {
			d := s.device(a.Device)
			if d == nil || numberOf(a.Payload) == 0 {
				s.acct.acknowledged(a.Device, down, c.label(), a.Topic, a.Payload, a.Time.Sub(a.Sent))
				return
			}
			if after, first := d.down.ack(numberOf(a.Payload), a.Time); first {
				s.acct.acknowledged(d.name, down, d.label, "command", a.Payload, after)
			}
		},
	}
}
