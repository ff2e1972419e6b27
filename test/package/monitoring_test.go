package pack

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	alerts    = top + "/deploy/prometheus/alerts.yaml"
	dashboard = top + "/deploy/grafana/bridged.json"
)

func TestAlerts(t *testing.T) {
	t.Parallel()
	run(t, "promtool", "check", "rules", alerts)
	run(t, "promtool", "test", "rules", top+"/deploy/prometheus/alerts_test.yaml")
	names := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(read(t, alerts), -1)
	for _, n := range names {
		if !strings.Contains(read(t, top+"/deploy/prometheus/alerts_test.yaml"), `alertname="`+n[1]+`"`) {
			t.Errorf("%s is not tested", n[1])
		}
	}
	known := metrics(t)
	known.check(t, "alerts", read(t, alerts))
	known.check(t, "test of the alerts", read(t, top+"/deploy/prometheus/alerts_test.yaml"))
}

// The dashboard's queries are understood, and ask for what there is.
func TestDashboard(t *testing.T) {
	t.Parallel()
	var d struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, dashboard)), &d); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", "x", "$cloud", "x")
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	known, ids, queries := metrics(t), map[int]bool{}, 0
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d, %q", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, q := range p.Targets {
			queries++
			expr := variables.Replace(q.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: unknown variable in %s", p.Title, q.Expr)
			}
			fmt.Fprintf(&rules, "  - {record: 'q%d', expr: '%s'}\n", queries, strings.ReplaceAll(expr, "'", "''"))
			known.check(t, p.Title, expr)
		}
	}
	if queries < 20 {
		t.Errorf("%d queries", queries)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, file, rules.String())
	run(t, "promtool", "check", "rules", file)
}

// labelsOf are the labels of each metric.
type labelsOf map[string][]string

// metrics finds the metrics in the source of internal/admin.
func metrics(tb testing.TB) labelsOf {
	tb.Helper()
	declared := regexp.MustCompile(`desc\("(\w+)",\s*"(?:[^"\\]|\\.)*"((?:,\s*"\w+")*)\)`)
	word := regexp.MustCompile(`\w+`)
	all := labelsOf{"up": nil, "process_start_time_seconds": nil, "process_cpu_seconds_total": nil,
		"process_resident_memory_bytes": nil}
	source := read(tb, top+"/internal/admin/metrics.go")
	for _, m := range declared.FindAllStringSubmatch(source, -1) {
		all["bridged_"+m[1]] = word.FindAllString(m[2], -1)
	}
	if want := strings.Count(source, `= desc("`); len(all) != want+4 {
		tb.Errorf("%d metrics found, %d declared", len(all)-4, want)
	}
	return all
}

var (
	metric   = regexp.MustCompile(`\b((?:bridged|process)_\w+)(?:\{([^}]*)\})?`)
	selector = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
)

// check checks that metrics and their labels exist.
func (known labelsOf) check(tb testing.TB, where, text string) {
	tb.Helper()
	for _, m := range metric.FindAllStringSubmatch(text, -1) {
		labels, ok := known[m[1]]
		if !ok {
			tb.Errorf("%s: there is no metric %s", where, m[1])
		}
		for _, l := range selector.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(append(labels, "job", "instance"), l[1]) {
				tb.Errorf("%s: %s has no label %s", where, m[1], l[1])
			}
		}
	}
}
