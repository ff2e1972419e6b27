package bridge

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"bridged/internal/config"
	"bridged/internal/lane"
	"bridged/internal/upstream"
)

// ErrStopping means that a change came when the bridge was on its way down.
var ErrStopping = errors.New("bridged is stopping")

// removeWithin bounds how long a cloud may take to get what a device that was removed, or changed, has left.
const removeWithin = 5 * time.Second

// Changes are what a reload did, by the names of devices and clouds, sorted.
type Changes struct {
	Devices, Clouds Difference
	// NeedRestart are the keys that were changed, and are only looked at when bridged starts.
	NeedRestart []string
	// Left is what is stored for the devices that were removed.
	Left []Leftover
}

// Difference is what has become of things with names.
type Difference struct {
	Added, Removed, Changed []string
	Unchanged               int
}

// Leftover is how many messages are kept for a device that is not configured.
type Leftover struct {
	Device   string
	Up, Down int
}

// plan is what has to be done.
type plan struct {
	next    *config.Config // nil if only devices change
	certs   []func()       // the listeners' certificates, as their files are now
	order   []string       // of the devices afterwards
	removed []*device
	added   []*config.Device
	changed map[string]*config.Device // also those that are the same
	parts   map[string]parts
}

// Reload goes over to another configuration. What can fail is done first: if Reload returns an error nothing has
// changed. Devices whose configuration is the same do not notice. A device whose login has changed is disconnected if
// it could not log in again. One with another cloud session gets that, while its connection and its queues stay; its
// queues' settings change in place. One that was removed is let go, and what it has not delivered is stored and kept.
//
// Reloads are made one at a time. One that comes before Run waits. When Run is told to end, a reload that is under way
// hurries.
func (b *Bridge) Reload(ctx context.Context, next *config.Config) (*Changes, error) {
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	defer b.changing.Unlock()
	old := b.config()
	defer func() { b.clouds.keep(b.all()) }()
	p, err := b.plan(next)
	if err != nil {
		return nil, err
	}
	changes := b.describe(p, old)
	changes.Left = b.apply(p)
	b.tellFiles()
	return changes, nil
}

// add adds a device that is not in the configuration, if a check made while nothing changes finds no reason against
// it. A reload leaves it alone, unless it is in there then.
func (b *Bridge) add(dc *config.Device, check func() error) error {
	if err := b.begin(context.Background()); err != nil {
		return err
	}
	defer b.changing.Unlock()
	if b.find(dc.Name) != nil {
		return nil // somebody else was faster
	}
	if err := check(); err != nil {
		return err
	}
	made, err := b.newParts(dc)
	if err != nil {
		return err
	}
	p := b.planNothing()
	p.added, p.parts[dc.Name] = append(p.added, dc), made
	p.order = append(p.order, dc.Name)
	b.apply(p)
	return nil
}

// removeIf takes a device away that add has added, if a condition holds while nothing changes.
func (b *Bridge) removeIf(name string, cond func(*device) bool) error {
	if err := b.begin(context.Background()); err != nil {
		return err
	}
	defer b.changing.Unlock()
	d := b.find(name)
	if d == nil || !cond(d) {
		return nil
	}
	p := b.planNothing()
	p.removed = append(p.removed, d)
	delete(p.changed, name)
	p.order = slices.DeleteFunc(p.order, func(n string) bool { return n == name })
	b.apply(p)
	return nil
}

// begin waits until devices may be changed, and takes changing.
func (b *Bridge) begin(ctx context.Context) error {
	select {
	case <-b.started:
	case <-ctx.Done():
		return ctx.Err()
	}
	b.changing.Lock()
	if b.stopping.Err() != nil {
		b.changing.Unlock()
		return ErrStopping
	}
	return nil
}

func (b *Bridge) planNothing() *plan {
	p := &plan{changed: make(map[string]*config.Device), parts: make(map[string]parts)}
	for _, d := range b.all() {
		p.order = append(p.order, d.cfg.Name)
		p.changed[d.cfg.Name], p.parts[d.cfg.Name] = d.cfg, d.parts
	}
	return p
}

