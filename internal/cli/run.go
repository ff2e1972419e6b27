package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"bridged/internal/bridge"
	"bridged/internal/config"
)

func newRun(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the bridge",
		Long: `run is the bridge itself, for a service manager or a terminal. It logs to standard error.

SIGTERM and SIGINT end it in order: devices are let go, and what they sent is delivered for at most shutdown_timeout. A
second one ends it at once. SIGHUP changes nothing yet: restart bridged to have it read its configuration again.`,
		Example: `  bridged run
  bridged run -c config.yaml`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			log := newLogger(cmd.ErrOrStderr(), cfg.Log)
			return untilSignal(cmd.Context(), endings, func(ctx context.Context) error { return runBridge(ctx, cfg, log) })
		},
	}
}

// runBridge runs the bridge until ctx ends.
func runBridge(ctx context.Context, cfg *config.Config, log *zap.Logger) error {
	defer takeSignals(log)()
	for _, w := range cfg.Warnings {
		log.Warn("the configuration can be improved", zap.Stringer("problem", w))
	}
	log.Info("starting", zap.String("config", cfg.File), zap.Int("pid", os.Getpid()))
	b, err := bridge.New(cfg, log, bridge.Options{})
	if err != nil {
		return explainStart(err)
	}
	return b.Run(ctx)
}

// takeSignals takes the signals that would otherwise end the process: SIGHUP, and SIGPIPE, which comes when the reader
// of the log has gone. The returned function ends that.
func takeSignals(log *zap.Logger) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGPIPE)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				if s == syscall.SIGHUP {
					log.Warn("SIGHUP does not reload the configuration: restart bridged for that")
				}
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
		<-ended
	}
}

// newLogger logs to w as the configuration says.
func newLogger(w io.Writer, c config.Log) *zap.Logger {
	keys := zapcore.EncoderConfig{
		TimeKey: "time", LevelKey: "level", NameKey: "logger", MessageKey: "msg",
		EncodeTime:     zapcore.TimeEncoderOfLayout("2006-01-02T15:04:05.000Z07:00"), // RFC 3339
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.StringDurationEncoder,
	}
	encoder := zapcore.NewConsoleEncoder(keys)
	if c.JSON {
		encoder = zapcore.NewJSONEncoder(keys)
	}
	sink := zapcore.Lock(zapcore.AddSync(w))
	return zap.New(zapcore.NewCore(encoder, sink, c.Level), zap.ErrorOutput(sink))
}
