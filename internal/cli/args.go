package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bridged/internal/config"
)

// knownCommand is the root's check of its arguments, which are never commands: those would not come here.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return unknownCommand(root, args[0])
}

func unknownCommand(root *cobra.Command, name string) error {
	hint := didYouMean(root.SuggestionsFor(name))
	if hint == "" {
		hint = `"bridged help" lists the commands`
	}
	return misused(fmt.Errorf("unknown command %q", name), hint)
}

// badFlag turns a flag's error into ours.
func badFlag(cmd *cobra.Command, err error) error {
	// An unknown command's flags are looked for at the root: then the command is what is wrong.
	if !cmd.HasParent() && cmd.Flags().NArg() > 0 {
		return unknownCommand(cmd, cmd.Flags().Arg(0))
	}
	return misused(err, describe(cmd))
}

// takes checks that a command's arguments are exactly the named ones.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return misused(fmt.Errorf("missing %s", strings.Join(names[len(args):], " ")), describe(cmd))
		case len(args) > len(names):
			return misused(fmt.Errorf("unexpected argument %q", args[len(names)]), describe(cmd))
		}
		return nil
	}
}

// takesAtMost checks that a command's arguments are no more than the named ones.
func takesAtMost(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return misused(fmt.Errorf("unexpected argument %q", args[len(names)]), describe(cmd))
		}
		return nil
	}
}

// badConfig gives an error of config.Load its exit status and, unless it lists faults with their remedies, a hint.
func badConfig(err error) error {
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		return misused(err, "")
	case errors.Is(err, fs.ErrNotExist):
		return misused(err, "write it, beginning from config.example.yaml, or name another file with -c")
	case errors.Is(err, fs.ErrPermission):
		return misused(err, "run bridged as a user who may read it, such as root or bridged")
	}
	return misused(err, "name another file with -c")
}

// didYouMean is a hint, empty if there is nothing to suggest.
func didYouMean(names []string) string {
	if len(names) == 0 {
		return ""
	}
	quoted := make([]string, len(names))
	for i, name := range slices.Sorted(slices.Values(names)) {
		quoted[i] = fmt.Sprintf("%q", name)
	}
	return "did you mean " + strings.Join(quoted, " or ") + "?"
}
