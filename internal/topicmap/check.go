package topicmap

import (
	"fmt"
	"strings"

	"bridged/internal/mqtt"
)

// The fields of a Rule, as a Fault names them.
const (
	Local = "local"
	Cloud = "cloud"
	Dir   = "direction"
)

// Fault is one thing that is wrong with a set of rules.
type Fault struct {
	Rule    int    // index of the rule
	Field   string // Local, Cloud or Dir
	Message string // what is wrong, and what to write instead
}

func (f Fault) Error() string {
	return fmt.Sprintf("topic rule %d: %s: %s", f.Rule+1, f.Field, f.Message)
}

// Faults is everything that is wrong with a set of rules, in the order of the rules.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "; ")
}

// checkRule finds what is wrong with a rule by itself.
func checkRule(index int, r Rule) (faults Faults) {
	if r.Direction&^Both != 0 || r.Direction == 0 {
		faults = append(faults, Fault{index, Dir, "missing or unknown; write up, down or both"})
	}
	for _, side := range []struct{ field, pattern string }{{Local, r.Local}, {Cloud, r.Cloud}} {
		if msg := checkFilter(side.pattern); msg != "" {
			faults = append(faults, Fault{index, side.field, msg})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	local, cloud := parse(r.Local), parse(r.Cloud)
	if local.plus != cloud.plus || local.many != cloud.many {
		faults = append(faults, Fault{index, Cloud, fmt.Sprintf(
			"%q has %s, but local %q has %s; each wildcard needs its counterpart on the other side",
			r.Cloud, cloud.describe(), r.Local, local.describe())})
	}
	return faults
}

func checkFilter(s string) string {
	switch {
	case s == "":
		return "is empty; write a topic, or a filter with wildcards on both sides"
	case mqtt.ValidFilter(s):
		return ""
	case strings.ContainsAny(s, "+#"):
		return fmt.Sprintf(`%q is no valid filter; "+" must fill a whole level, "#" the last one`, s)
	}
	return fmt.Sprintf("%.40q is no valid topic; it must be UTF-8 without NUL, at most %d bytes", s, maxTopic)
}

func (p *pattern) describe() string {
	switch {
	case p.wildcards() == 0:
		return "no wildcard"
	case p.plus == 0:
		return `"#"`
	case p.many:
		return fmt.Sprintf(`%d "+" and "#"`, p.plus)
	}
	return fmt.Sprintf(`%d "+"`, p.plus)
}

// checkReach finds rules of one direction that never apply, since an earlier one takes all their topics. field is the
// side that the rules translate from.
func checkReach(rules []rule, field string) (faults Faults) {
	for i := range rules {
		late := &rules[i]
		for j := range i {
			early := &rules[j]
			if _, all, ok := early.applyFilter(late.from.text); !ok || !all {
				continue
			}
			msg := fmt.Sprintf("%q never applies, because rule %d (%q) takes all its topics; put this rule before it",
				late.from.text, early.index+1, early.from.text)
			if late.from.text == early.from.text {
				msg = fmt.Sprintf("%q is taken by rule %d already; remove one of them", late.from.text, early.index+1)
			}
			faults = append(faults, Fault{late.index, field, msg})
			break
		}
	}
	return faults
}
