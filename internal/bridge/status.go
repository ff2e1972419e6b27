package bridge

import (
	"bridged/internal/lane"
	"bridged/internal/upstream"
)

// DeviceStatus is how a device is.
type DeviceStatus struct {
	Name  string
	Cloud string
	// Session is the cloud side.
	Session upstream.Status
	// Up and Down are the ledgers of the two directions.
	Up, Down lane.Counters
}

// Status tells how all devices are, in the order of the configuration.
func (b *Bridge) Status() []DeviceStatus {
	devices := b.all()
	all := make([]DeviceStatus, len(devices))
	for i, d := range devices {
		all[i] = d.status()
	}
	return all
}

// DeviceStatus tells how one device is. ok is false if there is none of that name.
func (b *Bridge) DeviceStatus(name string) (st DeviceStatus, ok bool) {
	d := b.find(name)
	if d == nil {
		return DeviceStatus{}, false
	}
	return d.status(), true
}

func (d *device) status() DeviceStatus {
	return DeviceStatus{
		Name: d.cfg.Name, Cloud: d.cfg.Cloud.Name, Session: d.worker.Status(), Up: d.up.Counters(), Down: d.down.Counters(),
	}
}
