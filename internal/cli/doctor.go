package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"bridged/internal/demo"
	"bridged/internal/doctor"
)

func newDoctor(o *options) *cobra.Command {
	var opts doctor.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor DEVICE",
		Short: "Connect a device to its cloud, stage by stage, and explain what fails",
		Long: `doctor connects to a device's cloud as bridged would and tells of each stage on the way: the
configuration, files of secrets, the clock, DNS, TCP, the proxy, TLS, the WebSocket handshake, the login, the
subscriptions that are configured, a message to the device's doctor_topic if it has one, and the goodbye. The first
failure is explained, with its likely causes and the next step.

A cloud allows one connection per device. If a bridged runs that has this device's session, doctor stops before the
login, which would end that session, unless --take-over is given. What the cloud keeps for the device, its subscriptions
and messages, stays there: doctor acknowledges nothing, and publishes nothing but to doctor_topic.

It exits with 1 if the device does not get through. docs/troubleshooting.md lists all that can go wrong.`,
		Example: `  bridged doctor boiler-1
  bridged doctor boiler-1 --take-over    # although a bridged runs that has its session
  bridged doctor boiler-1 --json`,
		Args:              takes("DEVICE"),
		ValidArgsFunction: o.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			dev, cfg, err := o.device(args[0], "doctor has no login to try")
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			style := styleOf(out, o.lookupEnv)
			var tell func(doctor.Step)
			if !asJSON {
				fmt.Fprintf(out, "%s, cloud %s, %s\n\n", dev.Name, dev.Cloud.Name, doctor.URLOf(dev.Cloud))
				tell = func(s doctor.Step) { printStep(out, style, s) }
			}
			var report *doctor.Report
			err = untilSignal(cmd.Context(), terminalEndings, func(ctx context.Context) error {
				report = doctor.New(cfg, opts).Examine(ctx, dev, tell)
				return nil
			})
			switch {
			case err != nil:
				return err
			case !asJSON:
				printResult(out, report)
			case printJSON(out, report) != nil:
				return errors.New("write the report as JSON")
			}
			if f := report.Failure; f != nil {
				return failed(fmt.Errorf("%s does not get through: %s failed", dev.Name, f.Stage), "")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&opts.TakeOver, "take-over", false, "log in even if that ends the session of a bridged that runs")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON, at the end")
	return cmd
}

// words are how the statuses are printed, with their colours (ECMA-48).
var words = map[doctor.Status]struct {
	word   string
	colour int
}{
	doctor.OK: {"ok", 32}, doctor.Warning: {"warn", 33}, doctor.Failed: {"FAIL", 31}, doctor.Skipped: {"skip", 2},
}

func printStep(w io.Writer, style demo.Style, s doctor.Step) {
	word := fmt.Sprintf("%-4s", words[s.Status].word)
	if style.Colour {
		word = fmt.Sprintf("\x1b[%dm%s\x1b[0m", words[s.Status].colour, word)
	}
	fmt.Fprintf(w, "%s  %-13s  %9s  %s\n", word, s.Stage, took(s), s.Summary)
	for _, n := range s.Notes {
		fmt.Fprintf(w, "%32s%s\n", "", n)
	}
}

func took(s doctor.Step) string {
	if s.Status == doctor.Skipped {
		return ""
	}
	d := time.Duration(s.Seconds * float64(time.Second))
	if d >= time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
}

// printResult says how it went, and explains the failure if there is one.
func printResult(w io.Writer, r *doctor.Report) {
	fmt.Fprintln(w)
	switch r.Result {
	case doctor.Passed:
		fmt.Fprintf(w, "%s gets through to its cloud.\n", r.Device)
	case doctor.Held:
		fmt.Fprintf(w, "%s: all is well as far as this went. A bridged runs that has, or may have, its session.\n", r.Device)
	default:
		fmt.Fprintf(w, "%s\n", r.Failure.Error)
		printExplanation(w, r.Failure)
	}
}

func printExplanation(w io.Writer, f *doctor.Failure) {
	fmt.Fprintln(w, "  likely causes:")
	for _, c := range f.Causes {
		fmt.Fprintf(w, "    - %s\n", c)
	}
	fmt.Fprintf(w, "  next step: %s\n", f.Remedy)
	if f.RetryAfter > 0 {
		fmt.Fprintf(w, "  it asks to come back after %s\n", time.Duration(f.RetryAfter*float64(time.Second)))
	}
}
