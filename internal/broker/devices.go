package broker

import (
	"errors"
	"slices"
)

// ErrStopped means that devices were to be changed after the broker had stopped.
var ErrStopped = errors.New("the broker has stopped")

// SetDevices replaces the devices. Those that are new may log in from now on. Those that are there already go on as
// they are: connected ones keep their connection, unless they could not log in again with what they presented; Kept is
// not looked at. Those that are missing are let go, as by a stop; SetDevices returns when they have left.
//
// Lanes, Up and Upstream of a device that stays must lead to the same session as before.
func (b *Broker) SetDevices(devices []Device) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	next := make([]*Device, len(devices))
	for i := range devices {
		d := devices[i]
		next[i] = &d
	}
	return b.set(next)
}

// Add is SetDevices with one more.
func (b *Broker) Add(d Device) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	return b.set(append(b.setups(), &d))
}

// Update is SetDevices for one that is there already; otherwise it is like Add.
func (b *Broker) Update(d Device) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	all := b.setups()
	i := slices.IndexFunc(all, func(other *Device) bool { return other.Name == d.Name })
	if i < 0 {
		return b.set(append(all, &d))
	}
	all[i] = &d
	return b.set(all)
}

// Remove is SetDevices without one.
func (b *Broker) Remove(name string) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	return b.set(slices.DeleteFunc(b.setups(), func(d *Device) bool { return d.Name == name }))
}

// Disconnect ends the connection of a device whose login is not valid any more. Its session is kept as after a loss. It
// does not wait.
func (b *Broker) Disconnect(name string) {
	d := b.device(name)
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link != nil {
		d.link.end(newLogin)
	}
}

// setups are the devices as they are now.
func (b *Broker) setups() []*Device {
	var all []*Device
	for _, d := range b.all() {
		all = append(all, d.setup())
	}
	return all
}

// set does what SetDevices says. The caller holds changing.
func (b *Broker) set(next []*Device) error {
	if b.over {
		return ErrStopped
	}
	if err := checkDevices(next); err != nil {
		return err
	}
	b.mu.Lock()
	old := b.devices
	devices, order := make(map[string]*device, len(next)), make([]*device, 0, len(next))
	var added, gone []*device
	for _, cfg := range next {
		d := old[cfg.Name]
		if d == nil {
			d = newDevice(b, cfg)
			added = append(added, d)
		} else {
			d.cfg.Store(cfg)
		}
		devices[cfg.Name], order = d, append(order, d)
	}
	for _, d := range b.order {
		if devices[d.name] == nil {
			gone = append(gone, d)
		}
	}
	b.devices, b.order = devices, order
	b.mu.Unlock()
	b.logins.set(order)
	for _, d := range order {
		d.review()
	}
	if b.serving {
		for _, d := range added {
			d.resume()
		}
	}
	b.letGo(gone)
	return nil
}

// letGo ends devices that were removed, all at the same time.
func (b *Broker) letGo(gone []*device) {
	var links []*link
	for _, d := range gone {
		d.mu.Lock()
		d.removed = true
		if d.link != nil {
			links = append(links, d.link)
			d.link.end(removed)
		}
		d.mu.Unlock()
	}
	for _, l := range links {
		<-l.done
	}
	for _, d := range gone {
		d.stop()
		b.logins.forget(d)
	}
}

// review ends the device's connection if it could not log in again.
func (d *device) review() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link != nil && d.b.logins.still(d.link) != d {
		d.link.end(newLogin)
	}
}

// admitsLocked says whether a link that has logged in may enter: the configuration may have changed since. If it may
// not, it tells why.
func (d *device) admitsLocked(l *link) (ending, bool) {
	switch {
	case d.removed:
		return removed, false
	case d.b.logins.still(l) != d:
		return newLogin, false
	}
	return ending{}, true
}
