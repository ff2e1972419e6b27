package bridge

import (
	"time"

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
	// CloudCertificate and ClientCertificate are when they expire, zero if there is none, or none was seen yet.
	CloudCertificate, ClientCertificate time.Time
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
	st := DeviceStatus{
		Name: d.cfg.Name, Cloud: d.cfg.Cloud.Name, Session: d.worker.Status(), Up: d.up.Counters(), Down: d.down.Counters(),
		CloudCertificate: d.parts.cloud.dialer.CertificateExpires(),
	}
	if pair := d.parts.target.Certificate; pair != nil {
		st.ClientCertificate = pair.Expires()
	}
	return st
}
