// Command gendocs writes what is generated from the source for people, to standard output:
//
//	gendocs configuration     the reference of the configuration, for docs/configuration.md
//	gendocs man VERSION DATE  the manual page bridged(1); the date is written as RFC 3339 has it
//
// It is run in the directory of the repository.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"bridged/internal/cli"
	"bridged/internal/reference"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "configuration":
		source, err := os.ReadFile("internal/config/keys.go")
		if err != nil {
			return err
		}
		doc, err := reference.Configuration(source)
		if err != nil {
			return err
		}
		_, err = w.Write(doc)
		return err
	case len(args) == 3 && args[0] == "man":
		date, err := time.Parse(time.RFC3339, args[2])
		if err != nil {
			return err
		}
		return cli.WriteManual(w, args[1], date)
	}
	return errors.New("usage: gendocs configuration | gendocs man VERSION DATE")
}
