package topicmap

import (
	"errors"
	"strings"
	"testing"
)

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name  string
		rules []string
		want  []string // one part of each fault, in order
	}{
		{"empty local", []string{"'' = x"}, []string{"rule 1: local: is empty"}},
		{"empty cloud", []string{"x = ''"}, []string{"rule 1: cloud: is empty"}},
		{"plus inside a level", []string{"a+ = b"}, []string{`local: "a+" is no valid filter`}},
		{"hash before the end", []string{"a = #/b"}, []string{`cloud: "#/b" is no valid filter`}},
		{"not UTF-8", []string{"a\xff = b"}, []string{"local: \"a\\xff\" is no valid topic"}},
		{"NUL", []string{"a = b\x00"}, []string{`cloud: "b\x00" is no valid topic`}},
		{"too long", []string{strings.Repeat("x", 65536) + " = b"}, []string{"at most 65535 bytes"}},
		{"no direction", []string{"a ? b"}, []string{"direction: missing or unknown; write up, down or both"}},
		{"fewer plus", []string{"+/+ = x/+"}, []string{`"x/+" has 1 "+", but local "+/+" has 2 "+"`}},
		{"plus for hash", []string{"a/# = x/+"}, []string{`"x/+" has 1 "+", but local "a/#" has "#"`}},
		{"wildcard for none", []string{"a = x/#"}, []string{`"x/#" has "#", but local "a" has no wildcard`}},
		{"both for one", []string{"+/# = x/+"}, []string{`"x/+" has 1 "+", but local "+/#" has 1 "+" and "#"`}},
		{"same local up", []string{"a > x", "a > y"}, []string{`rule 2: local: "a" is taken by rule 1`}},
		{"same cloud down", []string{"a < x", "b < x"}, []string{`rule 2: cloud: "x" is taken by rule 1`}},
		{"same local, both and up", []string{"a = x", "a > y"}, []string{`rule 2: local: "a" is taken by rule 1`}},
		{"same pair twice", []string{"a = x", "a = x"}, []string{"rule 2: local", "rule 2: cloud"}},
		{"hidden up", []string{"a/# > x/#", "a/b > y"},
			[]string{`rule 2: local: "a/b" never applies, because rule 1 ("a/#") takes all its topics; put`}},
		{"hidden down", []string{"a/+ < x/+", "b < x/y"}, []string{`rule 2: cloud: "x/y" never applies`}},
		{"hidden parent", []string{"a/# > x/#", "a > y"}, []string{`rule 2: local: "a" never applies`}},
		{"hidden everything", []string{"+/# > x/+/#", "# > y/#"}, []string{`rule 2: local: "#" never applies`}},
		{"all faults at once", []string{"a+ = b+", "ok = fine", "c > d", "c > e", "f ? g"}, []string{
			"rule 1: local", "rule 1: cloud", "rule 4: local", "rule 5: direction"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := New(parseRules(t, tt.rules...))
			var faults Faults
			if !errors.As(err, &faults) || m != nil {
				t.Fatalf("New = %v, %v; want faults", m, err)
			}
			if len(faults) != len(tt.want) {
				t.Fatalf("got %d faults, want %d: %v", len(faults), len(tt.want), err)
			}
			for i, want := range tt.want {
				if got := faults[i].Error(); !strings.Contains(got, want) {
					t.Errorf("fault %q does not say %q", got, want)
				}
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestNewAccepts(t *testing.T) {
	tests := map[string][]string{
		"exception first":                  {"a/b > y", "a/# > x/#"},
		"overlap":                          {"a/+/c > x/+", "a/b/+ > y/+"},
		"opposite directions":              {"a > x", "a < y"},
		"same cloud up":                    {"a > x", "b > x"},
		"same local down":                  {"a < x", "a < y"},
		"a parent the first cannot take":   {"a/# > #", "a > x"},
		"a $ topic the first cannot take":  {"a/# > #", "a/$b > x"},
		"a $ topic and a bare wildcard":    {"# > x/#", "$SYS/# > y/#"},
		"different number of plain levels": {"+ = $thing/up/property/P/D/+"},
	}
	for name, rules := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := New(parseRules(t, rules...)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDirectionText(t *testing.T) {
	for word, want := range map[string]Direction{"up": Up, "down": Down, "both": Both} {
		var d Direction
		if err := d.UnmarshalText([]byte(word)); err != nil || d != want || d.String() != word {
			t.Errorf("%q reads as %v, %v", word, d, err)
		}
	}
	for _, word := range []string{"", "UP", "Direction(0)", "sideways"} {
		var d Direction
		err := d.UnmarshalText([]byte(word))
		if err == nil || !strings.Contains(err.Error(), "write up, down or both") {
			t.Errorf("%q reads as %v, %v", word, d, err)
		}
	}
	if got := Direction(0).String(); got != "Direction(0)" {
		t.Errorf("the zero direction is called %q", got)
	}
}
