package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"bridged/internal/config"
)

const defaultConfig = "/etc/bridged/config.yaml"

// options are what all subcommands share.
type options struct {
	configFile string
	lookupEnv  LookupEnv
}

func newRoot(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "bridged",
		Short: "Bridge plain MQTT devices on the LAN to their clouds over WebSocket",
		Long: `bridged lets devices that speak only plain MQTT over TCP keep sessions of their own with
their clouds, over secure WebSocket and with freshly signed credentials, and never loses a
message that it acknowledged.

Exit status: 0 fine, 1 failed, 2 the configuration or the command line is wrong.`,
		Example: `  bridged check -c config.yaml
  bridged help sign`,
		// Runs, so that unknown commands come here and not to cobra's own error.
		Args:                  knownCommand,
		RunE:                  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		DisableFlagsInUseLine: true,
		SilenceErrors:         true,
		SilenceUsage:          true,

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(badFlag)
	root.PersistentFlags().StringVarP(&o.configFile, "config", "c", defaultConfig, "configuration `file`")
	_ = root.MarkPersistentFlagFilename("config", "yaml", "yml") // fails for unknown flags only
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelp())
	root.AddCommand(
		newCheck(o),
		newCompletion(),
		newDemo(o, nil),
		newDoctor(o),
		newGenerateLogin(),
		newHashPassword(),
		newImport(o),
		newReload(o),
		newRun(o),
		newSign(o),
		newSim(o),
		newStatus(o),
		newVersion(),
	)
	return root
}

// load reads the configuration.
func (o *options) load() (*config.Config, error) {
	cfg, err := config.Load(o.configFile, config.Env{LookupEnv: o.lookupEnv})
	if err != nil {
		return nil, badConfig(err)
	}
	return cfg, nil
}

// describe is how a command names itself in hints.
func describe(cmd *cobra.Command) string {
	return fmt.Sprintf("%q tells what it takes", cmd.CommandPath()+" --help")
}
