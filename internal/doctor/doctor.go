package doctor

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"bridged/internal/bridge"
	"bridged/internal/clock"
	"bridged/internal/config"
	"bridged/internal/governor"
	"bridged/internal/transport"
)

// Options of a Doctor.
type Options struct {
	// TakeOver says to connect even if that ends the session of a bridged that runs.
	TakeOver bool
	// Clock is nil for one of its own.
	Clock *clock.Clock

	// For tests: how to connect, how long answers may take, and to leave a session that was made.
	tune     func(*transport.Options)
	patience patience
	keep     bool
}

// patience is how long the cloud may take to answer.
type patience struct{ connack, others time.Duration }

// Doctor examines devices of a configuration.
type Doctor struct {
	cfg      *config.Config
	opts     Options
	clock    *clock.Clock
	governor *governor.Governor

	mu      sync.Mutex // protects the following fields
	dialers map[*config.Cloud]*transport.Dialer
}

// New returns a Doctor. It connects to nothing.
func New(cfg *config.Config, o Options) *Doctor {
	if o.Clock == nil {
		o.Clock = clock.New(clock.Config{})
	}
	if o.patience == (patience{}) {
		o.patience = patience{15 * time.Second, 10 * time.Second}
	}
	return &Doctor{
		cfg: cfg, opts: o, clock: o.Clock, governor: governor.New(bridge.DialLimits(cfg.Limits)),
		dialers: make(map[*config.Cloud]*transport.Dialer),
	}
}

// Examine examines a device. tell, which may be nil, is called after each step.
func (d *Doctor) Examine(ctx context.Context, dev *config.Device, tell func(Step)) *Report {
	w := newWalk(d, dev, tell)
	w.run(ctx)
	return w.done()
}

// ExamineAll examines all devices, many at once, and returns the reports in their order. tell, which may be nil, is
// called after each examination, one call at a time. When ctx ends, the rest is not examined and has no report.
func (d *Doctor) ExamineAll(ctx context.Context, tell func(*Report)) []*Report {
	reports := make([]*Report, len(d.cfg.Devices))
	next := make(chan int)
	var mu sync.Mutex // tell's
	var workers sync.WaitGroup
	for range min(len(reports), d.cfg.Limits.DialsAtOnce) {
		workers.Go(func() {
			for i := range next {
				r := d.Examine(ctx, d.cfg.Devices[i], nil)
				if ctx.Err() != nil {
					continue
				}
				mu.Lock()
				reports[i] = r
				if tell != nil {
					tell(r)
				}
				mu.Unlock()
			}
		})
	}
	for i := range reports {
		next <- i
	}
	close(next)
	workers.Wait()
	return reports
}

// dialer is the one of a cloud.
func (d *Doctor) dialer(c *config.Cloud) (*transport.Dialer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if made := d.dialers[c]; made != nil {
		return made, nil
	}
	options := bridge.DialOptions(c, d.clock, zap.NewNop())
	if d.opts.tune != nil {
		d.opts.tune(&options)
	}
	made, err := transport.New(options)
	if err == nil {
		d.dialers[c] = made
	}
	return made, err
}
