package bridge

import (
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"bridged/internal/broker"
	"bridged/internal/clock"
	"bridged/internal/config"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/lane"
	"bridged/internal/upstream"
)

// DeviceSummary is how a device is, as far as it costs next to nothing to tell.
type DeviceSummary struct {
	Name  string
	Cloud string
	// Guest says that it is not configured by itself; see config.PassThrough.
	Guest bool
	// Session is the cloud side.
	Session upstream.Summary
	// Local is the LAN side.
	Local broker.DeviceStatus
	// Up and Down are the ledgers of the two directions, UpBegan and DownBegan what they were when the device was made.
	Up, Down           lane.Counters
	UpBegan, DownBegan lane.Counters
}

// DeviceStatus is how a device is.
type DeviceStatus struct {
	Name  string
	Cloud string
	Guest bool
	// Session is the cloud side.
	Session upstream.Status
	// Local is the LAN side.
	Local broker.DeviceStatus
	// Up and Down are the ledgers of the two directions.
	Up, Down lane.Counters
	// Queue are their bounds.
	Queue config.Queue
	// CloudCertificate and ClientCertificate are when they expire, zero if there is none, or none was seen yet.
	CloudCertificate, ClientCertificate time.Time
}

// Status tells how all devices are, in the order of the configuration.
func (b *Bridge) Status() []DeviceStatus {
	devices := b.all()
	all := make([]DeviceStatus, len(devices))
	for i, d := range devices {
		all[i] = b.status(d)
	}
	return all
}

// Summaries tells how all devices are, in the order of the configuration. It holds no lock for longer than one device
// takes.
func (b *Bridge) Summaries() []DeviceSummary {
	all := make([]DeviceSummary, 0, len(b.all()))
	b.EachSummary(func(s *DeviceSummary) { all = append(all, *s) })
	return all
}

// EachSummary is Summaries one by one, which takes no memory. What f is called with is another device's afterwards.
func (b *Bridge) EachSummary(f func(*DeviceSummary)) {
	s := new(DeviceSummary)
	for _, d := range b.all() {
		*s = DeviceSummary{
			Name: d.cfg.Name, Cloud: d.cfg.Cloud.Name, Guest: guestOf(d) != nil, Session: d.worker.Summary(),
			Up: d.up.Counters(), Down: d.down.Counters(), UpBegan: d.began[lane.Up], DownBegan: d.began[lane.Down],
		}
		s.Local, _ = b.broker.DeviceStatus(d.cfg.Name)
		f(s)
	}
}

// DeviceStatus tells how one device is. ok is false if there is none of that name.
func (b *Bridge) DeviceStatus(name string) (st DeviceStatus, ok bool) {
	d := b.find(name)
	if d == nil {
		return DeviceStatus{}, false
	}
	return b.status(d), true
}

func (b *Bridge) status(d *device) DeviceStatus {
	st := DeviceStatus{
		Name: d.cfg.Name, Cloud: d.cfg.Cloud.Name, Guest: guestOf(d) != nil, Session: d.worker.Status(),
		Up: d.up.Counters(), Down: d.down.Counters(), Queue: d.cfg.Queue,
		CloudCertificate: d.parts.cloud.dialer.CertificateExpires(),
	}
	st.Local, _ = b.broker.DeviceStatus(d.cfg.Name)
	if pair := d.parts.target.Certificate; pair != nil {
		st.ClientCertificate = pair.Expires()
	}
	return st
}

// Overview is how the bridge is as a whole.
type Overview struct {
	// Serving says that devices may connect; otherwise it has not begun, or is on its way down, which Stopping says.
	Serving, Stopping bool
	Listen            []net.Addr
	Clouds            []CloudStatus // by name
	Spool             lane.SpoolStatus
	// MemoryUsed and MemoryLimit are of all queues together, in bytes.
	MemoryUsed, MemoryLimit int64
	Connections             broker.Counters
	MaxConnections          int
	Dials                   governor.Counts
	Clock                   clock.State
	Failures                []FailureCount // by cloud and kind
	Unclaimed               []Leftover
	ClientCertificates      []CertificateStatus // by file
}

// CloudStatus is how a cloud is.
type CloudStatus struct {
	Name     string
	Provider string
	Endpoint string // scheme, host and port
	// Certificate is when the one that the cloud has shown last expires, zero if none was seen yet.
	Certificate time.Time
}

// FailureCount is how often something has gone wrong since the start.
type FailureCount struct {
	Cloud string
	Kind  failure.Kind
	Count uint64
}

// CertificateStatus is when a client certificate expires.
type CertificateStatus struct {
	File    string
	Expires time.Time
}

// Overview tells how the bridge is.
func (b *Bridge) Overview() Overview {
	cfg := b.config()
	o := Overview{
		Stopping: b.stopping.Err() != nil, Listen: b.Addrs(), Spool: b.spool.Status(),
		MemoryUsed: b.memory.Used(), MemoryLimit: cfg.Limits.Memory,
		Connections: b.broker.Counters(), MaxConnections: cfg.Limits.MaxConnections,
		Dials: b.governor.Stats().Counts, Clock: b.clock.State(), Failures: b.tally.list(), Unclaimed: b.Unclaimed(),
	}
	select {
	case <-b.started:
		o.Serving = !o.Stopping
	default:
	}
	expires, pairs := b.clouds.expiry()
	for _, name := range slices.Sorted(maps.Keys(cfg.Clouds)) {
		c := cfg.Clouds[name]
		o.Clouds = append(o.Clouds, CloudStatus{
			Name: name, Provider: c.Provider, Endpoint: c.URL.Scheme + "://" + c.URL.Host, Certificate: expires[name],
		})
	}
	o.ClientCertificates = pairs
	return o
}

// expiry is when certificates expire: the clouds' by name, as far as they were seen, and the clients'.
func (c *clouds) expiry() (clouds map[string]time.Time, clients []CertificateStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clouds = make(map[string]time.Time)
	for _, made := range c.made {
		if at := made.dialer.CertificateExpires(); !at.IsZero() {
			clouds[made.cfg.Name] = at
		}
	}
	for files, pair := range c.pairs {
		clients = append(clients, CertificateStatus{File: files.CertFile, Expires: pair.Expires()})
	}
	slices.SortFunc(clients, func(x, y CertificateStatus) int { return strings.Compare(x.File, y.File) })
	return clouds, slices.CompactFunc(clients, func(x, y CertificateStatus) bool { return x.File == y.File })
}

// tally counts failures. There are as many of its keys as there are clouds and kinds.
type tally struct {
	mu     sync.Mutex // protects the following field
	counts map[tallyKey]uint64
}

type tallyKey struct {
	cloud string
	kind  failure.Kind
}

// of returns what counts the failures of a cloud.
func (t *tally) of(cloud string) func(*failure.Failure) {
	return func(f *failure.Failure) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.counts[tallyKey{cloud, f.Kind}]++
	}
}

func (t *tally) list() []FailureCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]FailureCount, 0, len(t.counts))
	for k, n := range t.counts {
		list = append(list, FailureCount{Cloud: k.cloud, Kind: k.kind, Count: n})
	}
	slices.SortFunc(list, func(x, y FailureCount) int {
		if c := strings.Compare(x.Cloud, y.Cloud); c != 0 {
			return c
		}
		return strings.Compare(string(x.Kind), string(y.Kind))
	})
	return list
}