// plan finds out what a configuration changes, and makes everything that can fail.
func (b *Bridge) plan(next *config.Config) (*plan, error) {
	p := &plan{next: next, changed: make(map[string]*config.Device), parts: make(map[string]parts)}
	for _, dc := range next.Devices {
		made, err := b.newParts(dc)
		if err != nil {
			return nil, err
		}
		p.order, p.parts[dc.Name] = append(p.order, dc.Name), made
		if b.find(dc.Name) != nil {
			p.changed[dc.Name] = dc
		} else {
			p.added = append(p.added, dc)
		}
	}
	for _, d := range b.all() {
		name := d.cfg.Name
		switch {
		case p.changed[name] != nil:
		case guestOf(d) != nil:
			dc := b.guests.next(d, next.PassThrough)
			if dc == nil {
				p.removed = append(p.removed, d)
				continue
			}
			made, err := b.newParts(dc)
			if err != nil {
				return nil, err
			}
			p.order, p.parts[name], p.changed[name] = append(p.order, name), made, dc
		default:
			p.removed = append(p.removed, d)
		}
	}
	var err error
	p.certs, err = b.certs.read()
	return p, err
}

func (b *Bridge) describe(p *plan, old *config.Config) *Changes {
	c := &Changes{NeedRestart: needRestart(b.begun, p.next)}
	for _, dc := range p.added {
		c.Devices.Added = append(c.Devices.Added, dc.Name)
	}
	for _, d := range p.removed {
		c.Devices.Removed = append(c.Devices.Removed, d.cfg.Name)
	}
	for name, dc := range p.changed {
		if d := b.find(name); sameDevice(d.cfg, dc, d.parts, p.parts[name]) {
			c.Devices.Unchanged++
		} else {
			c.Devices.Changed = append(c.Devices.Changed, name)
		}
	}
	for name, cloud := range p.next.Clouds {
		switch was := old.Clouds[name]; {
		case was == nil:
			c.Clouds.Added = append(c.Clouds.Added, name)
		case sameCloud(was, cloud):
			c.Clouds.Unchanged++
		default:
			c.Clouds.Changed = append(c.Clouds.Changed, name)
		}
	}
	for name := range old.Clouds {
		if p.next.Clouds[name] == nil {
			c.Clouds.Removed = append(c.Clouds.Removed, name)
		}
	}
	for _, d := range []*Difference{&c.Devices, &c.Clouds} {
		slices.Sort(d.Added)
		slices.Sort(d.Removed)
		slices.Sort(d.Changed)
	}
	return c
}

// apply carries a plan out. The caller holds changing. Devices that go are gone before others come: what comes may have
// the identity of what goes, and a cloud lets only one of them be connected.
func (b *Bridge) apply(p *plan) []Leftover {
	if p.next != nil {
		b.memory.SetLimit(p.next.Limits.Memory)
		b.spool.SetLimit(p.next.Limits.Disk)
		b.broker.SetLimits(p.next.Limits.MaxConnections, p.next.Limits.ConnectTimeout)
		for _, use := range p.certs {
			use()
		}
		b.mu.Lock()
		b.cfg = p.next
		b.mu.Unlock()
		b.guests.use(p.next.PassThrough)
	}
	left := b.letGo(p.removed)
	fresh := b.retire(p)
	devices := make([]*device, 0, len(p.order))
	notes := b.notesOf(p.added)
	kept := keptSessions(notes, b.log)
	added := make(map[string]*config.Device)
	for _, dc := range p.added {
		added[dc.Name] = dc
	}
	for _, name := range p.order {
		dc := added[name]
		if dc == nil {
			devices = append(devices, b.changed(b.find(name), p.changed[name], p.parts[name], fresh[name]))
			continue
		}
		d := b.newDevice(dc, p.parts[name], notes, kept[name])
		b.keeper.Add(d.worker)
		fresh[name] = d.worker
		devices = append(devices, d)
	}
	b.setDevices(devices)
	b.serve(devices)
	for _, w := range fresh {
		w.Start()
	}
	return left
}

// serve tells the broker of the devices.
func (b *Bridge) serve(devices []*device) {
	if err := b.broker.SetDevices(locals(devices)); err != nil {
		// The configuration was checked, and the broker does not stop before the bridge does.
		b.log.Error("devices cannot log in", zap.NamedError("err", err))
	}
}

