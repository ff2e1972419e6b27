package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// row is all runs of a case with a subject.
type row struct {
	subject string
	runs    []figures
}

// figure is a column.
type figure struct {
	name  string
	of    func(f *figures) float64
	shown func(v float64) string
	ratio bool // whether it is compared
}

func micros(v float64) string { return fmt.Sprintf("%.1f µs", v/1e3) }

func duration(v float64) string {
	if v < float64(10*time.Millisecond) {
		return fmt.Sprintf("%.2f ms", v/1e6)
	}
	return fmt.Sprintf("%.0f ms", v/1e6)
}

func kib(v float64) string { return fmt.Sprintf("%.1f KiB", v/1024) }

func mib(v float64) string { return fmt.Sprintf("%.1f MiB", v/(1<<20)) }

func cores(v float64) string { return fmt.Sprintf("%.2f", v) }

func count(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func optional(v float64) string {
	if v < 0 {
		return "?"
	}
	return fmt.Sprintf("%.1f", v)
}

var relayFigures = []figure{
	{"messages/s", func(f *figures) float64 { return f.throughput }, count, true},
	{"CPU per message", func(f *figures) float64 { return float64(f.cpuPerMessage) }, micros, true},
	{"relayed p50", func(f *figures) float64 { return float64(f.relayP50) }, duration, true},
	{"p99", func(f *figures) float64 { return float64(f.relayP99) }, duration, true},
	{"acknowledged p50", func(f *figures) float64 { return float64(f.ackP50) }, duration, true},
	{"p99", func(f *figures) float64 { return float64(f.ackP99) }, duration, true},
	{"memory", func(f *figures) float64 { return float64(f.atEnd) }, mib, true},
	{"bytes to disk per message", func(f *figures) float64 { return f.diskPerMessage }, optional, false},
	{"cores", func(f *figures) float64 { return f.load }, cores, false},
	{"cores of the bench", func(f *figures) float64 { return f.own }, cores, false},
}

var idleFigures = []figure{
	{"all are there after", func(f *figures) float64 { return float64(f.startTime) }, duration, true},
	{"CPU for that, per device", func(f *figures) float64 {
		return float64(f.startCPU) / (float64(f.atEnd) / f.residentPerDevice)
	}, micros, true},
	{"memory per device", func(f *figures) float64 { return f.residentPerDevice }, kib, true},
	{"of it since the first device", func(f *figures) float64 { return f.grownPerDevice }, kib, true},
	{"cores, idle", func(f *figures) float64 { return f.idleCPU }, func(v float64) string {
		return fmt.Sprintf("%.4f", v)
	}, true},
	{"pings/s at the cloud", func(f *figures) float64 { return f.pingsPerSecond }, count, false},
}

// write writes a table of a case, in Markdown. Ratios are medians of the ratios of runs that followed each other.
func write(w io.Writer, c *testcase, rows []row) {
	columns := relayFigures
	if c.idle > 0 {
		columns = idleFigures
	}
	fmt.Fprintf(w, "\n### %s: %s, %s\n\n|", c.name, c.about, strings.ToUpper(c.scheme))
	for _, f := range columns {
		fmt.Fprintf(w, " | %s", f.name)
	}
	fmt.Fprintf(w, " | lost, twice, reordered |\n|%s\n", strings.Repeat(" --- |", len(columns)+2))
	for _, r := range rows {
		fmt.Fprintf(w, "| %s", r.subject)
		var all tally
		for _, f := range columns {
			fmt.Fprintf(w, " | %s", f.shown(median(values(r.runs, f.of))))
		}
		for _, run := range r.runs {
			all.add(run.tally)
		}
		fmt.Fprintf(w, " | %s, %s, %s of %s |\n", count(float64(all.lost)), count(float64(all.duplicated)),
			count(float64(all.reordered)), count(float64(all.sent)))
	}
	base := slices.IndexFunc(rows, func(r row) bool { return r.subject == reference })
	for _, r := range rows {
		if base < 0 || r.subject == reference {
			continue
		}
		fmt.Fprintf(w, "| **%s / %s**", r.subject, reference)
		for _, f := range columns {
			fmt.Fprintf(w, " | %s", ratio(f, r.runs, rows[base].runs))
		}
		fmt.Fprint(w, " | |\n")
	}
}

func ratio(f figure, runs, base []figures) string {
	var all []float64
	for i := range min(len(runs), len(base)) {
		if b := f.of(&base[i]); b > 0 {
			all = append(all, f.of(&runs[i])/b)
		}
	}
	if !f.ratio || len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", median(all))
}

func values(runs []figures, of func(*figures) float64) (all []float64) {
	for i := range runs {
		all = append(all, of(&runs[i]))
	}
	return all
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
