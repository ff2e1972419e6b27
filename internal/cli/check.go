package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func newCheck(o *options) *cobra.Command {
	var online, asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration",
		Long: `check reads the configuration and everything it refers to, prints every fault with its
place and remedy, and exits with 2 if there is any. It connects to nothing.

With --online it also has each device connect to its cloud, as "bridged doctor" does, many at once within the limits of
the clouds, and prints which do not get through and why. Then it exits with 1 if there are any.`,
		Example: `  bridged check
  bridged check -c config.yaml
  bridged check --online
  bridged check --online --json`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && !online {
				return misused(errors.New("--json is for --online"), "write both")
			}
			cfg, err := o.load()
			if err != nil {
				return err
			}
			for _, w := range cfg.Warnings {
				printLine(cmd.ErrOrStderr(), "warning", w.String())
			}
			if asJSON {
				return o.checkOnline(cmd, cfg, true)
			}
			devices := count(len(cfg.Devices), "device")
			if n := len(cfg.PassThrough); n > 0 {
				devices += ", " + count(n, "pass-through") + " (any device from its addresses)"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s, %s\n", cfg.File,
				devices, count(len(cfg.Clouds), "cloud"), count(len(cfg.Warnings), "warning"))
			if online {
				return o.checkOnline(cmd, cfg, false)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&online, "online", false, "also have each device connect to its cloud")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what --online finds as JSON")
	return cmd
}

// count says how many there are of something.
func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
