package broker

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"go.uber.org/zap"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
	"bridged/internal/pulse"
)

// Config is what a Broker needs. All fields are required.
type Config struct {
	Listeners []Listener
	// MaxConnections bounds all connections together, logged in or not.
	MaxConnections int
	// ConnectTimeout is from accepting a connection to a valid CONNECT, a TLS handshake included.
	ConnectTimeout time.Duration
	// MaxPacketSize bounds one packet from a device, in bytes.
	MaxPacketSize int
	// Memory is what messages from devices take that their lane has refused, nil for no limit.
	Memory  *lane.Budget
	Devices []Device
	// Guests decides about logins that none of the devices claims, nil to refuse them.
	Guests Guests
	Log    *zap.Logger
}

// Listener is a TCP address where devices connect.
type Listener struct {
	// Address is host:port.
	Address string
	// TLS is nil for plain TCP.
	TLS *tls.Config
}

// Device is one device that may log in.
type Device struct {
	Name  string // unique
	Login Login
	// Guest says that nobody logs in as this device but whom Guests has admitted. Login is not looked at.
	Guest bool
	// MaxQoS and Retain are what the cloud carries. MQTT 5 devices are told.
	MaxQoS byte
	Retain bool
	// Persistent keeps messages for the device while it is away, although it connects clean.
	Persistent bool
	// Kept is the session that the device had when an earlier process ended, nil if it had none.
	Kept *Kept

	Up       Uplink
	Marks    Marks
	Down     Downlink
	Upstream Upstream
}

// Kept is a session that was begun by an earlier process.
type Kept struct {
	Filters []string // that were granted
	// Endless says that it is kept until the device discards it, otherwise it is kept for the time that Remaining says
	// from Run on, unless the device comes.
	Endless   bool
	Remaining time.Duration
}

// Login is what a device presents. Fields that are empty are not looked at.
type Login struct {
	ClientID     string
	Username     string
	Password     string
	PasswordHash []byte // bcrypt
	// Anonymous says that neither user name nor password are looked at, whatever else is set.
	Anonymous bool
	// AllowFrom are the networks that the device may connect from.
	AllowFrom []netip.Prefix
}

// Uplink takes the device's messages; see lane.Lane. It may be offered a will while the device is away.
type Uplink interface {
	Offer(m mqtt.Message, from lane.Source, t mqtt.Token) bool
	Cork()
	Uncork()
}

// Marks are the packet identifiers of the device's QoS 2 messages that survive the process; see lane.Lane. Its methods
// do not call the broker back, except that Unmark calls done.
type Marks interface {
	// Marks returns what was stored when the process started.
	Marks() []mqtt.Mark
	// Mark adds one.
	Mark(m mqtt.Mark)
	// Unmark removes one. done is called once, on any goroutine, when that is on disk, or at once if there is none.
	Unmark(id uint16, done func())
	// ClearMarks removes all. What was offered before gets no mark any more.
	ClearMarks()
}

// Downlink holds the messages for the device; see lane.Lane.
type Downlink interface {
	Attach(c lane.Consumer, w lane.Window) *lane.Reader
	Hold(hold bool)
}

// Upstream is the device's cloud side. Calls to Connected, Disconnected and EndSession are made one at a time. None of
// the methods may block, and none may wait for the broker.
type Upstream interface {
	// Connected says that the device has connected, and with what. The Connected of one connection always comes after
	// the Disconnected of the one before.
	Connected(c mqtt.Connect)
	// Disconnected says that the device has left, and how long its session is kept now, as mqtt.Connect.Expiry has it,
	// since DISCONNECT may change that. Unless gracefully (it said DISCONNECT, or the bridge stops) its will is due.
	Disconnected(graceful bool, expiry uint32)
	// EndSession says that the session which the device had kept is over.
	EndSession()
	// Subscribe asks for filters. done is called once, on any goroutine, with the granted QoS or 0x80 for each: that is
	// for the device to know.
	Subscribe(subs []mqtt.Subscription, done func(codes []byte))
	// Unsubscribe gives filters up. done is called once, on any goroutine: the device may know.
	Unsubscribe(filters []string, done func())
}

const (
	// stall is how long a device may take nothing of what is sent to it before its connection is ended.
	stall = 30 * time.Second
	// sendLimit bounds what waits for a device that does not read, in bytes. Deliveries stop far below, at sendReady;
	// between them fit a message of the largest size and acknowledgements.
	sendLimit = 32 << 20
	// maxUnread is how much more than the largest message may wait for the device before it is not read any more: what it
	// has not read are the answers to what it sends.
	maxUnread = 1 << 20
	sendReady = 64 << 10
	// flushWithin is how long a device has to take what waits for it when the bridge stops.
	flushWithin = 500 * time.Millisecond
	// readBuffer is mochi's, in bytes: it reads nothing but CONNECT.
	readBuffer = 512
	// receiveMaximum is how many unacknowledged messages MQTT 5 devices are told to send at most.
	receiveMaximum = 1024
)

