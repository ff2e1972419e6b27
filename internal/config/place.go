package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// place is where something stands in the configuration.
type place struct {
	file      string
	line, col int
	path      string
}

// sub is the place of a key that is not written itself, so that a fault can name it: at its section, with its path.
func (p place) sub(key string) place {
	if p.path != "" {
		key = p.path + "." + key
	}
	p.path = key
	return p
}

// String is FILE:LINE, to refer to another place.
func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

// report gathers problems. Each is reported once, though a fault in the defaults may be found for every device.
type report struct {
	faults   []Problem
	warnings []Problem
	files    []string // in the order in which they were read
	seen     map[Problem]bool
}

func (r *report) fault(at place, what, remedy string) {
	if p := problem(at, what, remedy); r.unseen(p) {
		r.faults = append(r.faults, p)
	}
}

func (r *report) warn(at place, what, remedy string) {
	if p := problem(at, what, remedy); r.unseen(p) {
		r.warnings = append(r.warnings, p)
	}
}

func problem(at place, what, remedy string) Problem {
	return Problem{
		File: oneLine(at.file), Line: at.line, Column: at.col,
		Path: oneLine(at.path), What: oneLine(what), Remedy: oneLine(remedy),
	}
}

// oneLine keeps what a file's content might do to a terminal or a log out of a problem's text.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

func (r *report) unseen(p Problem) bool {
	if r.seen == nil {
		r.seen = make(map[Problem]bool)
	}
	old := r.seen[p]
	r.seen[p] = true
	return !old
}

// sort puts problems in the order in which a person comes across them: file by file, from top to bottom.
func (r *report) sort(problems []Problem) {
	rank := make(map[string]int, len(r.files))
	for i, name := range r.files {
		rank[name] = i
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(rank[a.File], rank[b.File]), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column))
	})
}
