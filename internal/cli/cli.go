// Package cli is the command line: it takes words and flags, calls what does the work, and tells the outcome to a
// person or, with --json, to a program.
//
// Each subcommand stands in a file of its own, as a function that builds it. Run may be called several times at once;
// it starts no goroutine that outlives it.
package cli

import (
	"context"
	"fmt"
	"io"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // the configuration or the command line is wrong
)

// LookupEnv returns an environment variable, as os.LookupEnv does.
type LookupEnv func(name string) (value string, ok bool)

// Run carries out the command line (args without the program's name) and returns the exit status: 0 fine, 1 failed, 2
// the configuration or the command line is wrong. What went wrong is on stderr, as "error:" and "hint:" lines.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env LookupEnv) int {
	out := &output{w: stdout}
	root := newRoot(&options{lookupEnv: env})
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	root.SetArgs(append([]string{}, args...)) // never nil: cobra would take the process's own
	err := root.ExecuteContext(ctx)
	if err == nil && out.err != nil {
		err = fmt.Errorf("write the output: %w", out.err)
	}
	if err == nil {
		return exitOK
	}
	return report(stderr, err)
}

// output remembers the first failed write, so that a full disk or a closed pipe makes the command fail although
// commands and cobra's help print without looking.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}
