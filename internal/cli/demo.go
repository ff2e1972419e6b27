package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"bridged/internal/demo"
)

// newDemo builds the command. tune may change what it runs, for tests; it may be nil.
func newDemo(o *options, tune func(*demo.Options)) *cobra.Command {
	var d demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the bridge at work, with simulated clouds and devices",
		Long: `demo runs everything in one process, without a cloud account: simulated clouds on loopback over secure and
plain WebSocket, the bridge with a real configuration, and three virtual devices that send telemetry and obey commands.
It tells what happens, one line an event, where the status page is, and how to join in with mosquitto_pub and
mosquitto_sub. Now and then a cloud cannot be reached: what devices send meanwhile waits.

In the end it accounts for every message and exits with 1 if one was lost, repeated without cause or out of order, or if
the bridge broke a rule of a cloud.`,
		Example: `  bridged demo
  bridged demo --for 10s
  bridged demo --dir ./demo    # keeps the configuration, to begin your own with`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("config") {
				return misused(errors.New("demo has a configuration of its own"),
					"to try yours against simulated clouds: bridged sim -c "+o.configFile)
			}
			if cmd.Flags().Changed("for") && d.For <= 0 {
				return misused(fmt.Errorf("--for %s is no time to send messages for", d.For), "write for example --for 10s")
			}
			if d.Listen != "" {
				if err := checkAddress("listen", d.Listen, "127.0.0.1:1883"); err != nil {
					return err
				}
			}
			info, _ := debug.ReadBuildInfo() // nil if built without modules
			d.Version = readBuild(info).Version
			d.Out = cmd.OutOrStdout()
			d.Style = styleOf(d.Out, o.lookupEnv)
			if tune != nil {
				tune(&d)
			}
			err := untilSignal(cmd.Context(), terminalEndings, func(ctx context.Context) error { return demo.Run(ctx, d) })
			var faults *demo.FaultsError
			if errors.As(err, &faults) {
				return failed(err, "they are listed above")
			}
			return explainStart(err)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&d.For, "for", 0, "end by itself after this `time`, with the exit status")
	f.StringVar(&d.Listen, "listen", "", "`address` where the bridge accepts devices\n"+
		"(default 127.0.0.1:1883, or a free port if that one is taken)")
	f.StringVar(&d.Dir, "dir", "", "write the configuration into this `directory` and keep it")
	f.BoolVar(&d.Calm, "calm", false, "no outages")
	f.BoolVarP(&d.Verbose, "verbose", "v", false, "show what the bridge logs, not only warnings")
	_ = cmd.MarkFlagDirname("dir") // fails for unknown flags only
	for _, name := range []string{"for", "listen"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // likewise
	}
	return cmd
}
