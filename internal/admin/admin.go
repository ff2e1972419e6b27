package admin

import (
	"context"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"bridged/internal/bridge"
)

// Source is the bridge that is shown.
type Source interface {
	Overview() bridge.Overview
	// Summaries are all devices in the order of the configuration.
	Summaries() []bridge.DeviceSummary
	EachSummary(f func(*bridge.DeviceSummary))
	DeviceStatus(name string) (bridge.DeviceStatus, bool)
	// Stuck names what has made no progress for longer than limit.
	Stuck(limit time.Duration) []string
}

// Options are what an Admin needs.
type Options struct {
	Source Source
	// Version and Revision are what was built. Revision may be empty.
	Version, Revision string
	// DeviceMetrics is for how many devices, at most, there are metrics of their own. 0 is for none.
	DeviceMetrics int
	// PProf turns on /debug/pprof/.
	PProf bool
	// Page answers what nothing else does, nil for nothing. It gets GET and HEAD only.
	Page http.Handler
	Log  *zap.Logger
}

// Admin shows how a bridge is. See the package comment.
type Admin struct {
	opts    Options
	started time.Time
	sampler *sampler
	events  *events
	mux     *http.ServeMux
	beat    atomic.Int64 // when Run looked at all devices last, in nanoseconds since started
}

// New returns an Admin. Its rates and events need Run.
func New(o Options) *Admin {
	now := time.Now()
	a := &Admin{opts: o, started: now, sampler: newSampler(o.Source, now), events: newEvents(), mux: http.NewServeMux()}
	a.mux.HandleFunc("/healthz", a.healthz)
	a.mux.HandleFunc("/readyz", a.readyz)
	a.mux.Handle("/metrics", a.metrics())
	a.mux.HandleFunc("/api/v1/status", a.status)
	a.mux.HandleFunc("/api/v1/devices", a.devices)
	a.mux.HandleFunc("/api/v1/devices/{name...}", a.device)
	a.mux.HandleFunc("/api/v1/events", a.stream)
	a.mux.HandleFunc("/api/v1/openapi.yaml", openAPI)
	a.mux.HandleFunc("/api/", notFound)
	if o.PProf {
		a.mux.HandleFunc("/debug/pprof/", pprof.Index)
		a.mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		a.mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		a.mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		a.mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	if o.Page != nil {
		a.mux.Handle("/", o.Page)
	} else {
		a.mux.HandleFunc("/", notFound)
	}
	return a
}

// Handler answers whoever may ask everything. Guard is for others.
func (a *Admin) Handler() http.Handler { return readOnly(a.mux) }

// tickEvery is how often events are sent, if anybody listens.
const tickEvery = time.Second

// Run looks at the devices now and then, until ctx ends. Then it ends all streams of events.
func (a *Admin) Run(ctx context.Context) {
	defer a.events.end()
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	var looked time.Time
	for {
		if now := time.Now(); a.events.wanted() || now.Sub(looked) >= rateWindow {
			looked = now
			a.tick()
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// tick looks at all devices and tells who listens what has changed.
func (a *Admin) tick() {
	if !a.events.wanted() {
		a.sampler.glance()
		a.beat.Store(int64(time.Since(a.started)))
		a.events.forget()
		return
	}
	all, current := a.sampler.look()
	a.beat.Store(int64(time.Since(a.started)))
	devices := make([]DeviceSummary, len(all))
	for i := range all {
		devices[i] = summary(&all[i], current[all[i].Name])
	}
	a.events.publish(a.overview(devices), devices)
}
