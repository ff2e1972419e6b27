package topicmap

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bridged/internal/mqtt"
)

// The fuzz targets read bytes as small rule sets, filters and topics over few levels, so that they meet often.

type reader struct{ data []byte }

func (r *reader) next(n int) int {
	if len(r.data) == 0 {
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return int(b) % n
}

// topic returns a valid topic of up to four levels.
func (r *reader) topic() string {
	words := []string{"a", "b", "c", "", "$d"}
	for {
		levels := make([]string, 1+r.next(4))
		for i := range levels {
			levels[i] = words[r.next(len(words))]
		}
		if t := strings.Join(levels, "/"); t != "" {
			return t
		}
		r.data = append(r.data, 1, 0)
	}
}

// inside returns a topic that the filter matches, $ in the first level aside.
func (r *reader) inside(filter string) string {
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		if level == "+" || level == "#" {
			levels[i] = strings.Split(r.topic(), "/")[0]
		}
	}
	if strings.HasSuffix(filter, "/#") && r.next(4) == 0 {
		levels = levels[:len(levels)-1]
	}
	if t := strings.Join(levels, "/"); t != "" {
		return t
	}
	return "a"
}

// filter returns a valid filter.
func (r *reader) filter() string { return r.widen(r.topic()) }

// widen returns a topic with some levels replaced by wildcards.
func (r *reader) widen(topic string) string {
	levels := strings.Split(topic, "/")
	for i := range levels {
		if r.next(3) == 0 {
			levels[i] = "+"
		}
	}
	if r.next(3) == 0 {
		levels[len(levels)-1] = "#"
	}
	return strings.Join(levels, "/")
}

// rule returns a rule whose cloud side has the wildcards of its local side at places of their own.
func (r *reader) rule() Rule {
	rule := Rule{Local: r.filter(), Direction: []Direction{Up, Down, Both}[r.next(3)]}
	cloud := strings.Split(r.topic(), "/")
	local := parse(rule.Local)
	for range local.plus {
		cloud = slices.Insert(cloud, r.next(len(cloud)+1), "+")
	}
	if local.many {
		cloud = append(cloud, "#")
	}
	if r.next(2) == 0 && len(cloud) > 1 && cloud[0] != "+" {
		cloud = cloud[1:] // "#" or "+" alone, too
	}
	rule.Cloud = strings.Join(cloud, "/")
	return rule
}

// oracle translates a topic by a regular expression, and says whether the rule applies.
func oracle(from, to, topic string) (string, bool) {
	if !mqtt.Match(from, topic) {
		return "", false
	}
	expr := strings.ReplaceAll(regexp.QuoteMeta(from), `\+`, `([^/]*)`)
	if from == "#" {
		expr = "(.*)"
	}
	expr = strings.TrimSuffix(expr, "/#")
	if strings.HasSuffix(from, "/#") {
		expr += "(?:/(.*))?"
	}
	groups := regexp.MustCompile(`^(?s:` + expr + `)$`).FindStringSubmatchIndex(topic)
	if groups == nil {
		return "", false
	}
	n, out := 0, ""
	for i, level := range strings.Split(to, "/") {
		if level == "+" || level == "#" {
			n++
			if groups[2*n] < 0 { // "#" stands for nothing
				break
			}
			level = topic[groups[2*n]:groups[2*n+1]]
		}
		if i > 0 {
			out += "/"
		}
		out += level
	}
	return out, out != "" && mqtt.Match(to, out)
}

func checkProperties(t *testing.T, data []byte) (informative bool) {
	r := &reader{data: slices.Clone(data)}
	rules := make([]Rule, 1+r.next(3))
	for i := range rules {
		rules[i] = r.rule()
	}
	m, err := New(rules)
	if err != nil {
		return false
	}
	for range 8 {
		topic, filter := r.topic(), r.filter()
		checkUp(t, m, rules, topic)
		checkDown(t, m, rules, topic, filter)
		checkFilters(t, m, filter)

		rule := rules[r.next(len(rules))] // and what this rule is about
		checkUp(t, m, rules, r.inside(rule.Local))
		cloud := r.inside(rule.Cloud)
		checkDown(t, m, rules, cloud, r.widen(m.Down(cloud)))
	}
	return true
}

