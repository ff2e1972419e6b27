package cli

import (
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bridged/internal/config"
	"bridged/internal/credentials"
)

func newSign(o *options) *cobra.Command {
	var reveal, asJSON bool
	cmd := &cobra.Command{
		Use:   "sign DEVICE",
		Short: "Print what a device would log in to its cloud with now",
		Long: `sign prints the client id, user name, password and URL that bridged would connect to the
cloud with now, on behalf of a device: to try in any other MQTT client. Clouds that want a time
or a random part get new ones with each call. The password is masked unless --reveal is given.

A cloud allows one connection per device: stop bridged, or disconnect the device, before you
try.`,
		Example: `  bridged sign boiler-1
  bridged sign boiler-1 --reveal --json`,
		Args:              takes("DEVICE"),
		ValidArgsFunction: o.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, _, err := o.device(args[0], "there is nothing to sign here")
			if err != nil {
				return err
			}
			s, err := signAt(d, time.Now(), rand.Text()[:credentials.NonceLength])
			if err != nil {
				return err
			}
			if !reveal {
				s.Password = credentials.Secret(s.Password).String()
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			s.print(cmd.OutOrStdout(), reveal)
			return nil
		},
	}
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show the password")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// signed is what a device logs in with, fit to be printed.
type signed struct {
	Device   string `json:"device"`
	Cloud    string `json:"cloud"`
	URL      string `json:"url"`
	ClientID string `json:"client_id"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	CertFile string `json:"cert_file,omitempty"`
	KeyFile  string `json:"key_file,omitempty"`
}

func signAt(d *config.Device, now time.Time, nonce string) (signed, error) {
	login, err := d.Identity.Sign(now, nonce)
	if err != nil {
		return signed{}, fmt.Errorf("sign for %s: %w", d.Name, err)
	}
	return signed{
		Device:   d.Name,
		Cloud:    d.Cloud.Name,
		URL:      d.Cloud.URL.Redacted(),
		ClientID: login.ClientID,
		Username: login.Username,
		Password: login.Password,
		CertFile: d.ClientCertificate.CertFile,
		KeyFile:  d.ClientCertificate.KeyFile,
	}, nil
}

func (s signed) print(w io.Writer, revealed bool) {
	password := s.Password
	if password != "" && !revealed {
		password += " (--reveal shows it)"
	}
	for _, line := range []struct{ name, value string }{
		{"url", s.URL},
		{"client id", s.ClientID},
		{"user name", s.Username},
		{"password", password},
		{"certificate", s.CertFile},
		{"key", s.KeyFile},
	} {
		if line.value != "" {
			fmt.Fprintf(w, "%-11s  %s\n", line.name, line.value)
		}
	}
}

// device reads the configuration and returns the device of that name. unable is why one that signs itself will not do.
func (o *options) device(name, unable string) (*config.Device, *config.Config, error) {
	cfg, err := o.load()
	if err != nil {
		return nil, nil, err
	}
	if d := cfg.Device(name); d != nil {
		return d, cfg, nil
	}
	for _, p := range cfg.PassThrough {
		if p.Name() == name {
			return nil, nil, misused(fmt.Errorf("%s stands for devices that sign for their cloud themselves", name),
				unable+"; name a device with a secret or password of its own")
		}
	}
	err = fmt.Errorf("no device %q in %s", name, cfg.File)
	if hint := didYouMean(nearest(name, deviceNames(cfg))); hint != "" {
		return nil, nil, misused(err, hint)
	}
	return nil, nil, misused(err, knownDevices(cfg))
}

// knownDevices names the first few devices.
func knownDevices(cfg *config.Config) string {
	names := deviceNames(cfg)
	const most = 10
	switch {
	case len(names) == 0:
		return "it has no devices yet; write them under devices:"
	case len(names) > most:
		return fmt.Sprintf("there are %d devices: %s, ...", len(names), strings.Join(names[:most], ", "))
	}
	return "the devices are " + strings.Join(names, ", ")
}

func deviceNames(cfg *config.Config) []string {
	names := make([]string, len(cfg.Devices))
	for i, d := range cfg.Devices {
		names[i] = d.Name
	}
	return names
}

// nearest returns the names that may have been meant, found as cobra finds commands: those with the fewest typing
// errors, and not more than a person wants to read.
func nearest(name string, known []string) []string {
	parent := &cobra.Command{}
	for _, k := range known {
		parent.AddCommand(&cobra.Command{Use: k, Run: func(*cobra.Command, []string) {}})
	}
	for distance := range 2 {
		parent.SuggestionsMinimumDistance = distance + 1
		if found := parent.SuggestionsFor(name); len(found) > 0 {
			return found[:min(len(found), 3)]
		}
	}
	return nil
}

// completeDevices completes a single argument with the names of devices. A configuration that does not load has none.
func (o *options) completeDevices(
	_ *cobra.Command, args []string, begun string,
) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cfg, err := o.load()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := slices.DeleteFunc(deviceNames(cfg), func(name string) bool { return !strings.HasPrefix(name, begun) })
	return names, cobra.ShellCompDirectiveNoFileComp
}
