package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bridged/internal/config"
	"bridged/internal/doctor"
)

// online is what "check --online" has found out. As JSON it is documented with the reports.
type online struct {
	OK     int `json:"ok"`
	Failed int `json:"failed"`
	Held   int `json:"held"`
	// PassThrough are entries that stand for other devices, which cannot be tried.
	PassThrough []string         `json:"pass_through"`
	Devices     []*doctor.Report `json:"devices"`
}

// checkOnline examines all devices.
func (o *options) checkOnline(cmd *cobra.Command, cfg *config.Config, asJSON bool) error {
	bar := newBar(cmd.ErrOrStderr(), len(cfg.Devices))
	var reports []*doctor.Report
	err := untilSignal(cmd.Context(), terminalEndings, func(ctx context.Context) error {
		reports = doctor.New(cfg, doctor.Options{}).ExamineAll(ctx, bar.done)
		return nil
	})
	bar.clear()
	if err != nil {
		return err
	}
	found := gather(reports, cfg)
	out := cmd.OutOrStdout()
	if asJSON {
		if err := printJSON(out, found); err != nil {
			return err
		}
	} else {
		found.print(out)
	}
	if missing := len(cfg.Devices) - len(found.Devices); missing > 0 {
		return failed(fmt.Errorf("interrupted: %s not tried", count(missing, "device")), "")
	}
	if found.Failed > 0 {
		return failed(fmt.Errorf("%d of %s do not get through", found.Failed, count(len(cfg.Devices), "device")),
			`"bridged doctor DEVICE" tells more of one`)
	}
	return nil
}

func gather(reports []*doctor.Report, cfg *config.Config) *online {
	found := &online{PassThrough: []string{}, Devices: []*doctor.Report{}}
	for _, r := range reports {
		if r == nil { // interrupted
			continue
		}
		found.Devices = append(found.Devices, r)
		switch r.Result {
		case doctor.Passed:
			found.OK++
		case doctor.Held:
			found.Held++
		default:
			found.Failed++
		}
	}
	for _, p := range cfg.PassThrough {
		found.PassThrough = append(found.PassThrough, p.Name())
	}
	return found
}

// print prints a line for each device that failed, and what to do about each kind of failure.
func (o *online) print(w io.Writer) {
	fmt.Fprintf(w, "online: %d ok, %d failed, %d left alone\n", o.OK, o.Failed, o.Held)
	if o.Held > 0 {
		fmt.Fprintf(w, "  A bridged runs that has, or may have, the sessions of %s: there the login was not tried.\n",
			count(o.Held, "device"))
	}
	if len(o.PassThrough) > 0 {
		fmt.Fprintf(w, "  Cannot be tried, since the devices bring their logins: %s\n", strings.Join(o.PassThrough, ", "))
	}
	if o.Failed == 0 {
		return
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DEVICE\tCLOUD\tFAILED AT\tWHY")
	kinds := make(map[string]*doctor.Failure)
	devices := make(map[string]int)
	for _, r := range o.Devices {
		if f := r.Failure; f != nil {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", r.Device, r.Cloud, f.Stage, f.Reason)
			kinds[string(f.Kind)] = f
			devices[string(f.Kind)]++
		}
	}
	_ = table.Flush()                                                     // a failed write is noticed by output
	sorted := slices.SortedFunc(maps.Keys(kinds), func(a, b string) int { // the most frequent first
		return cmp.Or(cmp.Compare(devices[b], devices[a]), cmp.Compare(a, b))
	})
	for _, k := range sorted {
		fmt.Fprintf(w, "\n%s (%s): %s\n", k, count(devices[k], "device"), kinds[k].Kind.Info().Says)
		printExplanation(w, kinds[k])
	}
}

// bar shows how far a command is, on a terminal.
type bar struct {
	w            io.Writer // nil: shows nothing
	all          int
	soFar, wrong int
	width        int // of the last line
}

func newBar(w io.Writer, all int) *bar {
	if f, ok := w.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		w = nil
	}
	b := &bar{w: w, all: all}
	b.show()
	return b
}

const barWidth = 30

func (b *bar) done(r *doctor.Report) {
	b.soFar++
	if r.Failure != nil {
		b.wrong++
	}
	b.show()
}

func (b *bar) show() {
	if b.w == nil || b.all == 0 {
		return
	}
	full := barWidth * b.soFar / b.all
	line := fmt.Sprintf("[%s%s] %d of %d", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), b.soFar, b.all)
	if b.wrong > 0 {
		line += fmt.Sprintf(", %d failed", b.wrong)
	}
	fmt.Fprintf(b.w, "\r%-*s", b.width, line)
	b.width = len(line)
}

// clear makes room for what is printed next.
func (b *bar) clear() {
	if b.w != nil && b.width > 0 {
		fmt.Fprintf(b.w, "\r%*s\r", b.width, "")
	}
}
