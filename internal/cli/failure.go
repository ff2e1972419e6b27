package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"bridged/internal/config"
)

// failure is an error with the next step for whoever reads it, and an exit status.
type failure struct {
	err  error
	hint string // empty if there is none
	code int
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// failed is an error with a hint and exit status 1.
func failed(err error, hint string) error {
	return &failure{err: err, hint: hint, code: exitFailed}
}

// misused says that the command line or the configuration is wrong.
func misused(err error, hint string) error {
	return &failure{err: err, hint: hint, code: exitUsage}
}

// report prints an error and returns the exit status. It is the only place that prints errors: one line each, and a
// configuration's faults are one each.
func report(w io.Writer, err error) int {
	code, hint := exitFailed, ""
	var f *failure
	if errors.As(err, &f) {
		code, hint = f.code, f.hint
	}
	var faults config.Faults
	var told reasons
	switch {
	case errors.As(err, &faults):
		for _, p := range faults {
			printLine(w, "error", p.String())
		}
	case errors.As(err, &told):
		for _, r := range told {
			printLine(w, "error", r)
		}
	default:
		printLine(w, "error", err.Error())
	}
	if hint != "" {
		printLine(w, "hint", hint)
	}
	return code
}

// printLine prints a line of the given kind, one line whatever the text.
func printLine(w io.Writer, kind, text string) {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	fmt.Fprintf(w, "%s: %s\n", kind, text)
}
