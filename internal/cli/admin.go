package cli

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"

	"go.uber.org/zap"

	"bridged/internal/admin"
	"bridged/internal/admin/page"
	"bridged/internal/bridge"
	"bridged/internal/config"
)

// listenAdmin binds the address of the status page. It returns nil if there is none, or if nobody has asked for it and
// it is taken.
func listenAdmin(cfg config.Admin, log *zap.Logger) (net.Listener, error) {
	if cfg.Listen == "" {
		return nil, nil
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", cfg.Listen)
	if err != nil && cfg.Optional {
		log.Warn("status page, API and metrics cannot be had over HTTP", zap.NamedError("err", err),
			zap.String("remedy", `set admin.listen, to another address, or to "" for none`))
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("admin.listen: %w", err)
	}
	return l, nil
}

// newAdmin makes what tells how a bridge is.
func newAdmin(cfg config.Admin, b *bridge.Bridge, log *zap.Logger) *admin.Admin {
	info, _ := debug.ReadBuildInfo() // nil if built without modules
	built := readBuild(info)
	return admin.New(admin.Options{
		Source: b, Version: built.Version, Revision: built.Revision, DeviceMetrics: cfg.DeviceMetrics, PProf: cfg.PProf,
		Page: page.Handler(), Log: log,
	})
}

// serveAdmin answers over HTTP until ctx ends.
func serveAdmin(ctx context.Context, a *admin.Admin, l net.Listener, cfg config.Admin, log *zap.Logger) {
	log.Info("status page, API and metrics can be had", zap.String("url", "http://"+l.Addr().String()))
	if err := a.Serve(ctx, l, &admin.Guard{Token: cfg.Token.Reveal()}); err != nil {
		log.Error("status page, API and metrics cannot be had any more", zap.NamedError("err", err))
	}
}
