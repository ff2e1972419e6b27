package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"bridged/internal/bridge"
	"bridged/internal/cloudsim"
	"bridged/internal/governor"
)

// Options are the settings of Run. Only Out is required.
type Options struct {
	Out   io.Writer
	Style Style
	// Listen is where the bridge accepts devices. Default: 127.0.0.1:1883, or another port if that one is taken.
	Listen string
	// For is how long messages are sent; 0 is until the context ends.
	For time.Duration
	// Dir is where the configuration is written and kept. Default: a temporary directory that is removed.
	Dir string
	// Version is what was built, for the status page.
	Version string
	// Calm leaves the outages out.
	Calm bool
	// Verbose shows what the bridge logs at level info, too.
	Verbose bool
	// Drain is how long the last messages have to arrive and be acknowledged. Default: 20 s.
	Drain time.Duration
	// Tamper may change a cloud before it starts. It is for tests.
	Tamper func(name string, o *cloudsim.Options)

	rhythm rhythm // for tests
}

// rhythm is how often things happen.
type rhythm struct {
	telemetry, command time.Duration // of each device
	calm, outage       time.Duration // before each trouble, and how long it lasts
}

var humanSpeed = rhythm{
	telemetry: 1500 * time.Millisecond, command: 3 * time.Second, calm: 12 * time.Second, outage: 4 * time.Second,
}

// defaultDrain leaves time for Tencent's connect rate, which alone may take five seconds of it.
const defaultDrain = 20 * time.Second

// FaultsError says that the bridge, or the demo itself, did not do what it should. The account tells what.
type FaultsError struct{ Faults int }

func (e *FaultsError) Error() string {
	if e.Faults == 1 {
		return "the demo found a fault"
	}
	return fmt.Sprintf("the demo found %d faults", e.Faults)
}

// retry is shorter than a real bridge's, so that nobody has to wait.
var retry = governor.RetryConfig{
	Policies: governor.Policies{
		governor.ClassNetwork:   {First: time.Second, Max: 2 * time.Second},
		governor.ClassThrottled: {Floor: 2 * time.Second, First: time.Second, Max: 2 * time.Second},
		governor.ClassRejected:  {Floor: 5 * time.Second, First: time.Second, Max: 2 * time.Second},
		governor.ClassProtocol:  {Floor: time.Second, First: time.Second, Max: 2 * time.Second}, // and all others
	},
	Stable: 10 * time.Second,
}

// stage is the demo at work.
type stage struct {
	opts    Options
	acct    *account
	dir     string
	file    string // the configuration
	start   time.Time
	clouds  []*simulated
	devices []*device
	apps    []*app
	bridge  *bridge.Bridge
	addr    *net.TCPAddr // where devices connect
	log     *zap.Logger
	page    net.Listener // the status page's

	mu     sync.Mutex // protects the following fields
	faults int
	first  []string // of them
}

// simulated is a running cloud.
type simulated struct {
	*cloudSpec
	*cloudsim.Cloud
	watch *watch
}

// Run plays the demo until ctx ends or Options.For is over, waits for the last messages, and prints a summary. It
// returns a *FaultsError if a message was lost, repeated without cause or out of order, or a cloud's rule was broken.
func Run(ctx context.Context, o Options) (err error) {
	if o.rhythm == (rhythm{}) {
		o.rhythm = humanSpeed
	}
	if o.Drain == 0 {
		o.Drain = defaultDrain
	}
	s := &stage{opts: o, start: time.Now()}
	s.acct = &account{style: o.Style, w: o.Out, device: len(boiler), cloud: len("aliyun wss")}
	if err := s.makeDir(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.removeDir()) }()
	defer func() {
		for _, c := range s.clouds {
			c.Close()
		}
	}()
	if s.page, err = listenPage(); err != nil {
		return err
	}
	defer func() { _ = s.page.Close() }() // showPage may have done so
	if err := s.build(); err != nil {
		return err
	}
	endPage := s.showPage()
	s.introduce()
	err = s.play(ctx)
	endPage()
	if err != nil {
		return err
	}
	s.summarise()
	if s.faults > 0 {
		return &FaultsError{Faults: s.faults}
	}
	return nil
}

func (s *stage) makeDir() (err error) {
	if s.opts.Dir == "" {
		s.dir, err = os.MkdirTemp("", "bridged-demo-")
		return err
	}
	s.dir = s.opts.Dir
	return os.MkdirAll(s.dir, 0o700)
}