// letGo ends devices that were removed, and returns what is stored of them.
func (b *Bridge) letGo(removed []*device) (left []Leftover) {
	if len(removed) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(b.stopping, removeWithin)
	defer cancel()
	gone := make(map[*device]bool)
	var lanes []*lane.Lane
	for _, d := range removed {
		gone[d] = true
		lanes = append(lanes, d.lanes()...)
		if gu := guestOf(d); gu != nil {
			gu.end()
		}
	}
	b.flush(ctx, lanes...) // so that the devices get their acknowledgements
	rest := slices.DeleteFunc(slices.Clone(b.all()), func(d *device) bool { return gone[d] })
	b.setDevices(rest)
	b.serve(rest)
	var wg sync.WaitGroup
	for _, d := range removed {
		wg.Go(func() {
			d.worker.Dismiss(ctx)
			b.keeper.Remove(d.worker)
			d.tellDrops(b.log, true)
		})
	}
	wg.Wait()
	for _, d := range removed {
		up, down := d.up.Counters(), d.down.Counters()
		if up.Queued+down.Queued > 0 {
			left = append(left, Leftover{Device: d.cfg.Name, Up: up.Queued, Down: down.Queued})
		}
		b.mu.Lock()
		b.stranded[lane.Key{Device: d.cfg.Name, Direction: lane.Up}] = d.up
		b.stranded[lane.Key{Device: d.cfg.Name, Direction: lane.Down}] = d.down
		b.mu.Unlock()
	}
	b.release()
	for _, l := range left {
		b.log.Warn("a device was removed with messages that are not delivered: they are kept until it is configured again",
			zap.String("device", l.Device), zap.Int("up", l.Up), zap.Int("down", l.Down))
	}
	return left
}

// release gives back the lanes of devices that were removed. Those that cannot be stored stay, to be tried again. The
// caller holds changing.
func (b *Bridge) release() {
	ctx, cancel := context.WithTimeout(b.stopping, removeWithin)
	defer cancel()
	b.mu.Lock()
	stranded := maps.Clone(b.stranded)
	b.mu.Unlock()
	var wg sync.WaitGroup
	for key, l := range stranded {
		wg.Go(func() {
			if err := b.spool.Release(ctx, l); err != nil {
				b.log.Debug("the queue of a device that was removed cannot be stored yet", zap.String("device", key.Device),
					zap.NamedError("err", err))
				return
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.stranded, key)
		})
	}
	wg.Wait()
}

// retire ends the workers of devices that need another session, all at the same time, and returns those that are to
// follow them. They are not started.
func (b *Bridge) retire(p *plan) map[string]*upstream.Worker {
	ctx, cancel := context.WithTimeout(b.stopping, removeWithin)
	defer cancel()
	fresh := make(map[string]*upstream.Worker)
	var wg sync.WaitGroup
	for name, dc := range p.changed {
		d := b.find(name)
		if sameSession(d.cfg, dc, d.parts, p.parts[name]) {
			continue
		}
		w := b.newWorker(&device{cfg: dc, parts: p.parts[name], up: d.up, down: d.down}, nil)
		fresh[name] = w
		wg.Go(func() {
			d.worker.Retire(ctx)
			w.Succeed(d.worker, holder(d.cfg) == holder(dc))
			b.keeper.Remove(d.worker)
			b.keeper.Add(w)
		})
	}
	wg.Wait()
	return fresh
}

// changed makes the device that takes d's place.
func (b *Bridge) changed(d *device, dc *config.Device, p parts, w *upstream.Worker) *device {
	next := &device{cfg: dc, parts: p, up: d.up, down: d.down, worker: w, drops: d.drops, began: d.began}
	if w == nil {
		next.worker, next.parts = d.worker, d.parts
		if dc.Always != d.cfg.Always || dc.Linger != d.cfg.Linger || maxPacket(dc) != maxPacket(d.cfg) {
			d.worker.Adjust(dc.Always, dc.Linger, maxPacket(dc))
		}
	}
	if c := upConfig(dc, b.memory); c != upConfig(d.cfg, b.memory) {
		d.up.Reconfigure(c)
	}
	if c := downConfig(dc, b.memory, false); c != downConfig(d.cfg, b.memory, false) {
		d.down.Reconfigure(c)
	}
	if dc.Persistent && !d.cfg.Persistent {
		d.down.Hold(true)
	}
	return next
}

// notesOf are the notes about devices' sessions.
func (b *Bridge) notesOf(devices []*config.Device) map[string][]byte {
	notes := make(map[string][]byte)
	if len(devices) == 0 {
		return notes
	}
	all := b.spool.Notes()
	for _, dc := range devices {
		if note, ok := all[sessionPrefix+dc.Name]; ok {
			notes[sessionPrefix+dc.Name] = note
		}
	}
	return notes
}
