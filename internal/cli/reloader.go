package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"

	"go.uber.org/zap"

	"bridged/internal/bridge"
	"bridged/internal/config"
	"bridged/internal/control"
	"bridged/internal/systemd"
)

// reloader has a running bridge go over to what its configuration file says now.
type reloader struct {
	*options
	file   string
	bridge *bridge.Bridge
	// manager is told of the beginning and the end.
	manager *systemd.Manager
	log     *zap.Logger
	level   zap.AtomicLevel

	mu sync.Mutex // held while reloading, so that what was read first is not taken over last
}

// follow reloads for each signal, until ctx ends.
func (r *reloader) follow(ctx context.Context, hangups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			_, _ = r.reload(ctx) // the log tells
		}
	}
}

// answer answers other processes, until ctx ends. What is not about reloading is for rest.
func (r *reloader) answer(ctx context.Context, stateDir string, rest http.Handler) {
	l, err := control.Listen(stateDir)
	if err == nil {
		err = (&control.Server{Reload: r.reload, Rest: rest}).Serve(ctx, l)
	}
	if err != nil {
		r.log.Warn(`"bridged status" and "bridged reload" do not work, SIGHUP does`, zap.NamedError("err", err))
	}
}

// reload reads the configuration and takes it over. Its error is a control.Refusal.
func (r *reloader) reload(ctx context.Context) (*control.Reloaded, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.Debug("reloading", zap.String("config", r.file))
	r.manager.Reloading()
	defer r.manager.Ready()
	cfg, err := config.Load(r.file, config.Env{LookupEnv: r.lookupEnv})
	if err != nil {
		return nil, r.refuse(badConfig(err))
	}
	if len(cfg.Devices)+len(cfg.Clouds) == 0 { // all devices would go
		return nil, r.refuse(misused(fmt.Errorf("%s is empty", cfg.File),
			"if it was being written in this moment, reload again; write files under another name, then rename them"))
	}
	changes, err := r.bridge.Reload(ctx, cfg)
	if errors.Is(err, bridge.ErrStopping) || ctx.Err() != nil {
		return nil, r.refuse(failed(err, ""))
	}
	if err != nil {
		return nil, r.refuse(misused(err, ""))
	}
	r.level.SetLevel(cfg.Log.Level)
	done := &control.Reloaded{
		Config: cfg.File, Devices: control.Difference(changes.Devices), Clouds: control.Difference(changes.Clouds),
		NeedsRestart: changes.NeedRestart,
	}
	for _, l := range changes.Left {
		done.Kept = append(done.Kept, control.Kept(l))
	}
	for _, w := range cfg.Warnings {
		done.Warnings = append(done.Warnings, w.String())
		r.log.Warn("the configuration can be improved", zap.Stringer("problem", w))
	}
	d := &done.Devices
	r.log.Info("configuration reloaded", zap.String("config", cfg.File), zap.Int("added", len(d.Added)),
		zap.Int("removed", len(d.Removed)), zap.Int("changed", len(d.Changed)), zap.Int("unchanged", d.Unchanged))
	if len(done.NeedsRestart) > 0 {
		r.log.Warn("some changes of the configuration need a restart", zap.Strings("keys", done.NeedsRestart))
	}
	return done, nil
}

// refuse logs why a reload was not done, and makes an answer of it.
func (r *reloader) refuse(err error) *control.Refusal {
	refusal := &control.Refusal{}
	var f *failure
	if errors.As(err, &f) {
		refusal.Hint, refusal.Config = f.hint, f.code == exitUsage
	}
	var faults config.Faults
	if errors.As(err, &faults) {
		for _, p := range faults {
			refusal.Reasons = append(refusal.Reasons, p.String())
		}
	} else {
		refusal.Reasons = []string{err.Error()}
	}
	if !refusal.Config {
		r.log.Info("not reloaded", zap.NamedError("err", err))
		return refusal
	}
	for _, reason := range refusal.Reasons {
		r.log.Error("the configuration is faulty: everything stays as it is", zap.String("problem", reason))
	}
	return refusal
}
