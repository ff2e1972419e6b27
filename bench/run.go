package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// run is one run of a case with a subject: it plays all devices and the cloud.
type run struct {
	c        *testcase
	addr     string // of the subject
	cloud    *cloud
	devices  []*device
	up, down []*flow
	inFlight int
	began    time.Time

	ready      atomic.Int64 // devices that are
	subscribed atomic.Int64 // filters for messages to devices, at the cloud
	pings      atomic.Int64 // that the cloud got
	received   atomic.Int64 // messages
	sending    atomic.Bool  // closed loops go on
	from, to   atomic.Int64 // latencies are of messages that were sent meanwhile

	relay, acks *histogram

	running sync.WaitGroup
	mu      sync.Mutex // protects the following fields
	conns   []net.Conn
	over    bool
	err     error // what went wrong first
}

// figures are what a run measures.
type figures struct {
	throughput          float64 // messages a second
	cpuPerMessage       time.Duration
	relayP50, relayP99  time.Duration
	ackP50, ackP99      time.Duration
	diskPerMessage      float64 // bytes; negative if unknown
	load, own           float64 // cores that the subject and the bench itself kept busy
	tally               tally
	residentPerDevice   float64 // bytes, everything included
	grownPerDevice      float64 // since there was no device
	startTime, startCPU time.Duration
	idleCPU             float64 // cores
	pingsPerSecond      float64
	atEnd, atFirst      int64 // resident
	measured            time.Duration
}

func (r *run) now() time.Duration { return time.Since(r.began) }

func newRun(c *testcase) *run {
	r := &run{c: c, began: time.Now(), relay: new(histogram), acks: new(histogram), inFlight: 64}
	if c.devices <= 1000 || c.down {
		r.inFlight = 2048
	}
	r.to.Store(-1)
	for i := range c.devices {
		up, down := newFlows(uint32(i))
		r.up, r.down = append(r.up, up), append(r.down, down)
	}
	return r
}

// execute runs the case once.
func execute(ctx context.Context, c *testcase, s subject, e env, o *options) (f figures, err error) {
	r := newRun(c)
	if e.dir, err = os.MkdirTemp(o.dir, "run-"); err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(e.dir)) }()
	if s.scheme != "" {
		e.scheme = s.scheme
	}
	if r.cloud, err = newCloud(r, e.scheme, o.cert); err != nil {
		return f, err
	}
	defer r.end()
	e.cloud, e.devices, e.keepalive = r.cloud.listener.Addr().String(), c.devices, c.keepalive
	if e.listen, err = freeAddress(); err != nil {
		return f, err
	}
	r.addr = e.listen
	p, err := s.start(e)
	if err != nil {
		return f, err
	}
	defer p.stop()
	if err := r.measure(ctx, &f, p, e, o); err != nil {
		log, _ := os.ReadFile(filepath.Join(e.dir, "log")) // if there is one
		return f, fmt.Errorf("%w\n%s", err, tail(log))
	}
	return f, nil
}

func tail(log []byte) []byte { return log[max(0, len(log)-2000):] }

func (r *run) measure(ctx context.Context, f *figures, p *process, e env, o *options) (err error) {
	if err := r.until(ctx, "the subject listens", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}); err != nil {
		return err
	}
	if err := wait(ctx, 300*time.Millisecond); err != nil { // it has begun
		return err
	}
	if f.atFirst, err = p.resident(); err != nil {
		return err
	}
	if err := r.connect(ctx, f, p); err != nil {
		return err
	}
	if r.c.idle > 0 {
		if err := r.idle(ctx, f, p, e, o); err != nil {
			return err
		}
	} else if err := r.load(ctx, f, p, e, o); err != nil {
		return err
	}
	for _, flows := range [][]*flow{r.up, r.down} {
		for _, fl := range flows {
			f.tally.add(fl.result())
		}
	}
	return nil
}