func (s *stage) removeDir() error {
	if s.opts.Dir != "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// build starts the clouds, writes the configuration for them, and builds the bridge and the devices.
func (s *stage) build() error {
	set := settings{Command: "demo", Clouds: make(map[string]place)}
	for _, spec := range clouds() {
		spec.opts.NoWS, spec.opts.NoWSS = spec.secure, !spec.secure
		spec.opts.KeepReceived = keepRecords
		spec.opts.OnMessage = func(r cloudsim.Received) { s.arrived(spec, r) }
		if s.opts.Tamper != nil {
			s.opts.Tamper(spec.name, &spec.opts)
		}
		c, err := cloudsim.New(spec.opts)
		if err != nil {
			return err
		}
		running := &simulated{cloudSpec: spec, Cloud: c}
		running.watch = s.watch(running)
		s.clouds = append(s.clouds, running)
		if set.Clouds[spec.name], err = locate(c, spec, s.dir); err != nil {
			return err
		}
	}
	var err error
	if set.Listen, err = listenAddress(s.opts.Listen); err != nil {
		return err
	}
	if s.file, err = set.write(s.dir); err != nil {
		return err
	}
	cfg, err := load(s.file)
	if err != nil {
		return fmt.Errorf("the demo's own configuration: %w", err)
	}
	for _, w := range cfg.Warnings {
		s.fault("the demo's own configuration: " + w.String())
	}
	s.log = zap.New(newLogCore(s.acct, s.opts.Verbose))
	s.bridge, err = bridge.New(cfg, s.log, bridge.Options{Retry: retry})
	if err != nil {
		return err
	}
	s.addr = reachable(s.bridge.Addrs()[0])
	for _, spec := range fleet() {
		s.add(spec)
	}
	return nil
}

// add makes a virtual device and its application.
func (s *stage) add(spec *deviceSpec) {
	c := s.cloud(spec.cloud)
	book := func(dir mark) *book {
		return newBook(func(text string) { s.fault(fmt.Sprintf("%s %s %s: %s", spec.name, dir, c.label(), text)) })
	}
	a := &app{deviceSpec: spec, cloud: c.Cloud, down: book(down)}
	s.apps = append(s.apps, a)
	s.devices = append(s.devices, &device{
		deviceSpec: spec, label: c.label(), addr: s.addr.String(), acct: s.acct,
		up: book(up), down: a.down, upEpoch: a.connection,
		ready: make(chan struct{}), orders: make(chan int, 64), numbers: make(map[uint16]int),
	})
}

func (s *stage) cloud(name string) *simulated {
	for _, c := range s.clouds {
		if c.name == name {
			return c
		}
	}
	return nil
}

func (s *stage) device(name string) *device {
	for _, d := range s.devices {
		if d.name == name {
			return d
		}
	}
	return nil
}

// maxFaults is how many faults the summary repeats.
const maxFaults = 20

// fault enters something that must not happen.
func (s *stage) fault(text string) {
	s.mu.Lock()
	s.faults++
	if len(s.first) < maxFaults {
		s.first = append(s.first, text)
	}
	s.mu.Unlock()
	s.acct.print(line{device: "fault", mark: event, text: text, tone: bad})
}

const usualPort = "127.0.0.1:1883"

// listenAddress returns the address that was asked for, or the usual one, or another port if that one is taken.
func listenAddress(asked string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	l, err := net.Listen("tcp", usualPort)
	if err != nil {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "", err
		}
	}
	return l.Addr().String(), l.Close()
}

// reachable is an address that can be connected to.
func reachable(bound net.Addr) *net.TCPAddr {
	a := *bound.(*net.TCPAddr) // the bridge listens on TCP only
	if a.IP.IsUnspecified() {
		a.IP = net.IPv4(127, 0, 0, 1)
	}
	return &a
}

// introduce says what there is to see and how to join in.
func (s *stage) introduce() {
	s.acct.text("Simulated clouds, the bridge and three virtual devices in one process.\n\n")
	for _, d := range fleet() {
		c := s.cloud(d.cloud)
		s.acct.text(fmt.Sprintf("  %s ──tcp──▶ bridge ──%s──%s▶ %s %s, simulated\n",
			pad(d.name, s.acct.device), c.scheme(), strings.Repeat("─", 3-len(c.scheme())), pad(c.name, 8), c.title))
	}
	s.acct.text("\n→ is a message from a device to its cloud, ← one from the cloud to the device.\n" +
		"PUBACK says how soon the sender had its acknowledgement: the bridge gives none\n" +
		"before the far side has the message.\n\n")
	s.acct.text(fmt.Sprintf("The status page: http://%s/\n", s.page.Addr()))
	s.acct.text(fmt.Sprintf("The configuration, as you would write it (--dir keeps it):\n  %s\n", absolute(s.file)))
	client := func(program, id string) string {
		return fmt.Sprintf("  %s -h %s -p %d -i %s -u %s -P %s -q 1", program, s.addr.IP, s.addr.Port, id,
			guestLogin, guestLogin)
	}
	s.acct.text("Join in from two other terminals:\n" +
		client("mosquitto_sub", listener) + " -v -t '#'\n" +
		client("mosquitto_pub", guest) + " -t hello -m hi\n\n")
	if s.opts.For == 0 {
		s.acct.text("Ctrl-C ends.\n\n")
	}
}

// absolute is a path that may be copied into another terminal.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
