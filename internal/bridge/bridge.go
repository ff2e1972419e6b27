// Package bridge puts the parts together for one configuration: for each device a pair of lanes between the broker on
// the LAN and a worker towards the cloud. It starts and stops them in order and tells how they are.
//
// New binds and checks and starts nothing. Run may be called once; it blocks, and when it returns everything that it
// started has ended. The other methods are safe for concurrent use.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"bridged/internal/broker"
	"bridged/internal/clock"
	"bridged/internal/config"
	"bridged/internal/governor"
	"bridged/internal/lane"
	"bridged/internal/lane/boltstore"
	"bridged/internal/topicmap"
	"bridged/internal/transport"
	"bridged/internal/upstream"
)

// Options are for tests and demonstrations. The zero value is for real use.
type Options struct {
	// Retry is how long to wait after failures.
	Retry governor.RetryConfig
	// Clock is where the time comes from.
	Clock clock.Config
	// Quiet replaces upstream.DefaultQuiet if it is not zero.
	Quiet time.Duration
}

// Bridge is a running or startable bridge.
type Bridge struct {
	cfg      *config.Config
	log      *zap.Logger
	lock     *dirLock
	store    *boltstore.Store
	spool    *lane.Spool
	devices  []*device
	byName   map[string]*device
	clock    *clock.Clock
	governor *governor.Governor
	clouds   *clouds
	keeper   *upstream.Keeper
	broker   *broker.Broker
}

// device is what there is for each configured device.
type device struct {
	cfg      *config.Device
	up, down *lane.Lane
	worker   *upstream.Worker
	cloud    *cloud
	pair     *transport.KeyPair // the client certificate, nil if there is none
	drops    drops              // used by sweep, and by Run after that
}

