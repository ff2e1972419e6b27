package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"bridged/internal/bridge"
	"bridged/internal/config"
	"bridged/internal/systemd"
)

func newRun(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the bridge",
		Long: `run is the bridge itself, for a service manager or a terminal. It logs to standard error.
If that is the systemd journal each line has its priority there.

SIGTERM and SIGINT end it in order: devices are let go, and what they sent is delivered for at most shutdown_timeout. A
second one ends it at once. SIGHUP has it read its configuration again, like "bridged reload".`,
		Example: `  bridged run
  bridged run -c config.yaml`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			level := zap.NewAtomicLevelAt(cfg.Log.Level)
			log := newLogger(cmd.ErrOrStderr(), cfg.Log.JSON, level, isJournal(cmd.ErrOrStderr(), o.lookupEnv))
			return untilSignal(cmd.Context(), endings, func(ctx context.Context) error {
				return o.runBridge(ctx, cfg, log, level)
			})
		},
	}
}

// runBridge runs the bridge until ctx ends.
func (o *options) runBridge(ctx context.Context, cfg *config.Config, log *zap.Logger, level zap.AtomicLevel) error {
	hangups, ignore := takeSignals()
	defer ignore()
	for _, w := range cfg.Warnings {
		log.Warn("the configuration can be improved", zap.Stringer("problem", w))
	}
	log.Info("starting", zap.String("config", cfg.File), zap.Int("pid", os.Getpid()))
	manager := systemd.New(log)
	manager.Status("opening what is stored in " + cfg.StateDir)
	door, err := listenAdmin(cfg.Admin, log)
	if err != nil {
		return explainStart(err)
	}
	b, err := bridge.New(cfg, log, bridge.Options{})
	if err != nil {
		if door != nil {
			_ = door.Close()
		}
		return explainStart(err)
	}
	r := &reloader{options: o, file: cfg.File, bridge: b, manager: manager, log: log, level: level}
	a := newAdmin(cfg.Admin, b, log)
	helping, stopHelping := context.WithCancel(context.Background())
	var helpers sync.WaitGroup
	helpers.Go(func() { r.follow(helping, hangups) })
	helpers.Go(func() { a.Run(helping) })
	helpers.Go(func() { r.answer(helping, cfg.StateDir, a.Handler()) })
	if door != nil {
		helpers.Go(func() { serveAdmin(helping, a, door, cfg.Admin, log) })
	}
	helpers.Go(func() { tellManager(ctx, helping, b, manager) })
	helpers.Go(func() {
		select {
		case <-ctx.Done():
		case <-helping.Done():
		}
		manager.Stopping(b.StopsWithin())
	})
	helpers.Go(func() { manager.Feed(helping, b.Stuck) })
	err = b.Run(ctx)
	stopHelping()
	helpers.Wait()
	return err
}

// tellManager tells the service manager how the bridge is, until ended ends. The bridge runs until ctx ends.
func tellManager(ctx, ended context.Context, b *bridge.Bridge, m *systemd.Manager) {
	select {
	case <-b.Started():
	case <-ended.Done():
		return
	}
	m.Ready()
	m.Follow(ended, func() string {
		line := b.Summary().String()
		if ctx.Err() != nil {
			line = "stopping: " + line
		}
		return line
	})
}

// takeSignals takes the signals that would otherwise end the process: SIGHUP, and SIGPIPE, which comes when the reader
// of the log has gone. Of many that come at once the channel gets at least one. The returned function ends that.
func takeSignals() (hangups <-chan os.Signal, stop func()) {
	hup, pipe := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(pipe, syscall.SIGPIPE)
	return hup, func() {
		signal.Stop(hup)
		signal.Stop(pipe)
	}
}

// newLogger logs to w, in JSON or for people. To the journal each line says its priority.
func newLogger(w io.Writer, json bool, level zapcore.LevelEnabler, journal bool) *zap.Logger {
	keys := zapcore.EncoderConfig{
		TimeKey: "time", LevelKey: "level", NameKey: "logger", MessageKey: "msg",
		EncodeTime:     zapcore.TimeEncoderOfLayout("2006-01-02T15:04:05.000Z07:00"), // RFC 3339
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.StringDurationEncoder,
	}
	encoder := zapcore.NewConsoleEncoder(keys)
	if json {
		encoder = zapcore.NewJSONEncoder(keys)
	}
	if journal {
		encoder = prioritised{encoder}
	}
	sink := zapcore.Lock(zapcore.AddSync(w))
	return zap.New(zapcore.NewCore(encoder, sink, level), zap.ErrorOutput(sink))
}
