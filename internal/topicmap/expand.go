package topicmap

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Expand replaces each ${name} in s by its value in vars. Values are not expanded again, and a "$" that no "{" follows
// stands for itself, as in "$ota/report". Errors are about an unknown name, a missing "}" and a value with a wildcard
// or NUL in it, which would change the meaning of the pattern.
func Expand(s string, vars map[string]string) (string, error) {
	var b strings.Builder
	for rest := s; ; {
		before, after, found := strings.Cut(rest, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			return "", fmt.Errorf(`%q: "${" without "}"`, s)
		}
		value, known := vars[name]
		if !known {
			return "", fmt.Errorf("%q: unknown variable ${%s}; %s", s, name, knownNames(vars))
		}
		if strings.ContainsAny(value, "+#\x00") {
			return "", fmt.Errorf(`%q: ${%s} is %q, which cannot be part of a topic: it has "+", "#" or NUL in it`,
				s, name, value)
		}
		b.WriteString(value)
		rest = tail
	}
}

func knownNames(vars map[string]string) string {
	if len(vars) == 0 {
		return "there are no variables here"
	}
	names := slices.Sorted(maps.Keys(vars))
	for i, name := range names {
		names[i] = "${" + name + "}"
	}
	return "known: " + strings.Join(names, ", ")
}
