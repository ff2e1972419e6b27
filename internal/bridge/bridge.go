// Package bridge puts the parts together for one configuration: for each device a pair of lanes between the broker on
// the LAN and a worker towards the cloud. It starts and stops them in order and tells how they are.
//
// New binds and checks and starts nothing. Run may be called once; it blocks, and when it returns everything that it
// started has ended. The other methods are safe for concurrent use.
package bridge

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"bridged/internal/broker"
	"bridged/internal/clock"
	"bridged/internal/config"
	"bridged/internal/governor"
	"bridged/internal/lane"
	"bridged/internal/lane/boltstore"
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
	log      *zap.Logger
	opts     Options
	lock     *dirLock
	store    *boltstore.Store
	memory   *lane.Budget
	spool    *lane.Spool
	clock    *clock.Clock
	governor *governor.Governor
	retry    func() *governor.Retry
	clouds   *clouds
	keeper   *upstream.Keeper
	tally    *tally // of failures
	broker   *broker.Broker
	certs    certificates
	begun    *config.Config // the configuration of the start

	started  chan struct{}   // closed when Run has begun
	stopping context.Context // ends when Run is told to end
	stop     context.CancelFunc

	guests   *guests    // devices that are not in the configuration
	changing sync.Mutex // held while devices change; taken before mu

	mu      sync.Mutex // protects the following fields
	cfg     *config.Config
	devices []*device // replaced, not changed
	byName  map[string]*device
	// stranded are lanes of devices that were removed and could not be stored yet.
	stranded map[lane.Key]*lane.Lane
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
	b := &Bridge{
		cfg: cfg, begun: cfg, log: log, opts: opts, lock: lock, memory: lane.NewBudget(cfg.Limits.Memory),
		keeper:  upstream.NewKeeper(nil),
		tally:   &tally{counts: make(map[tallyKey]uint64)},
		started: make(chan struct{}), stranded: make(map[lane.Key]*lane.Lane),
	}
	b.stopping, b.stop = context.WithCancel(context.Background())
	if err := b.openSpool(); err != nil {
		lock.release()
		return nil, err
	}
	if err := b.build(); err != nil {
		err = errors.Join(err, b.store.Close())
		lock.release()
		return nil, err
	}
	b.tellUnclaimed()
	return b, nil
}

func (b *Bridge) build() error {
	notes := b.spool.Notes()
	kept := keptSessions(notes, b.log)
	b.clock = b.newClock(b.opts.Clock)
	b.governor = b.newGovernor(notes)
	b.clouds = newClouds(b.clock, b.log)
	b.retry = governor.NewRetries(b.opts.Retry)
	b.keeper.Also = b.clock.Check
	b.guests = newGuests(b, notes)
	devices := make([]*device, 0, len(b.cfg.Devices))
	for _, dc := range slices.Concat(b.cfg.Devices, b.guests.left(notes)) {
		p, err := b.newParts(dc)
		if err != nil {
			return err
		}
		d := b.newDevice(dc, p, notes, kept[dc.Name])
		b.keeper.Add(d.worker)
		devices = append(devices, d)
	}
	b.setDevices(devices)
	listeners, err := b.certs.listeners(b.cfg.Listen)
	if err != nil {
		return err
	}
	b.broker, err = broker.New(broker.Config{
		Listeners:      listeners,
		MaxConnections: b.cfg.Limits.MaxConnections,
		ConnectTimeout: b.cfg.Limits.ConnectTimeout,
		MaxPacketSize:  int(b.cfg.Limits.MaxPacketSize),
		Memory:         b.memory,
		Devices:        locals(devices),
		Guests:         b.guests,
		Log:            b.log,
	})
	return err
}

func (b *Bridge) setDevices(devices []*device) {
	byName := make(map[string]*device, len(devices))
	for _, d := range devices {
		byName[d.cfg.Name] = d
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.devices, b.byName = devices, byName
}

// all is a snapshot of the devices, in the order of the configuration.
func (b *Bridge) all() []*device {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.devices
}

// find returns a device, nil if there is none of that name.
func (b *Bridge) find(name string) *device {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.byName[name]
}

// config is the configuration of the moment.
func (b *Bridge) config() *config.Config {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cfg
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
	b.tellFiles()
	var wg sync.WaitGroup
	wg.Go(func() { b.keeper.Run(helpers) })
	wg.Go(func() { b.sweep(helpers) })
	wg.Go(func() { b.guests.proofs.run(helpers) })
	for _, d := range b.all() {
		d.worker.Start()
	}
	up, down := b.stored()
	b.log.Info("bridged is running", zap.Int("devices", len(b.all())), zap.Stringers("listen", b.Addrs()),
		zap.Int("stored_up", up), zap.Int("stored_down", down))

	close(b.started)
	serving, letGo := context.WithCancel(context.Background())
	wg.Go(func() {
		select {
		case <-ctx.Done():
			b.log.Info("stopping", zap.Duration("timeout", b.config().ShutdownTimeout))
			b.lastChange()
			b.flush(context.Background())
			letGo()
		case <-serving.Done():
		}
	})
	err := b.broker.Run(serving)
	letGo()
	b.lastChange()

	deadline, cancel := context.WithTimeout(context.Background(), b.config().ShutdownTimeout)
	defer cancel()
	var stopping sync.WaitGroup
	for _, d := range b.all() {
		stopping.Go(func() { d.worker.Stop(deadline) })
	}
	stopping.Wait()
	b.keepDials()
	stopHelpers()
	wg.Wait()
	stopStoring()
	err = errors.Join(err, <-stored, b.store.Close())
	for _, d := range b.all() {
		d.tellDrops(b.log, true)
	}
	b.reportLeft()
	return err
}

// lastChange waits until nothing changes any more.
func (b *Bridge) lastChange() {
	b.stop()
	b.changing.Lock() // a change that is under way
	defer b.changing.Unlock()
}

func (b *Bridge) sweep(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	var looked time.Time // at certificates
	trim := newTrimmer()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			if now.Sub(looked) >= expiryEvery {
				looked = now
				b.clouds.warnExpiry()
			}
			for _, d := range b.all() {
				d.up.Sweep()
				d.down.Sweep()
				d.tellDrops(b.log, false)
			}
			b.guests.tidy(now)
			trim.look()
			if b.changing.TryLock() {
				b.release()
				b.changing.Unlock()
			}
		}
	}
}

// stored is how many messages are on disk.
func (b *Bridge) stored() (up, down int) {
	for _, d := range b.all() {
		up += d.up.Counters().Stored
		down += d.down.Counters().Stored
	}
	return up, down
}

// reportLeft says what could not be delivered.
func (b *Bridge) reportLeft() {
	var stored, lost [2]int
	count := func(direction lane.Direction, l *lane.Lane) {
		c := l.Counters()
		stored[direction] += c.Stored
		lost[direction] += c.Queued - c.Stored
	}
	for _, d := range b.all() {
		count(lane.Up, d.up)
		count(lane.Down, d.down)
	}
	for key, l := range b.stranded {
		count(key.Direction, l)
	}
	if lost[0]+lost[1] > 0 {
		b.log.Warn("stopped with messages that are neither delivered nor stored, nor acknowledged to their senders",
			zap.Int("up", lost[0]), zap.Int("down", lost[1]))
	}
	b.log.Info("stopped", zap.Int("stored_up", stored[0]), zap.Int("stored_down", stored[1]))
}
