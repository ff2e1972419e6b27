package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

var errSecondSignal = errors.New("ended at once by a second signal")

// endings are the signals that end the daemon, terminalEndings those that end what somebody watches on a terminal: that
// it was closed, and that the program which reads the output has ended, too.
var (
	endings         = []os.Signal{os.Interrupt, syscall.SIGTERM}
	terminalEndings = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE}
)

// untilSignal calls f with a context that the first signal ends, and returns its error. A second one does not wait for
// f: it goes on until the process ends, which is then soon. SIGPIPE, which comes with every write, is no second signal.
func untilSignal(ctx context.Context, which []os.Signal, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, which...)
	defer signal.Stop(signals)
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	for stopping := false; ; stopping = true {
		select {
		case err := <-ended:
			return err
		case s := <-signals:
			if stopping && s != syscall.SIGPIPE {
				return errSecondSignal
			}
			cancel()
		}
	}
}
