package cloudsim

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
)

// Errors of this package to branch on.
var (
	// ErrNoSession: the device is not connected and has no persistent session.
	ErrNoSession = errors.New("cloudsim: the device has no session")
	// ErrNotSubscribed: the device's session has no subscription that matches the topic.
	ErrNotSubscribed = errors.New("cloudsim: the device is not subscribed to the topic")
	// ErrOffline: the device is offline and the message is QoS 0 for it, so nothing is kept.
	ErrOffline = errors.New("cloudsim: the device is offline")
	// ErrQueueFull: the session's queue is full.
	ErrQueueFull = errors.New("cloudsim: the session's queue is full")
	// ErrBadMessage: the topic, QoS or payload cannot be published.
	ErrBadMessage = errors.New("cloudsim: cannot be published")

	errClosed = errors.New("cloudsim: closed")
)

// Cloud is one simulated cloud. Make it with New.
type Cloud struct {
	opts Options
	ca   *CA
	seed maphash.Seed
	done chan struct{}  // closed by Close
	wg   sync.WaitGroup // every goroutine of the cloud

	life   sync.Mutex // serialises Up, Down and Close
	fronts []*front

	mu         sync.Mutex // protects the following fields
	state      state
	rules      Rules
	devices    map[string]Device // by name
	logins     map[string]string // name, by what a login presents: see loginKey
	identities map[string]*identity
	tree       tree
	retained   map[string]*message
	conns      map[*conn]struct{}
	faults     faults
	rec        recorder
	changed    chan struct{} // closed at the next event, nil while nobody waits
	anonymous  int           // client ids given out so far
}

type state byte

const (
	stateUp state = iota
	stateDown
	stateClosed
)

// New binds the listeners and serves.
func New(o Options) (*Cloud, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Cloud{
		opts: o, ca: o.CA, rules: *o.Rules,
		seed:       maphash.MakeSeed(),
		done:       make(chan struct{}),
		devices:    make(map[string]Device),
		logins:     make(map[string]string),
		identities: make(map[string]*identity),
		retained:   make(map[string]*message),
		conns:      make(map[*conn]struct{}),
		rec:        newRecorder(o.KeepReceived),
	}
	if c.ca == nil {
		if c.ca, err = NewCA("cloudsim " + string(o.Kind)); err != nil {
			return nil, err
		}
	}
	for _, d := range o.Devices {
		if _, ok := c.devices[d.Name]; ok {
			return nil, fmt.Errorf("cloudsim: device %q is listed twice", d.Name)
		}
		if err := c.SetDevice(d); err != nil {
			return nil, err
		}
	}
	if err := c.listen(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends every connection and waits for all goroutines. It may be called more than once.
func (c *Cloud) Close() {
	c.life.Lock()
	c.mu.Lock()
	if c.state != stateClosed {
		c.state = stateClosed
		close(c.done)
	}
	c.wakeLocked()
	c.mu.Unlock()
	c.shut()
	c.life.Unlock() // OnMessage may be about to call Down
	c.wg.Wait()
}

// Kind is the kind of cloud.
func (c *Cloud) Kind() Kind { return c.opts.Kind }

// CA is the authority behind the server certificate and the client certificates.
func (c *Cloud) CA() *CA { return c.ca }

// Rules returns the limits in force.
func (c *Cloud) Rules() Rules {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rules
}

// SetRules changes the limits from now on.
func (c *Cloud) SetRules(r Rules) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = r
}

// SetDevice adds a device to an aliyun or tencent cloud, or replaces the one of that name. Open connections stay.
func (c *Cloud) SetDevice(d Device) error {
	if d.Product == "" {
		d.Product = c.opts.Product
	}
	if err := c.checkDevice(d); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := loginKey(c.opts.Kind, d)
	if other, ok := c.logins[key]; ok && other != d.Name {
		return fmt.Errorf("cloudsim: devices %q and %q would log in alike", other, d.Name)
	}
	if old, ok := c.devices[d.Name]; ok {
		delete(c.logins, loginKey(c.opts.Kind, old))
	}
	c.devices[d.Name] = d
	c.logins[key] = d.Name
	return nil
}

// RemoveDevice forgets a device: its next login is refused. An open connection stays, see Drop.
func (c *Cloud) RemoveDevice(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d, ok := c.devices[name]; ok {
		delete(c.logins, loginKey(c.opts.Kind, d))
		delete(c.devices, name)
	}
}

func (c *Cloud) checkDevice(d Device) error {
	switch {
	case c.opts.Kind == Generic:
		return errors.New("cloudsim: a generic cloud has no devices; use Users")
	case d.Name == "":
		return errors.New("cloudsim: a device needs a name")
	case d.Product == "":
		return fmt.Errorf("cloudsim: device %q needs a product; set it, or Options.Product", d.Name)
	case d.Certificate && c.opts.Kind != Tencent:
		return fmt.Errorf("cloudsim: device %q: only tencent has certificate devices", d.Name)
	case d.Certificate || c.opts.Kind == Aliyun:
		return nil
	}
	if _, err := tencentKey(d.Secret); err != nil {
		return fmt.Errorf("cloudsim: device %q: the secret is not base64: %w", d.Name, err)
	}
	return nil
}

// find returns the device behind a login key.
func (c *Cloud) find(key string) (Device, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.devices[c.logins[key]]
	return d, ok
}

// identityLocked returns what is remembered of a device beyond its session.
func (c *Cloud) identityLocked(device string) *identity {
	id := c.identities[device]
	if id == nil {
		id = &identity{device: device}
		c.identities[device] = id
	}
	return id
}
