package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"
	"gopkg.in/yaml.v3"

	"bridged/internal/enroll"
)

// leastPassword is 40 bits, which bcrypt and a broker that answers slowly make enough.
const leastPassword = 8

func newGenerateLogin() *cobra.Command {
	var username, file string
	var length, cost int
	cmd := &cobra.Command{
		Use:   "generate-login",
		Short: "Make up a password for a device to log in with on the LAN",
		Long: `generate-login makes up a password that a device logs in with on the LAN. It prints the password, for
the device, and its bcrypt hash as YAML, to be pasted below the device in the configuration.

With --file it writes the password into a file that only its owner may read, instead of printing it, and the YAML
refers to that file. A file that exists is not changed.

Passwords have capital letters and the digits 2 to 7, which are not mistaken for each other.`,
		Example: `  bridged generate-login
  bridged generate-login --username boiler
  bridged generate-login --file /etc/bridged/secrets/boiler-1.login
  bridged generate-login --length 12 --cost 8    # for a device, and a gateway, with limits`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case length < leastPassword || length > maxPassword:
				return misused(fmt.Errorf("--length %d is out of range", length),
					fmt.Sprintf("write %d to %d", leastPassword, maxPassword))
			case cost < bcrypt.MinCost || cost > maxCost:
				return misused(fmt.Errorf("--cost %d is out of range", cost),
					fmt.Sprintf("write %d to %d", bcrypt.MinCost, maxCost))
			case cmd.Flags().Changed("cost") && file != "":
				return misused(errors.New("--cost is for a hash, and with --file there is none"), "leave out one of them")
			}
			password := randomPassword(length)
			if file != "" {
				return loginInFile(cmd.OutOrStdout(), username, file, password)
			}
			hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
			if err != nil {
				return fmt.Errorf("hash the password: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "# for the device: %s\n", password)
			return printLogin(cmd.OutOrStdout(), loginYAML{Username: username, PasswordHash: string(hash)})
		},
	}
	f := cmd.Flags()
	f.StringVar(&username, "username", "", "the user `name` that the device is to present (default any)")
	f.StringVar(&file, "file", "", "write the password into this `file`, readable by its owner only")
	f.IntVar(&length, "length", 20, "how many `characters` the password has")
	f.IntVar(&cost, "cost", bcrypt.DefaultCost, "how often to double the work of hashing")
	_ = cmd.MarkFlagFilename("file") // fails for unknown flags only
	for _, name := range []string{"username", "length", "cost"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // likewise
	}
	return cmd
}

// randomPassword has five random bits in each character.
func randomPassword(length int) (password string) {
	for len(password) < length {
		password += rand.Text()
	}
	return password[:length]
}

// loginYAML is the section login of a device.
type loginYAML struct {
	Username     string   `yaml:"username,omitempty"`
	Password     *fileRef `yaml:"password,omitempty,flow"`
	PasswordHash string   `yaml:"password_hash,omitempty"`
}

type fileRef struct {
	File string `yaml:"file"`
}

func printLogin(w io.Writer, l loginYAML) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(map[string]loginYAML{"login": l}); err != nil {
		return fmt.Errorf("print the login: %w", err)
	}
	return enc.Close()
}

func loginInFile(w io.Writer, username, file, password string) error {
	path, err := filepath.Abs(file) // whatever the YAML is pasted into
	if err != nil {
		return err
	}
	err = enroll.WriteSecret(path, []byte(password+"\n"))
	var where *fs.PathError
	switch {
	case errors.Is(err, fs.ErrExist):
		return failed(fmt.Errorf("%s exists already", file), "name another file, or remove this one first")
	case errors.As(err, &where) && !errors.Is(err, os.ErrNotExist):
		return failed(err, fileHint(where))
	case err != nil:
		return failed(err, "make the directory first: mkdir -m 700 "+filepath.Dir(file))
	}
	return printLogin(w, loginYAML{Username: username, Password: &fileRef{path}})
}