// connect connects all devices at once, and waits until each has sent its first message, and can be reached.
func (r *run) connect(ctx context.Context, f *figures, p *process) error {
	before, err := p.usage()
	if err != nil {
		return err
	}
	begin := time.Now()
	r.devices = make([]*device, r.c.devices)
	turns := make(chan int)
	var dialing sync.WaitGroup
	for range 32 {
		dialing.Go(func() {
			for i := range turns {
				r.devices[i] = &device{up: r.up[i], down: r.down[i]}
				if err := r.dial(r.devices[i]); err != nil {
					r.ended(fmt.Errorf("device %d: %w", i, err))
				}
			}
		})
	}
	for i := range r.devices {
		turns <- i
	}
	close(turns)
	dialing.Wait()
	n := int64(r.c.devices)
	if err := r.until(ctx, "all devices are connected", func() bool {
		return r.ready.Load() == n && r.received.Load() >= n && r.subscribed.Load() >= r.filters()
	}); err != nil {
		return err
	}
	f.startTime = time.Since(begin)
	after, err := p.usage()
	f.startCPU = after.cpu - before.cpu
	return err
}

// filters is how many subscriptions for messages to devices the cloud should have.
func (r *run) filters() int64 {
	if r.cloud.scheme == "tcp" {
		return 1
	}
	return int64(r.c.devices)
}

// idle has devices do nothing but ping.
func (r *run) idle(ctx context.Context, f *figures, p *process, e env, o *options) error {
	ctx, cancel := context.WithCancel(ctx)
	var pinging sync.WaitGroup
	defer pinging.Wait()
	defer cancel()
	pinging.Go(func() {
		r.pace(ctx, float64(r.c.devices)/r.c.pingEvery.Seconds(), func(i int) error {
			return r.devices[i%len(r.devices)].ping()
		})
	})
	if err := wait(ctx, o.settle); err != nil {
		return err
	}
	before, err := p.usage()
	if err != nil {
		return err
	}
	own, begin, pings := ownCPU(), time.Now(), r.pings.Load()
	profiled := make(chan error, 1)
	go func() { profiled <- o.cpuProfile(ctx, e.profile, r.c.name) }()
	if err := wait(ctx, r.c.idle); err != nil {
		return err
	}
	after, err := p.usage()
	if err != nil {
		return err
	}
	took := time.Since(begin)
	f.idleCPU = (after.cpu - before.cpu).Seconds() / took.Seconds()
	f.own = (ownCPU() - own).Seconds() / took.Seconds()
	f.pingsPerSecond = float64(r.pings.Load()-pings) / took.Seconds()
	f.atEnd, err = p.resident()
	err = errors.Join(err, <-profiled, o.heapProfile(ctx, e.profile, r.c.name))
	f.residentPerDevice = float64(f.atEnd) / float64(r.c.devices)
	f.grownPerDevice = float64(f.atEnd-f.atFirst) / float64(r.c.devices)
	return errors.Join(err, r.failed())
}

// load has messages sent.
func (r *run) load(ctx context.Context, f *figures, p *process, e env, o *options) error {
	sending, stop := context.WithCancel(ctx)
	var pacing sync.WaitGroup
	defer pacing.Wait()
	defer stop()
	r.sending.Store(true)
	if r.c.window > 0 {
		for _, d := range r.devices {
			if err := d.open(d.up, r.c.window); err != nil {
				return err
			}
		}
	} else {
		send := func(i int) error { i %= len(r.devices); return r.devices[i].publish(r.up[i], 1) }
		if r.c.down {
			send = func(i int) error {
				i %= len(r.devices)
				return r.cloud.end(uint32(i)).publish(r.down[i], 1)
			}
		}
		pacing.Go(func() { r.pace(sending, r.c.rate, send) })
	}
	if err := wait(ctx, o.warm); err != nil {
		return err
	}
	before, err := p.usage()
	if err != nil {
		return err
	}
	own, begin, received := ownCPU(), time.Now(), r.received.Load()
	r.from.Store(int64(r.now()))
	r.to.Store(int64(time.Hour))
	profiled := make(chan error, 1)
	go func() { profiled <- o.cpuProfile(ctx, e.profile, r.c.name) }()
	if err := wait(ctx, o.time); err != nil {
		return err
	}
	r.to.Store(int64(r.now()))
	after, err := p.usage()
	if err != nil {
		return err
	}
	n := float64(r.received.Load() - received)
	f.measured = time.Since(begin)
	f.throughput = n / f.measured.Seconds()
	f.cpuPerMessage = time.Duration(float64(after.cpu-before.cpu) / max(n, 1))
	f.load = (after.cpu - before.cpu).Seconds() / f.measured.Seconds()
	f.own = (ownCPU() - own).Seconds() / f.measured.Seconds()
	f.diskPerMessage = -1
	if after.written >= 0 {
		f.diskPerMessage = float64(after.written-before.written) / max(n, 1)
	}
	if f.atEnd, err = p.resident(); err != nil {
		return err
	}
	f.residentPerDevice = float64(f.atEnd) / float64(r.c.devices)
	stop()
	r.sending.Store(false)
	pacing.Wait()
	if err := errors.Join(<-profiled, r.drain(ctx)); err != nil {
		return err
	}
	f.relayP50, f.relayP99 = r.relay.quantile(0.5), r.relay.quantile(0.99)
	f.ackP50, f.ackP99 = r.acks.quantile(0.5), r.acks.quantile(0.99)
	return r.failed()
}

