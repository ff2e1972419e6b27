package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"
)

const (
	maxPassword = 72 // bytes that bcrypt looks at
	maxCost     = 16 // seconds for each login already
)

func newHashPassword() *cobra.Command {
	var cost int
	cmd := &cobra.Command{
		Use:   "hash-password",
		Short: "Print a bcrypt hash for login.password_hash",
		Long: fmt.Sprintf(`hash-password reads a password and prints its bcrypt hash, for login.password_hash in the
configuration. On a terminal it asks twice and shows nothing; otherwise it reads one line from
standard input. Passwords have 1 to %d bytes.

The cost is how many times hashing is doubled: each step makes guessing, and each login of a
device, take twice as long. %d takes about a tenth of a second on a PC, on a small gateway ten
times that.`, maxPassword, bcrypt.DefaultCost),
		Example: `  bridged hash-password
  bridged hash-password < /run/secrets/boiler-1`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cost < bcrypt.MinCost || cost > maxCost {
				return misused(fmt.Errorf("--cost %d is out of range", cost),
					fmt.Sprintf("write %d to %d", bcrypt.MinCost, maxCost))
			}
			password, err := askPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			hash, err := bcrypt.GenerateFromPassword(password, cost)
			if err != nil {
				return fmt.Errorf("hash the password: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n", hash)
			return nil
		},
	}
	cmd.Flags().IntVar(&cost, "cost", bcrypt.DefaultCost, "how often to double the work of hashing")
	_ = cmd.RegisterFlagCompletionFunc("cost", cobra.NoFileCompletions) // fails for unknown flags only
	return cmd
}

// askPassword reads a password: twice from a terminal, otherwise one line.
func askPassword(stdin io.Reader, prompts io.Writer) ([]byte, error) {
	f, ok := stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return readPassword(stdin)
	}
	password, err := promptHidden(f, prompts, "Password: ")
	if err != nil {
		return nil, err
	}
	if err := checkPassword(password); err != nil {
		return nil, err
	}
	again, err := promptHidden(f, prompts, "Again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(password, again) {
		return nil, failed(errors.New("the two passwords differ"), "try again")
	}
	return password, nil
}

// readPassword reads one line; its end is not part of the password.
func readPassword(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	data = bytes.TrimSuffix(data, []byte("\r"))
	return data, checkPassword(data)
}

func checkPassword(password []byte) error {
	switch {
	case len(password) == 0:
		return failed(errors.New("the password is empty"),
			"a device that cannot log in is configured with login: {anonymous: true}")
	case bytes.ContainsAny(password, "\r\n"):
		return failed(errors.New("the password has more than one line"), "give it as one line on standard input")
	case len(password) > maxPassword:
		return failed(fmt.Errorf("the password has more than %d bytes, of which bcrypt would ignore the rest", maxPassword),
			"take a shorter one, or write it as login.password: {file: PATH} instead of a hash")
	}
	return nil
}
