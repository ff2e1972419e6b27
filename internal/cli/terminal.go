package cli

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// promptHidden asks for a line on a terminal without showing what is typed.
func promptHidden(tty *os.File, prompts io.Writer, prompt string) ([]byte, error) {
	fd := int(tty.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("read the terminal's state: %w", err)
	}
	defer restoreOnSignal(fd, state)()
	fmt.Fprint(prompts, prompt)
	line, err := term.ReadPassword(fd)
	fmt.Fprintln(prompts)
	if err != nil {
		return nil, fmt.Errorf("read from the terminal: %w", err)
	}
	return line, nil
}

// restoreOnSignal sees to it that a terminal whose echo is off does not stay so when the process is ended by a signal
// meanwhile. The returned function ends that.
func restoreOnSignal(fd int, state *term.State) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-done:
		case s := <-signals:
			_ = term.Restore(fd, state)
			// Now as if nobody had listened: whoever started the process sees that a signal ended it.
			signal.Reset(s)
			if self, err := os.FindProcess(os.Getpid()); err == nil {
				_ = self.Signal(s)
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
		<-ended
	}
}
