package broker

import "time"

// Counters are of the broker as a whole, since it was made.
type Counters struct {
	Connections int    // open now, logged in or not
	Refused     uint64 // logins
	TurnedAway  uint64 // connections beyond max_connections
}

// Counters returns the counters as they stand.
func (b *Broker) Counters() Counters {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.count
	c.Connections = len(b.links)
	return c
}

// DeviceStatus is how a device is on the LAN.
type DeviceStatus struct {
	Connected bool
	Since     time.Time // when that changed last, zero if it never did
	Remote    string    // address, if connected
	Protocol  string    // 3.1, 3.1.1 or 5, if connected
	// Stripped counts messages that lost MQTT 5 properties on their way.
	Stripped uint64
}

// DeviceStatus returns how a device is. ok is false if there is none of that name.
func (b *Broker) DeviceStatus(name string) (st DeviceStatus, ok bool) {
	b.mu.Lock()
	d := b.devices[name]
	b.mu.Unlock()
	if d == nil {
		return st, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	st = DeviceStatus{Connected: d.link != nil, Since: d.since, Stripped: d.stripped.Load()}
	if l := d.link; l != nil {
		st.Remote, st.Protocol = l.remote.String(), versionName(l.req.version)
	}
	return st, true
}