// drain waits until everything that was sent has arrived, or nothing arrives any more.
func (r *run) drain(ctx context.Context) error {
	const patience = 3 * time.Second
	last, since := int64(-1), time.Now()
	for {
		var sent int64
		for i := range r.up {
			sent += int64(r.up[i].sent.Load()) + int64(r.down[i].sent.Load())
		}
		received := r.received.Load()
		if received != last {
			last, since = received, time.Now()
		}
		if received >= sent || time.Since(since) > patience {
			return wait(ctx, 100*time.Millisecond) // for what may come twice
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// pace calls send so many times a second, with a counter, until ctx ends.
func (r *run) pace(ctx context.Context, rate float64, send func(i int) error) {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	begin, done := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for due := int(time.Since(begin).Seconds() * rate); done < due; done++ {
			if err := send(done); err != nil {
				r.ended(fmt.Errorf("send: %w", err))
				return
			}
		}
	}
}

// arrived accounts for a message.
func (r *run) arrived(payload []byte) error {
	id, number, at, ok := stamped(payload)
	flows := r.up
	if id&downwards != 0 {
		flows, id = r.down, id&^downwards
	}
	if !ok || int(id) >= len(flows) {
		return errMalformed
	}
	f := flows[id]
	if f.arrive(number) {
		r.received.Add(1)
		if r.measured(at) {
			r.relay.add(r.now() - at)
		}
	}
	return nil
}

func (r *run) acknowledged(at time.Duration) {
	if r.measured(at) {
		r.acks.add(r.now() - at)
	}
}

func (r *run) measured(at time.Duration) bool {
	return int64(at) >= r.from.Load() && int64(at) < r.to.Load()
}

// ended records why a connection ended, unless the run is over.
func (r *run) ended(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over && r.err == nil && err != nil {
		if errors.Is(err, io.EOF) {
			err = errClosed
		}
		r.err = err
	}
}

func (r *run) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *run) track(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, c)
	if r.over {
		_ = c.Close() // too late
	}
}

// end ends all connections. The subject has ended.
func (r *run) end() {
	r.mu.Lock()
	r.over = true
	_ = r.cloud.listener.Close() // it was only open for this
	for _, c := range r.conns {
		_ = c.Close() // the same
	}
	r.mu.Unlock()
	r.running.Wait()
}

var errPatience = errors.New("not in time")

// until waits for a condition.
func (r *run) until(ctx context.Context, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errPatience)
	defer cancel()
	for !cond() {
		if err := r.failed(); err != nil {
			return fmt.Errorf("until %s: %w", what, err)
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("until %s (%d devices are ready, %d messages, %d subscriptions): %w", what, r.ready.Load(),
				r.received.Load(), r.subscribed.Load(), context.Cause(ctx))
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // it is always there
	return time.Duration(t.Nano())
}
