package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong, or worth a warning, and where.
type Problem struct {
	// File, Line and Column are where it stands, counted from 1.
	File   string
	Line   int
	Column int
	// Path leads to it in the file, as in devices[3].login.password; empty for the file as a whole.
	Path string
	// What is wrong, and the Remedy: what to write instead, empty where the first says it all.
	What   string
	Remedy string
}

// Place is "FILE:LINE:COLUMN: PATH", without the last part for the file as a whole.
func (p Problem) Place() string {
	at := fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	if p.Path != "" {
		at += ": " + p.Path
	}
	return at
}

// String is "FILE:LINE:COLUMN: PATH: what; remedy".
func (p Problem) String() string {
	text := p.Place() + ": " + p.What
	if p.Remedy != "" {
		text += "; " + p.Remedy
	}
	return text
}

// Faults are all that keeps a configuration from being used. Never empty.
type Faults []Problem

// Error lists the faults, one a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, p := range f {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
