package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"bridged/internal/cloudsim"
	"bridged/internal/demo"
)

func newSim(o *options) *cobra.Command {
	var s demo.SimOptions
	only := map[cloudsim.Kind]*bool{}
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Run simulated clouds, to try a configuration or a firmware",
		Long: `sim runs simulated clouds and prints what happens in them: logins and why they were refused, subscriptions,
messages, and what breaks a rule of the cloud that is simulated. They check signatures and keep to limits as the vendors
document them.

With -c it takes clouds, devices and secrets from that configuration and says what to change in it so that the bridge
connects to the simulated clouds instead of the real ones. Without, there are made-up devices, and a configuration for
them is written.`,
		Example: `  bridged sim
  bridged sim -c config.yaml
  bridged sim --tencent --send 5s
  bridged sim --listen 0.0.0.0:18000    # for a firmware on another machine`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("config") {
				cfg, err := o.load()
				if err != nil {
					return err
				}
				s.Config = cfg
			}
			for _, kind := range []cloudsim.Kind{cloudsim.Aliyun, cloudsim.Tencent, cloudsim.Generic} {
				if *only[kind] {
					s.Kinds = append(s.Kinds, kind)
				}
			}
			if err := checkAddress("listen", s.Listen, "127.0.0.1:18000"); err != nil {
				return err
			}
			if s.Send < 0 {
				return misused(fmt.Errorf("--send %s is no interval", s.Send), "write for example --send 5s")
			}
			if err := simDir(&s.Dir); err != nil {
				return err
			}
			s.Out = cmd.OutOrStdout()
			s.Style = styleOf(s.Out, o.lookupEnv)
			err := untilSignal(cmd.Context(), terminalEndings, func(ctx context.Context) error { return demo.Simulate(ctx, s) })
			if errors.Is(err, demo.ErrNoCloud) {
				return misused(err, "leave out --aliyun, --tencent and --generic, or name a kind that the configuration has")
			}
			return explainStart(err)
		},
	}
	f := cmd.Flags()
	only[cloudsim.Aliyun] = f.Bool("aliyun", false, "simulate Alibaba Cloud IoT Platform; without any of these three, all")
	only[cloudsim.Tencent] = f.Bool("tencent", false, "simulate Tencent Cloud IoT Hub")
	only[cloudsim.Generic] = f.Bool("generic", false, "simulate any MQTT broker")
	f.StringVar(&s.Listen, "listen", "127.0.0.1:18000",
		"`address` of the first cloud's ws port; its wss port is the next one,\n"+
			"and so on with the next cloud; port 0 for any free ports")
	f.StringVar(&s.Dir, "dir", "", "`directory` for certificates (default bridged/sim in the user's cache directory)")
	f.DurationVar(&s.Send, "send", 0, "send each device something at this `interval`, to each topic that it\n"+
		"has subscribed to")
	_ = cmd.MarkFlagDirname("dir") // fails for unknown flags only
	for _, name := range []string{"listen", "send"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // likewise
	}
	return cmd
}

// simDir fills in the default directory, and makes it absolute: people copy paths in it into configurations.
func simDir(dir *string) error {
	if *dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return failed(errors.Join(errors.New("there is no cache directory"), err), "name a directory with --dir")
		}
		*dir = filepath.Join(cache, "bridged", "sim")
	}
	abs, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	*dir = abs
	return nil
}
