package bridge

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"bridged/internal/broker"
	"bridged/internal/config"
	"bridged/internal/failure"
	"bridged/internal/lane"
	"bridged/internal/topicmap"
	"bridged/internal/transport"
	"bridged/internal/upstream"
)

// device is what there is for a configured device. It is not changed: one whose configuration has changed is replaced
// by another one with the same lanes.
type device struct {
	cfg      *config.Device
	parts    parts
	up, down *lane.Lane
	worker   *upstream.Worker
	kept     *broker.Kept // as of when it was made
	drops    *drops
	began    *[2]lane.Counters // as they were when it was made; not changed, and shared where they are zero
}

// none are the counters of a device that nothing has ever been queued for.
var none [2]lane.Counters

// parts are what is made of a device's configuration, which may fail.
type parts struct {
	topics *topicmap.Map
	cloud  *cloud
	target transport.Target
}

func (b *Bridge) newParts(dc *config.Device) (p parts, err error) {
	if p.topics, err = topicmap.New(dc.Topics); err != nil {
		return parts{}, fmt.Errorf("device %s: topics: %w", dc.Name, err)
	}
	if p.cloud, err = b.clouds.of(dc.Cloud); err != nil {
		return parts{}, err
	}
	if p.target, err = b.clouds.target(dc); err != nil {
		return parts{}, fmt.Errorf("device %s: %w", dc.Name, err)
	}
	return p, nil
}

// newDevice makes a device with what is stored for it. It starts nothing.
func (b *Bridge) newDevice(dc *config.Device, p parts, notes map[string][]byte, kept *upstream.Kept) *device {
	_, noted := notes[sessionPrefix+dc.Name] // although perhaps damaged
	d := &device{cfg: dc, parts: p, drops: new(drops), kept: localSession(kept, time.Now())}
	d.up = b.claim(lane.Key{Device: dc.Name, Direction: lane.Up}, upConfig(dc, b.memory))
	d.down = b.claim(lane.Key{Device: dc.Name, Direction: lane.Down}, downConfig(dc, b.memory, noted))
	d.began = &none
	if began := [2]lane.Counters{d.up.Counters(), d.down.Counters()}; began != none {
		d.began = &began
	}
	d.drops.known(*d.began)
	d.worker = b.newWorker(d, kept)
	return d
}

// claim takes a lane from the spool, or one that could not be given back.
func (b *Bridge) claim(key lane.Key, cfg lane.Config) *lane.Lane {
	b.mu.Lock()
	l := b.stranded[key]
	delete(b.stranded, key)
	b.mu.Unlock()
	if l != nil {
		l.Reconfigure(cfg)
		l.Hold(cfg.Hold)
		return l
	}
	return b.spool.Lane(key, cfg)
}

func (b *Bridge) newWorker(d *device, kept *upstream.Kept) *upstream.Worker {
	dc := d.cfg
	var signer upstream.Signer = dc.Identity
	var verdict func(*failure.Failure)
	var waiting func() bool
	if gu := guestOf(d); gu != nil {
		signer, waiting = guestAt{gu, dc.Cloud}, gu.waits
		verdict = func(f *failure.Failure) { b.guests.judged(gu, f) }
	}
	return upstream.New(upstream.Config{
		Device:       dc.Name,
		Cloud:        dc.Cloud.Name,
		Dialer:       d.parts.cloud.dialer,
		Target:       d.parts.target,
		Identity:     signer,
		Verdict:      verdict,
		Waiting:      waiting,
		Failed:       b.tally.of(dc.Cloud.Name),
		Key:          ConnectKey(dc),
		Timed:        Timed(dc),
		Keepalive:    dc.Cloud.Keepalive,
		StallTimeout: dc.Cloud.StallTimeout,
		Limits:       &dc.Cloud.Limits,
		Always:       dc.Always,
		Linger:       dc.Linger,
		Persistent:   dc.Persistent,
		Subscribe:    dc.Subscribe,
		Topics:       d.parts.topics,
		Up:           d.up,
		Down:         d.down,
		Marks:        d.down,
		Memory:       b.memory,
		Refused:      lane.RefusedByCloud,
		Kept:         kept,
		Save:         saver(b.spool, dc.Name, b.log),
		MaxPacket:    maxPacket(dc),
		Quiet:        b.opts.Quiet,
		Governor:     b.governor,
		Retry:        b.retry(),
		Clock:        b.clock,
		Log:          b.log,
	})
}

// maxPacket is the largest packet to take from the cloud: what does not fit into the queue cannot be relayed.
func maxPacket(dc *config.Device) int { return int(dc.Queue.MaxBytes) + 1<<16 }

// local is the device as the broker needs it.
func (d *device) local() broker.Device {
	login := d.cfg.Login
	return broker.Device{
		Name:  d.cfg.Name,
		Guest: guestOf(d) != nil,
		Login: broker.Login{
			ClientID:     login.ClientID,
			Username:     login.Username,
			Password:     login.Password.Reveal(),
			PasswordHash: []byte(login.PasswordHash.Reveal()),
			Anonymous:    login.Anonymous,
			AllowFrom:    login.AllowFrom,
		},
		MaxQoS:     d.cfg.Cloud.Limits.MaxQoS,
		Retain:     d.cfg.Cloud.Limits.Retain,
		Persistent: d.cfg.Persistent,
		Kept:       d.kept,
		Up:         d.worker,
		Marks:      d.up,
		Down:       d.down,
		Upstream:   d.worker,
	}
}

func locals(devices []*device) []broker.Device {
	all := make([]broker.Device, len(devices))
	for i, d := range devices {
		all[i] = d.local()
	}
	return all
}

var policies = map[config.OnFull]lane.Policy{
	config.Block: lane.Block, config.DropOldest: lane.DropOldest, config.DropNewest: lane.DropNewest,
}

// laneConfig is what both directions of a device have in common.
func laneConfig(d *config.Device, budget *lane.Budget) lane.Config {
	return lane.Config{
		MaxMessages: d.Queue.MaxMessages,
		MaxBytes:    d.Queue.MaxBytes,
		MaxAge:      d.Queue.MaxAge,
		OnFull:      policies[d.Queue.OnFull],
		DropQoS0:    !d.Queue.StoreQoS0,
		Budget:      budget,
		SpillAfter:  d.Queue.SpillAfter,
		Always:      d.Queue.Always,
	}
}

func upConfig(d *config.Device, budget *lane.Budget) lane.Config {
	c := laneConfig(d, budget)
	limits := d.Cloud.Limits
	c.MaxPayload, c.MaxTopicBytes, c.MaxTopicLevels = limits.MaxPayload, limits.MaxTopicBytes, limits.MaxTopicLevels
	c.Hold = true
	return c
}

// downConfig holds messages before the device has connected for the first time where the cloud may send some then, or
// where there are some for the session that is kept. QoS 0 is not held for a device that is away: brokers do not do
// that, and the device is not to see a difference.
func downConfig(d *config.Device, budget *lane.Budget, kept bool) lane.Config {
	c := laneConfig(d, budget)
	c.DropQoS0 = true
	c.Hold = d.Always || d.Persistent || kept
	c.Away = true
	return c
}

func (d *device) lanes() []*lane.Lane { return []*lane.Lane{d.up, d.down} }

func (d *device) tellDrops(log *zap.Logger, end bool) {
	counters := [2]lane.Counters{d.up.Counters(), d.down.Counters()}
	d.drops.tell(log, d.cfg.Name, counters, time.Now(), end)
}