// Broker accepts devices. Its methods are safe for concurrent use.
type Broker struct {
	cfg       Config
	log       *zap.Logger
	server    *mochi.Server
	listeners []listener
	logins    *logins
	stall     time.Duration // shorter in tests
	unread    int64         // maxUnread, less in tests
	serial    atomic.Uint64 // of connections

	refusals quiet // log lines about logins
	strays   quiet // log lines about connections that never logged in

	stopped chan struct{}  // closed when listeners are
	running sync.WaitGroup // links
	timers  sync.WaitGroup // that are set or at work

	changing sync.Mutex // held while the devices are changed, and while Run begins and ends; taken before others
	serving  bool       // protected by changing; Run has begun
	over     bool       // the same; Run ends

	mu      sync.Mutex // protects the following fields, and MaxConnections and ConnectTimeout of cfg
	devices map[string]*device
	order   []*device // of the configuration
	links   map[*link]struct{}
	full    bool // connections are being turned away
	count   Counters
}

// New checks the configuration and binds the listeners. It starts nothing: after New, Run must be called, if only with
// a context that has ended, to close them.
func New(cfg Config) (*Broker, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	b := &Broker{
		cfg:     cfg,
		log:     cfg.Log,
		stall:   stall,
		unread:  maxUnread,
		stopped: make(chan struct{}),
		links:   make(map[*link]struct{}),
	}
	var err error
	if b.logins, err = newLogins(); err != nil {
		return nil, err
	}
	if err := b.SetDevices(cfg.Devices); err != nil {
		return nil, err
	}
	b.cfg.Devices = nil // they are in devices, as long as they are there
	if b.server, err = newServer(cfg.MaxPacketSize); err != nil {
		return nil, err
	}
	if b.listeners, err = listen(cfg.Listeners); err != nil {
		return nil, err
	}
	return b, nil
}

// newServer makes a mochi server that is never served: connections are handed to it one by one, and its event loop
// would only look after things that it is not allowed to have. What it logs is discarded, because it logs whole
// packets.
func newServer(maxPacket int) (*mochi.Server, error) {
	capabilities := mochi.NewDefaultServerCapabilities()
	capabilities.MaximumPacketSize = uint32(maxPacket)
	capabilities.MaximumClientWritesPending = 1 // of a queue that is not used
	capabilities.ReceiveMaximum = receiveMaximum
	capabilities.TopicAliasMaximum = 0
	capabilities.SharedSubAvailable = 0
	capabilities.SubIDAvailable = 0
	capabilities.Compatibilities.NoInheritedPropertiesOnAck = true
	server := mochi.New(&mochi.Options{
		Capabilities:            capabilities,
		ClientNetReadBufferSize: readBuffer,
		Logger:                  slog.New(slog.DiscardHandler),
	})
	return server, server.AddHook(&hook{}, nil)
}

// device returns the device of a name, nil if there is none.
func (b *Broker) device(name string) *device {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.devices[name]
}

// Addrs are the addresses that were bound, in the order of the configuration.
func (b *Broker) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(b.listeners))
	for i, l := range b.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Pulses are those of the goroutines that accept connections while Run does.
func (b *Broker) Pulses() []*pulse.Pulse {
	all := make([]*pulse.Pulse, len(b.listeners))
	for i, l := range b.listeners {
		all[i] = l.pulse
	}
	return all
}

// Run accepts devices until ctx ends. Then it closes the listeners, lets the devices go, and returns when everything
// has ended. It may be called once.
func (b *Broker) Run(ctx context.Context) error {
	b.changing.Lock()
	b.serving = true
	for _, d := range b.all() {
		d.resume()
	}
	b.changing.Unlock()
	var accepting sync.WaitGroup
	for _, l := range b.listeners {
		accepting.Go(func() { b.accept(l) })
	}
	<-ctx.Done()
	close(b.stopped)
	for _, l := range b.listeners {
		if err := l.Close(); err != nil {
			b.log.Warn("closing a listener failed", zap.Stringer("listen", l.Addr()), zap.NamedError("err", err))
		}
	}
	accepting.Wait()
	b.endLinks()
	b.running.Wait()
	b.changing.Lock()
	b.over = true
	for _, d := range b.all() {
		d.stop()
	}
	b.changing.Unlock()
	b.timers.Wait()
	return nil
}

// all is a snapshot of the devices.
func (b *Broker) all() []*device {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.order // never changed, only replaced
}

// SetLimits changes what New took from Config. Connections beyond the new maximum stay.
func (b *Broker) SetLimits(maxConnections int, connectTimeout time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cfg.MaxConnections, b.cfg.ConnectTimeout = maxConnections, connectTimeout
}

func (b *Broker) connectTimeout() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cfg.ConnectTimeout
}

func (b *Broker) endLinks() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.links {
		l.end(shutdown)
	}
}

// after calls f on a goroutine of its own, unless the timer is cancelled.
func (b *Broker) after(d time.Duration, f func()) *time.Timer {
	b.timers.Add(1)
	return time.AfterFunc(d, func() {
		defer b.timers.Done()
		f()
	})
}

// cancel stops a timer of after. It may have fired already.
func (b *Broker) cancel(t *time.Timer) {
	if t != nil && t.Stop() {
		b.timers.Done()
	}
}
