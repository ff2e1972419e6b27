package topicmap

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newMap is New for rules that must be fine. A rule is written "local direction cloud", with ">", "<" or "=" between.
func newMap(t testing.TB, rules ...string) *Map {
	t.Helper()
	m, err := New(parseRules(t, rules...))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func parseRules(t testing.TB, rules ...string) []Rule {
	t.Helper()
	var out []Rule
	for _, s := range rules {
		f := strings.Fields(s)
		dir, ok := map[string]Direction{">": Up, "<": Down, "=": Both, "?": 0}[f[1]]
		if !ok {
			t.Fatalf("bad rule %q", s)
		}
		out = append(out, Rule{
			Local: strings.Trim(f[0], "'"), Cloud: strings.Trim(f[2], "'"), Direction: dir,
		})
	}
	return out
}

func TestTranslate(t *testing.T) {
	tests := []struct {
		name         string
		rules        []string
		local, cloud string
		only         Direction // the direction in which local and cloud correspond; Both unless given
	}{
		{"no rule matches", []string{"x = y"}, "other", "other", Both},
		{"literal", []string{"telemetry > P/D/event"}, "telemetry", "P/D/event", Up},
		{"literal down", []string{"command < P/D/control"}, "command", "P/D/control", Down},
		{"up rule is not for down", []string{"telemetry > P/D/event"}, "P/D/event", "P/D/event", Down},
		{"down rule is not for up", []string{"command < P/D/control"}, "command", "command", Up},
		{"dollar", []string{"ota = $ota/report/P/D"}, "ota", "$ota/report/P/D", Both},
		{"prefix of a literal", []string{"a/b = x"}, "a", "a", Both},
		{"longer than a literal", []string{"a/b = x"}, "a/b/c", "a/b/c", Both},
		{"plus", []string{"s/+/v = P/+/event"}, "s/7/v", "P/7/event", Both},
		{"plus is positional", []string{"+/to/+ = x/+/y/+/z"}, "1/to/2", "x/1/y/2/z", Both},
		{"plus takes an empty level", []string{"s/+/v = P/+/e"}, "s//v", "P//e", Both},
		{"hash", []string{"a/# = P/D/#"}, "a/b/c", "P/D/b/c", Both},
		{"hash takes the parent", []string{"a/# = P/D/#"}, "a", "P/D", Both},
		{"hash takes an empty level", []string{"a/# = P/D/#"}, "a/", "P/D/", Both},
		{"bare hash to prefix", []string{"# = P/#"}, "a/b", "P/a/b", Both},
		{"bare hash with a leading slash", []string{"# = P/#"}, "/a", "P//a", Both},
		{"prefix to bare hash", []string{"P/# = #"}, "P/a", "a", Both},
		{"plus and hash", []string{"+/x/# = P/+/#"}, "d/x/1/2", "P/d/1/2", Both},
		{"plus in the first level is not for $", []string{"+/x = P/+/x"}, "$SYS/x", "$SYS/x", Both},
		{"hash in the first level is not for $", []string{"# > P/#"}, "$SYS/x", "$SYS/x", Up},
		{"nothing would be left", []string{"P/# > #"}, "P", "P", Up},
		{"only an empty level would be left", []string{"P/# > #"}, "P/", "P/", Up},
		{"would begin with $ unseen", []string{"P/# > #"}, "P/$SYS/x", "P/$SYS/x", Up},
		{"the first rule counts", []string{"a/b = special", "a/# = P/#"}, "a/b", "special", Both},
		{"the second where the first does not match", []string{"a/b = special", "a/# = P/#"}, "a/c", "P/c", Both},
		{"rules do not chain", []string{"a > b", "b > c"}, "a", "b", Up},
		{"many locals to one cloud", []string{"a > x", "b > x"}, "b", "x", Up},
		{"many clouds to one local", []string{"a < x", "a < y"}, "a", "y", Down},
		{"identity as an exception", []string{"a/b = a/b", "a/# = P/#"}, "a/b", "a/b", Both},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMap(t, tt.rules...)
			if got := m.Up(tt.local); tt.only&Up != 0 && got != tt.cloud {
				t.Errorf("Up(%q) = %q, want %q", tt.local, got, tt.cloud)
			}
			if got := m.Down(tt.cloud); tt.only&Down != 0 && got != tt.local {
				t.Errorf("Down(%q) = %q, want %q", tt.cloud, got, tt.local)
			}
		})
	}
}

