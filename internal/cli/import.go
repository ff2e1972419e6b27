package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bridged/internal/config"
	"bridged/internal/enroll"
)

func newImport(o *options) *cobra.Command {
	var dir, cloud string
	var force bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Make device files out of a list that a vendor's console exports",
		Long: `import reads a CSV file as the vendors' consoles export it: a line with the columns' names,
DeviceName, DeviceSecret and ProductKey (Alibaba) or DeviceName, Psk and ProductId (Tencent), and a line for each
device. It prints what it would make of that, and writes nothing.

With --write it makes DIR/devices.d/NAME.yaml for each device, and files below DIR/secrets that only their owner may
read for its secrets. All files are written or none. Files that exist are not overwritten without --force.

A configuration uses the devices by device_files: [devices.d/*.yaml]. Each needs a login for the LAN, at the device or
in the configuration's defaults; "bridged generate-login" makes one.`,
		Example: `  bridged import fleet.csv
  bridged import fleet.csv --cloud shanghai
  bridged import fleet.csv --write /etc/bridged
  bridged import fleet.csv --write /etc/bridged --force    # with new secrets, for example`,
		Args: takes("FILE"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"csv"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if force && dir == "" {
				return misused(errors.New("--force is for --write"), "write both")
			}
			entries, warnings, err := config.ReadList(args[0])
			if err != nil {
				return badList(err)
			}
			for _, w := range warnings {
				printLine(cmd.ErrOrStderr(), "warning", w.String())
			}
			plan, err := enroll.New(entries, args[0], cloud)
			if err != nil {
				return err
			}
			if dir == "" {
				preview(cmd.OutOrStdout(), plan)
				return nil
			}
			if err := plan.Write(dir, force); err != nil {
				return badWrite(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s written to %s\n", count(len(plan.Devices), "device"),
				filepath.Join(dir, enroll.Devices))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "write", "", "write the files below this `directory`")
	f.StringVar(&cloud, "cloud", "", "the `name` of the devices' cloud, if the list does not say it\n"+
		"(default the one with the product)")
	f.BoolVar(&force, "force", false, "overwrite files that exist")
	_ = cmd.MarkFlagDirname("write")                             // fails for unknown flags only
	_ = cmd.RegisterFlagCompletionFunc("cloud", o.completeCloud) // likewise
	return cmd
}

// completeCloud completes the name of a cloud in the configuration.
func (o *options) completeCloud(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	cfg, err := o.load()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for name := range cfg.Clouds {
		if strings.HasPrefix(name, begun) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}

// preview prints what would be made, without secrets.
func preview(w io.Writer, p *enroll.Plan) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DEVICE\tCLOUD\tPRODUCT\tFILE\tSECRETS")
	for _, d := range p.Devices {
		cloud, product := d.Cloud, d.ProductKey+d.ProductID
		if cloud == "" && product != "" {
			cloud = "by its product" // the configuration's cloud that has it
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", d.Name, orDash(cloud), orDash(product), d.File,
			orDash(strings.Join(d.Secrets, ", ")))
	}
	_ = table.Flush() // a failed write is noticed by output
	fmt.Fprintf(w, "\n%s; nothing is written without --write DIR\n", count(len(p.Devices), "device"))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// badList is badConfig for a list.
func badList(err error) error {
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		return misused(err, "")
	case errors.Is(err, fs.ErrNotExist):
		return misused(err, "name the file that the cloud's console has exported")
	}
	return misused(err, "")
}

func badWrite(err error) error {
	var exists *enroll.ExistsError
	var file *fs.PathError
	switch {
	case errors.As(err, &exists):
		return failed(fmt.Errorf("%w: nothing is written", err), "--force overwrites them")
	case errors.As(err, &file):
		return failed(err, fileHint(file))
	}
	return failed(err, "")
}