func checkUp(t *testing.T, m *Map, rules []Rule, topic string) {
	want, by := topic, -1
	for i, r := range rules {
		if got, ok := oracle(r.Local, r.Cloud, topic); ok && r.Direction&Up != 0 {
			want, by = got, i
			break
		}
	}
	got := m.Up(topic)
	if got != want {
		t.Fatalf("%v: Up(%q) = %q, want %q", rules, topic, got, want)
	}
	if !mqtt.ValidTopic(got) {
		t.Fatalf("%v: Up(%q) = %q, which is no topic", rules, topic, got)
	}
	if by >= 0 && injective(rules) {
		if back := m.Down(got); back != topic {
			t.Fatalf("%v: %q went up as %q and came back as %q", rules, topic, got, back)
		}
	}
}

// injective says that every rule works both ways and no two of them lead to a common cloud topic.
func injective(rules []Rule) bool {
	for i, r := range rules {
		if r.Direction != Both {
			return false
		}
		for _, other := range rules[:i] {
			if _, overlap := intersect(r.Cloud, other.Cloud); overlap {
				return false
			}
		}
	}
	return true
}

func checkDown(t *testing.T, m *Map, rules []Rule, cloud, filter string) {
	want, by := cloud, -1
	for i, r := range rules {
		if got, ok := oracle(r.Cloud, r.Local, cloud); ok && r.Direction&Down != 0 {
			want, by = got, i
			break
		}
	}
	local := m.Down(cloud)
	if local != want {
		t.Fatalf("%v: Down(%q) = %q, want %q", rules, cloud, local, want)
	}
	filters := m.Filters(filter)
	if by >= 0 && mqtt.Match(filter, local) && !matchAny(filters, cloud) {
		t.Fatalf("%v: the device subscribes to %q and is to get %q as %q, but Filters says %q",
			rules, filter, cloud, local, filters)
	}
	claimed := slices.ContainsFunc(rules, func(r Rule) bool {
		return r.Direction&Down != 0 && mqtt.Match(r.Local, cloud)
	})
	if by < 0 && !claimed && mqtt.Match(filter, cloud) && !matchAny(filters, cloud) {
		t.Fatalf("%v: the device subscribes to %q, no rule is about %q, but Filters says %q",
			rules, filter, cloud, filters)
	}
}

// checkFilters asks that Filters is never empty, valid, without duplicates and always the same.
func checkFilters(t *testing.T, m *Map, filter string) {
	filters := m.Filters(filter)
	if len(filters) == 0 {
		t.Fatalf("no filters for %q", filter)
	}
	for i, f := range filters {
		if !mqtt.ValidFilter(f) {
			t.Fatalf("Filters(%q) has %q, which is no filter", filter, f)
		}
		if slices.Contains(filters[:i], f) {
			t.Fatalf("Filters(%q) has %q twice", filter, f)
		}
	}
	if again := m.Filters(filter); !slices.Equal(again, filters) {
		t.Fatalf("Filters(%q) is %q, then %q", filter, filters, again)
	}
}

func matchAny(filters []string, topic string) bool {
	return slices.ContainsFunc(filters, func(f string) bool { return mqtt.Match(f, topic) })
}

func FuzzMap(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(randomBytes(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkProperties(t, data) })
}

// The same properties on many random rule sets, with a count so that they cannot be true for want of cases.
func TestProperties(t *testing.T) {
	informative := 0
	for seed := range uint64(3_000) {
		if checkProperties(t, randomBytes(seed)) {
			informative++
		}
	}
	if informative < 1_500 {
		t.Errorf("only %d rule sets of 3000 were valid", informative)
	}
}

func randomBytes(seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, 400)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	return data
}

// intersect is compared with what the two filters match, topic by topic.
func FuzzIntersect(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(randomBytes(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &reader{data: slices.Clone(data)}
		a, b := r.filter(), r.filter()
		common, ok := intersect(a, b)
		if ok && !mqtt.ValidFilter(common) {
			t.Fatalf("intersect(%q, %q) = %q, which is no filter", a, b, common)
		}
		for range 50 {
			topic := r.topic()
			want := mqtt.Match(a, topic) && mqtt.Match(b, topic)
			if got := ok && mqtt.Match(common, topic); got != want {
				t.Fatalf("intersect(%q, %q) = %q, %v: matches %q: %v, want %v", a, b, common, ok, topic, got, want)
			}
		}
	})
}
