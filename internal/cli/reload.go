package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bridged/internal/config"
	"bridged/internal/control"
)

// reloadWithin is how long a reload may take: it waits some seconds for clouds that are slow.
const reloadWithin = time.Minute

func newReload(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the running bridge read its configuration again",
		Long: `reload has the bridge that is running read its configuration again, and tells what has changed.

Devices and clouds that are the same keep their sessions. A faulty configuration changes nothing: reload prints every
fault, as check does, and exits with 2. Which bridge is meant follows from the state_dir in the configuration file.`,
		Example: `  bridged reload
  bridged reload -c config.yaml`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := config.StateDir(o.configFile)
			if err != nil {
				return badConfig(err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), reloadWithin)
			defer cancel()
			done, err := control.Reload(ctx, dir)
			if err != nil {
				return explainReload(err, dir)
			}
			for _, w := range done.Warnings {
				printLine(cmd.ErrOrStderr(), "warning", w)
			}
			for _, key := range done.NeedsRestart {
				printLine(cmd.ErrOrStderr(), "warning", key+" has changed: restart bridged to have it follow that")
			}
			printReloaded(cmd.OutOrStdout(), done)
			return nil
		},
	}
}

func printReloaded(w io.Writer, r *control.Reloaded) {
	for _, part := range []struct {
		what string
		control.Difference
	}{{"device", r.Devices}, {"cloud", r.Clouds}} {
		fmt.Fprintf(w, "%ss: %d added, %d removed, %d changed, %d unchanged\n", part.what,
			len(part.Added), len(part.Removed), len(part.Changed), part.Unchanged)
		printNames(w, "added", part.Added)
		printNames(w, "removed", part.Removed)
		printNames(w, "changed", part.Changed)
	}
	for _, k := range r.Kept {
		fmt.Fprintf(w, "%s has left %s up and %d down: they are kept until it is configured again\n", k.Device,
			count(k.Up, "message"), k.Down)
	}
}

// printNames prints a list, if there is anything on it.
func printNames(w io.Writer, what string, names []string) {
	if len(names) > 0 {
		fmt.Fprintf(w, "  %s: %s\n", what, strings.Join(names, ", "))
	}
}

// explainReload makes an error with its next step of why a reload was not done.
func explainReload(err error, dir string) error {
	var refusal *control.Refusal
	switch {
	case errors.As(err, &refusal):
		if refusal.Config {
			return misused(reasons(refusal.Reasons), refusal.Hint)
		}
		return failed(refusal, refusal.Hint)
	case errors.Is(err, control.ErrNotRunning):
		return failed(fmt.Errorf("%w with state_dir %s", control.ErrNotRunning, dir),
			"start it, or name the configuration file of the one that runs with -c")
	case errors.Is(err, fs.ErrPermission):
		return failed(err, "run this as the user that bridged runs as, or as root")
	}
	return failed(err, "")
}

// reasons are errors of a configuration that another process has read.
type reasons []string

func (r reasons) Error() string { return strings.Join(r, "\n") }
