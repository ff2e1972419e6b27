package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// shells are those that cobra writes completion scripts for.
var shells = []string{"bash", "zsh", "fish", "powershell"}

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion " + strings.Join(shells, "|"),
		Short: "Print a completion script for a shell",
		Long: `completion prints a script that teaches a shell to complete commands, flags and the names
of devices. Devices are read from the configuration, so it must be readable for whoever
completes.`,
		Example: `  source <(bridged completion bash)
  bridged completion bash > /etc/bash_completion.d/bridged
  bridged completion zsh > "${fpath[1]}/_bridged"
  bridged completion fish > ~/.config/fish/completions/bridged.fish
  bridged completion powershell | Out-String | Invoke-Expression`,
		Args:                  takes("SHELL"),
		ValidArgs:             shells,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(shells, args[0]) {
				return misused(fmt.Errorf("no completion for %q", args[0]), "write one of "+strings.Join(shells, ", "))
			}
			return writeCompletion(cmd.Root(), args[0], cmd.OutOrStdout())
		},
	}
}

func writeCompletion(root *cobra.Command, shell string, w io.Writer) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(w, true)
	case "zsh":
		return root.GenZshCompletion(w)
	case "fish":
		return root.GenFishCompletion(w, true)
	}
	return root.GenPowerShellCompletionWithDesc(w)
}
