package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration",
		Long: `check reads the configuration and everything it refers to, prints every fault with its
place and remedy, and exits with 2 if there is any. It connects to nothing.`,
		Example: `  bridged check
  bridged check -c config.yaml`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			for _, w := range cfg.Warnings {
				printLine(cmd.ErrOrStderr(), "warning", w.String())
			}
			devices := count(len(cfg.Devices), "device")
			if n := len(cfg.PassThrough); n > 0 {
				devices += ", " + count(n, "pass-through") + " (any device from its addresses)"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s, %s\n", cfg.File,
				devices, count(len(cfg.Clouds), "cloud"), count(len(cfg.Warnings), "warning"))
			return nil
		},
	}
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
