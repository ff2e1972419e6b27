// Command bench measures bridged beside what one could put in its place: a tunnel that carries bytes from TCP to
// WebSocket (bench/tunnel), and mosquitto as a bridge.
//
// One process plays all devices and the cloud, and accounts for each message: it carries its number and when it was
// sent. The programs under test take turns, each run begins with a new process, and what is printed are medians. What
// the bench itself uses of the processor is printed, too: on a machine with few of them it limits everybody's
// throughput.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// reference is the subject that others are compared with.
const reference = "tunnel"

type options struct {
	time, warm, settle time.Duration
	repeat             int
	cases, dir         string
	against, profiles  string
	only               string
	cert               *tls.Certificate
}

func main() {
	runtime.LockOSThread() // what is started here ends with this thread
	var o options
	flag.DurationVar(&o.time, "time", 5*time.Second, "how long to measure a run under load")
	flag.DurationVar(&o.warm, "warm", time.Second, "how long the load is there before")
	flag.DurationVar(&o.settle, "settle", 10*time.Second, "how long devices have been idle before that is measured")
	flag.IntVar(&o.repeat, "repeat", 3, "how many runs of each case with each program")
	flag.StringVar(&o.cases, "cases", "", "which cases: full/wss, full, grow*, all; default: the main ones")
	flag.StringVar(&o.dir, "dir", "", "where to put files (not on a tmpfs, or what is written to disk is not counted)")
	flag.StringVar(&o.against, "against", "", "another bridged program to run beside this one")
	flag.StringVar(&o.only, "only", "", "only these programs: bridged, tunnel, mosquitto, against")
	flag.StringVar(&o.profiles, "profiles", "", "a directory for profiles of bridged, which cost some CPU time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := bench(ctx, os.Stdout, os.Stderr, &o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, out, progress io.Writer, o *options) (err error) {
	cases, err := choose(o.cases)
	if err != nil {
		return err
	}
	if o.dir, err = os.MkdirTemp(o.dir, "bridged-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	ca := filepath.Join(o.dir, "ca.pem")
	if o.cert, err = certificate(ca); err != nil {
		return err
	}
	subjects, err := o.subjects(ctx, out)
	if err != nil {
		return err
	}
	for _, c := range cases {
		rows, err := o.repeatedly(ctx, progress, c, subjects, env{ca: ca, scheme: c.scheme})
		if err != nil {
			return err
		}
		write(out, c, rows)
	}
	return nil
}

// subjects builds the programs under test.
func (o *options) subjects(ctx context.Context, out io.Writer) (all []subject, err error) {
	ours, theirs := filepath.Join(o.dir, "bridged"), filepath.Join(o.dir, "tunnel")
	for program, pkg := range map[string]string{ours: "bridged/cmd/bridged", theirs: "bridged/bench/tunnel"} {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if said, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", pkg, err, said)
		}
	}
	info, err := os.Stat(ours)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "bridged, stripped, for %s: %.1f MB.", runtime.GOARCH, float64(info.Size())/1e6)
	all = []subject{bridged("bridged", ours), tunnel(theirs)}
	if o.against != "" {
		all = append(all, bridged("against", o.against))
	}
	if program, err := exec.LookPath("mosquitto"); err == nil {
		all = append(all, mosquitto(program))
		said, _ := exec.CommandContext(ctx, program, "-h").Output() // its exit status is 3
		line, _, _ := strings.Cut(string(said), "\n")
		fmt.Fprintf(out, " %s, as a bridge over TCP.", line)
	}
	fmt.Fprintf(out, " %d processors, %s.\n", runtime.NumCPU(), runtime.Version())
	if o.only != "" {
		var some []subject
		for _, s := range all {
			if strings.Contains(","+o.only+",", ","+s.name+",") {
				some = append(some, s)
			}
		}
		all = some
	}
	return all, nil
}

// repeatedly runs a case several times, all subjects in turn.
func (o *options) repeatedly(ctx context.Context, progress io.Writer, c *testcase, subjects []subject, e env) (
	rows []row, err error,
) {
	for _, s := range subjects {
		if s.scheme == "" || c.mosquitto {
			rows = append(rows, row{subject: s.name})
		}
	}
	for i := range o.repeat {
		at := 0
		for _, s := range subjects {
			if s.scheme != "" && !c.mosquitto {
				continue
			}
			if o.profiles != "" && s.name == "bridged" {
				if e.profile, err = freeAddress(); err != nil {
					return nil, err
				}
			} else {
				e.profile = ""
			}
			f, err := execute(ctx, c, s, e, o)
			if err != nil {
				return nil, fmt.Errorf("%s with %s: %w", c.name, s.name, err)
			}
			fmt.Fprintf(progress, "%s %d/%d %s: %.0f/s, %s, p99 %s, start %s, idle %.4f, %s per device, lost %d\n", c.name,
				i+1, o.repeat, s.name, f.throughput, f.cpuPerMessage, f.relayP99, f.startTime.Round(time.Millisecond),
				f.idleCPU, kib(f.residentPerDevice), f.tally.lost)
			rows[at].runs = append(rows[at].runs, f)
			at++
		}
	}
	return rows, nil
}