func TestTooLongResultLeavesTopicUnchanged(t *testing.T) {
	m := newMap(t, "# > prefix/#")
	fits := strings.Repeat("x", maxTopic-len("prefix/"))
	if got := m.Up(fits); got != "prefix/"+fits {
		t.Errorf("a topic of %d bytes became one of %d", len(fits), len(got))
	}
	if long := fits + "x"; m.Up(long) != long {
		t.Error("a topic was made too long")
	}
}

func TestFilters(t *testing.T) {
	rules := []string{"command < P/D/control", "s/+/set < P/+/cmd", "cfg/# < $cfg/D/#", "up > P/D/event"}
	tests := []struct {
		name   string
		rules  []string
		filter string
		want   []string
	}{
		{"no rule", rules, "other/+", []string{"other/+"}},
		{"literal", rules, "command", []string{"P/D/control"}},
		{"a filter inside a rule with plus", rules, "s/7/set", []string{"P/7/cmd"}},
		{"a rule's own pattern", rules, "s/+/set", []string{"P/+/cmd"}},
		{"inside a rule with hash", rules, "cfg/net/+", []string{"$cfg/D/net/+"}},
		{"inside a rule with hash, hash", rules, "cfg/net/#", []string{"$cfg/D/net/#"}},
		{"the parent of a rule with hash", rules, "cfg", []string{"$cfg/D"}},
		{"up rules do not matter", rules, "up", []string{"up"}},
		{"everything", rules, "#",
			[]string{"P/D/control", "P/+/cmd", "$cfg/D/#", "#"}},
		{"wider than a rule", rules, "s/#", []string{"P/+/cmd", "s/#"}},
		{"across a rule", rules, "+/7/set", []string{"P/7/cmd", "$cfg/D/7/set", "+/7/set"}},
		{"wildcard in the first level is not for $", rules, "$SYS/#", []string{"$SYS/#"}},
		{"no duplicates", []string{"a/+ < a/+", "+/1 < +/1"}, "a/1", []string{"a/1"}},
		{"two clouds for one local", []string{"a < x", "a < y"}, "a", []string{"x", "y"}},
		{"a rule covers everything", []string{"# < P/#"}, "#", []string{"P/#"}},
		{"a rule covers everything, in other words", []string{"+/# < P/+/#"}, "#", []string{"P/+/#"}},
		{"a rule that leaves nothing", []string{"P/# < #"}, "P", []string{"P"}},
		{"the cloud filter is the filter itself", []string{"a/b < a/b", "a/c < x"}, "a/+", []string{"a/b", "x", "a/+"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMap(t, tt.rules...)
			if diff := cmp.Diff(tt.want, m.Filters(tt.filter)); diff != "" {
				t.Errorf("Filters(%q), -want +got:\n%s", tt.filter, diff)
			}
		})
	}
}

func TestNilIsIdentityAndFree(t *testing.T) {
	m, err := New(nil)
	if m != nil || err != nil {
		t.Fatalf("New(nil) = %v, %v; want nil, nil", m, err)
	}
	if got := m.Up("a"); got != "a" {
		t.Errorf("Up = %q", got)
	}
	if got := m.Down("a"); got != "a" {
		t.Errorf("Down = %q", got)
	}
	if diff := cmp.Diff([]string{"a/#"}, m.Filters("a/#")); diff != "" {
		t.Error(diff)
	}
	if n := testing.AllocsPerRun(100, func() { useIdentity(m) }); n != 0 {
		t.Errorf("the identity allocates %v times", n)
	}
}

// A message on the hot path costs at most the new topic.
func TestAllocations(t *testing.T) {
	m := newMap(t, "telemetry = P/D/event", "s/+/v = P/+/value")
	for topic, want := range map[string]float64{"telemetry": 0, "other/topic": 0, "s/7/v": 1} {
		if n := testing.AllocsPerRun(100, func() { sink = m.Up(topic) }); n != want {
			t.Errorf("Up(%q) allocates %v times, want %v", topic, n, want)
		}
	}
}

var sink string

func useIdentity(m *Map) {
	sink = m.Up("a/b")
	sink = m.Down("a/b")
	for _, f := range m.Filters("a/#") {
		sink = f
	}
}

func BenchmarkNil(b *testing.B) {
	var m *Map
	b.ReportAllocs()
	for b.Loop() {
		useIdentity(m)
	}
}

func BenchmarkUp(b *testing.B) {
	m := newMap(b, "telemetry = P/D/event", "s/+/v = P/+/value")
	for _, topic := range []string{"telemetry", "s/7/v", "other/topic"} {
		b.Run(topic, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink = m.Up(topic)
			}
		})
	}
}
