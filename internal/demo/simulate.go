package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"bridged/internal/cloudsim"
	"bridged/internal/config"
)

// SimOptions are the settings of Simulate. Config and Send may be left out.
type SimOptions struct {
	Out   io.Writer
	Style Style
	// Config has the clouds and devices to simulate. Without it there are made-up ones, and a configuration for them is
	// written into Dir.
	Config *config.Config
	// Kinds are the kinds of cloud to simulate; empty for all.
	Kinds []cloudsim.Kind
	// Listen is the address of the first cloud's ws port. Its wss port is the next one, and so on. Port 0 stands for any
	// free ports.
	Listen string
	// Dir is where certificates are written. They stay there.
	Dir string
	// Send is how often to send each device something to each topic that it has subscribed to; 0 is never.
	Send time.Duration
}

// simulation is a number of clouds at work.
type simulation struct {
	opts   SimOptions
	acct   *account
	ca     *cloudsim.CA
	host   string // to reach the clouds at
	clouds []*simCloud
}

// simCloud is one of them.
type simCloud struct {
	name  string
	opts  cloudsim.Options
	cfg   *config.Cloud // nil if made up
	certs []clientCert
	cloud *cloudsim.Cloud
	watch *watch
	ready chan struct{} // closed when watch is set
}

// Simulate runs simulated clouds until ctx ends, and prints what happens in them.
func Simulate(ctx context.Context, o SimOptions) error {
	s := &simulation{opts: o, acct: &account{style: o.Style, w: o.Out}}
	if o.Config != nil {
		if err := s.fromConfig(o.Config); err != nil {
			return err
		}
	} else {
		s.madeUp()
	}
	if len(s.clouds) == 0 {
		return ErrNoCloud
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	defer func() {
		for _, c := range s.clouds {
			if c.cloud != nil {
				c.cloud.Close()
			}
		}
	}()
	if err := s.start(); err != nil {
		return err
	}
	if err := s.introduce(); err != nil {
		return err
	}
	s.run(ctx)
	s.summarise()
	return nil
}

// ErrNoCloud means that none of the clouds is of the kinds that were asked for.
var ErrNoCloud = errors.New("there is no cloud to simulate")

// wants says whether a kind of cloud is to be simulated.
func (s *simulation) wants(k cloudsim.Kind) bool {
	for _, other := range s.opts.Kinds {
		if k == other {
			return true
		}
	}
	return len(s.opts.Kinds) == 0
}

// add takes a cloud in.
func (s *simulation) add(c *simCloud) {
	s.acct.cloud = max(s.acct.cloud, len([]rune(c.name))+len(" wss"))
	c.ready = make(chan struct{})
	s.clouds = append(s.clouds, c)
}

// start makes the CA and the clouds.
func (s *simulation) start() (err error) {
	if s.ca, err = cloudsim.NewCA("bridged sim"); err != nil {
		return err
	}
	if err := s.ca.WriteFile(s.caFile()); err != nil {
		return err
	}
	host, port, err := splitAddress(s.opts.Listen)
	if err != nil {
		return err
	}
	s.host = visibleHost(host)
	for i, c := range s.clouds {
		if port > 0 {
			c.opts.Addr = net.JoinHostPort(host, strconv.Itoa(port+2*i))
			c.opts.TLSAddr = net.JoinHostPort(host, strconv.Itoa(port+2*i+1))
		} else {
			c.opts.Addr, c.opts.TLSAddr = s.opts.Listen, s.opts.Listen
		}
		c.opts.CA = s.ca
		c.opts.Hosts = append(c.opts.Hosts, hostNames(host)...)
		c.opts.KeepReceived = keepRecords
		c.opts.OnMessage = func(r cloudsim.Received) { s.arrived(c, r) }
		if c.cloud, err = cloudsim.New(c.opts); err != nil {
			return fmt.Errorf("cloud %s: %w", c.name, err)
		}
		c.watch = s.watch(c)
		close(c.ready)
		if err := c.issue(s.ca, s.opts.Dir); err != nil {
			return err
		}
	}
	return nil
}

// keepRecords is how many messages and acknowledgements a cloud remembers: only until the watch has seen them.
const keepRecords = 1024

func (s *simulation) caFile() string { return filepath.Join(s.opts.Dir, "ca.pem") }

// lookAfter keeps a large fleet's watch from taking all the time.
const lookAfter = 20 * time.Millisecond

// run shows what happens until ctx ends.
func (s *simulation) run(ctx context.Context) {
	var watches, senders sync.WaitGroup
	watching, stop := context.WithCancel(context.Background())
	defer stop()
	for _, c := range s.clouds {
		watches.Go(func() { c.watch.run(watching, lookAfter) })
		if s.opts.Send > 0 {
			senders.Go(func() { s.send(ctx, c) })
		}
	}
	<-ctx.Done()
	senders.Wait()
	for _, c := range s.clouds {
		c.cloud.Close()
	}
	stop()
	watches.Wait()
}

// send sends something to every device at an interval until ctx ends.
func (s *simulation) send(ctx context.Context, c *simCloud) {
	for n := 1; pause(ctx, s.opts.Send); n++ {
		for _, session := range c.cloud.Sessions() {
			for filter, qos := range session.Subs {
				if !session.Connected || hasWildcard(filter) {
					continue
				}
				// The device may be gone by now, which is no news here.
				_ = c.cloud.Publish(session.Device, filter, fmt.Appendf(nil, `{"n":%d}`, n), qos)
			}
		}
	}
}