// New takes the state directory, builds everything and binds the listeners.
func New(cfg *config.Config, log *zap.Logger, opts Options) (*Bridge, error) {
	if opts.Quiet == 0 {
		opts.Quiet = upstream.DefaultQuiet
	}
	lock, err := lockDir(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	b := &Bridge{cfg: cfg, log: log, lock: lock, byName: make(map[string]*device)}
	memory := lane.NewBudget(cfg.Limits.Memory)
	if err := b.openSpool(memory); err != nil {
		lock.release()
		return nil, err
	}
	if err := b.build(opts, memory); err != nil {
		err = errors.Join(err, b.store.Close())
		lock.release()
		return nil, err
	}
	b.tellUnclaimed()
	return b, nil
}

func (b *Bridge) build(opts Options, memory *lane.Budget) error {
	notes := b.spool.Notes()
	kept := keptSessions(notes, b.log)
	now := time.Now()
	b.clock = b.newClock(opts.Clock)
	b.governor = b.newGovernor(notes)
	b.clouds = newClouds(b.clock, b.log)
	retry := governor.NewRetries(opts.Retry)
	workers := make([]*upstream.Worker, 0, len(b.cfg.Devices))
	locals := make([]broker.Device, 0, len(b.cfg.Devices))
	for _, dc := range b.cfg.Devices {
		topics, err := topicmap.New(dc.Topics)
		if err != nil {
			return fmt.Errorf("device %s: topics: %w", dc.Name, err)
		}
		cloud, err := b.clouds.of(dc.Cloud)
		if err != nil {
			return err
		}
		target, err := b.clouds.target(dc)
		if err != nil {
			return fmt.Errorf("device %s: %w", dc.Name, err)
		}
		_, noted := notes[sessionPrefix+dc.Name] // although perhaps damaged
		d := &device{
			cfg:   dc,
			cloud: cloud,
			pair:  target.Certificate,
			up:    b.spool.Lane(lane.Key{Device: dc.Name, Direction: lane.Up}, upConfig(dc, memory)),
			down:  b.spool.Lane(lane.Key{Device: dc.Name, Direction: lane.Down}, downConfig(dc, memory, noted)),
		}
		d.drops.known([2]lane.Counters{d.up.Counters(), d.down.Counters()})
		d.worker = upstream.New(upstream.Config{
			Device:       dc.Name,
			Cloud:        dc.Cloud.Name,
			Dialer:       cloud.dialer,
			Target:       target,
			Identity:     dc.Identity,
			Key:          key(dc),
			Timed:        timed(dc),
			Keepalive:    dc.Cloud.Keepalive,
			StallTimeout: dc.Cloud.StallTimeout,
			Limits:       dc.Cloud.Limits,
			Always:       dc.Always,
			Linger:       dc.Linger,
			Persistent:   dc.Persistent,
			Subscribe:    dc.Subscribe,
			Topics:       topics,
			Up:           d.up,
			Down:         d.down,
			Marks:        d.down,
			Memory:       memory,
			Refused:      lane.RefusedByCloud,
			Kept:         kept[dc.Name],
			Save:         saver(b.spool, dc.Name, b.log),
			MaxPacket:    int(dc.Queue.MaxBytes) + 1<<16, // what does not fit into the queue cannot be relayed
			Quiet:        opts.Quiet,
			Governor:     b.governor,
			Retry:        retry(),
			Clock:        b.clock,
			Log:          b.log,
		})
		b.devices = append(b.devices, d)
		b.byName[dc.Name] = d
		workers = append(workers, d.worker)
		locals = append(locals, localDevice(d, localSession(kept[dc.Name], now)))
	}
	b.keeper = upstream.NewKeeper(workers)
	b.keeper.Also = b.clock.Check

	listeners, err := listeners(b.cfg.Listen)
	if err != nil {
		return err
	}
	b.broker, err = broker.New(broker.Config{
		Listeners:      listeners,
		MaxConnections: b.cfg.Limits.MaxConnections,
		ConnectTimeout: b.cfg.Limits.ConnectTimeout,
		MaxPacketSize:  int(b.cfg.Limits.MaxPacketSize),
		Memory:         memory,
		Devices:        locals,
		Log:            b.log,
	})
	return err
}

func localDevice(d *device, kept *broker.Kept) broker.Device {
	login := d.cfg.Login
	return broker.Device{
		Name: d.cfg.Name,
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
		Kept:       kept,
		Up:         d.worker,
		Marks:      d.up,
		Down:       d.down,
		Upstream:   d.worker,
	}
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

// Addrs are the addresses on which devices are accepted.
func (b *Bridge) Addrs() []net.Addr { return b.broker.Addrs() }

// sweepEvery is how often lanes are searched for messages that have become too old.
const sweepEvery = 5 * time.Second

// Run relays until ctx ends. Then it lets the devices go, has the sessions deliver what they can within the
// configuration's shutdown timeout, says goodbye to the clouds and stores what is left.
func (b *Bridge) Run(ctx context.Context) error {
	defer b.lock.release()
	storing, stopStoring := context.WithCancel(context.Background())
	stored := make(chan error, 1)
	go func() { stored <- b.spool.Run(storing) }()
	helpers, stopHelpers := context.WithCancel(context.Background())
	b.tellClock(b.clock.State())
	var wg sync.WaitGroup
	wg.Go(func() { b.keeper.Run(helpers) })
	wg.Go(func() { b.sweep(helpers) })
	for _, d := range b.devices {
		d.worker.Start()
	}
	up, down := b.stored()
	b.log.Info("bridged is running", zap.Int("devices", len(b.devices)), zap.Stringers("listen", b.Addrs()),
		zap.Int("stored_up", up), zap.Int("stored_down", down))

	serving, letGo := context.WithCancel(context.Background())
	wg.Go(func() {
		select {
		case <-ctx.Done():
			b.log.Info("stopping", zap.Duration("timeout", b.cfg.ShutdownTimeout))
			b.settleAll()
			letGo()
		case <-serving.Done():
		}
	})
	err := b.broker.Run(serving)
	letGo()

	deadline, cancel := context.WithTimeout(context.Background(), b.cfg.ShutdownTimeout)
	defer cancel()
	var stopping sync.WaitGroup
	for _, d := range b.devices {
		stopping.Go(func() { d.worker.Stop(deadline) })
	}
	stopping.Wait()
	b.keepDials()
	stopHelpers()
	wg.Wait()
	stopStoring()
	err = errors.Join(err, <-stored, b.store.Close())
	for _, d := range b.devices {
		d.tellDrops(b.log, true)
	}
	b.reportLeft()
	return err
}

func (b *Bridge) sweep(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	var looked time.Time // at certificates
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			if now.Sub(looked) >= expiryEvery {
				looked = now
				b.clouds.warnExpiry()
			}
			for _, d := range b.devices {
				d.up.Sweep()
				d.down.Sweep()
				d.tellDrops(b.log, false)
			}
		}
	}
}

func (d *device) tellDrops(log *zap.Logger, end bool) {
	counters := [2]lane.Counters{d.up.Counters(), d.down.Counters()}
	d.drops.tell(log, d.cfg.Name, counters, time.Now(), end)
}

// stored is how many messages are on disk.
func (b *Bridge) stored() (up, down int) {
	for _, d := range b.devices {
		up += d.up.Counters().Stored
		down += d.down.Counters().Stored
	}
	return up, down
}

// reportLeft says what could not be delivered.
func (b *Bridge) reportLeft() {
	var stored, lost [2]int
	for _, d := range b.devices {
		for i, l := range []*lane.Lane{d.up, d.down} {
			c := l.Counters()
			stored[i] += c.Stored
			lost[i] += c.Queued - c.Stored
		}
	}
	if lost[0]+lost[1] > 0 {
		b.log.Warn("stopped with messages that are neither delivered nor stored, nor acknowledged to their senders",
			zap.Int("up", lost[0]), zap.Int("down", lost[1]))
	}
	b.log.Info("stopped", zap.Int("stored_up", stored[0]), zap.Int("stored_down", stored[1]))
}
