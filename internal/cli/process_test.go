package cli

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestProcesses runs scripts about commands that go on until they are told to end.
func TestProcesses(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/process",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Values[processesKey{}] = processes{}
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  exits,
			"occupy": occupy,
			"starts": starts,
			"sees":   sees,
			"gets":   gets,
			"ends":   ends,
		},
	})
}

// processes are those of a script, by name.
type processes map[string]*exec.Cmd

type processesKey struct{}

// patience is how long something that must happen may take.
const patience = 30 * time.Second

// occupy listens on a free port until the script ends, and sets a variable to its number: occupy VARIABLE.
func occupy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: occupy VARIABLE")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// starts runs bridged in the background, with its output in NAME.out and NAME.err: starts NAME [ARGUMENT...].
func starts(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: starts NAME [ARGUMENT...]")
	}
	cmd := exec.Command("bridged", args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "PATH=" + ts.Getenv("PATH")}
	if dir := ts.Getenv("GOCOVERDIR"); dir != "" {
		cmd.Env = append(cmd.Env, "GOCOVERDIR="+dir)
	}
	stdout, err := os.Create(ts.MkAbs(args[0] + ".out"))
	ts.Check(err)
	stderr, err := os.Create(ts.MkAbs(args[0] + ".err"))
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill() // if the script failed before its end
		_ = cmd.Wait()
		_ = stdout.Close()
		_ = stderr.Close()
	})
	ts.Value(processesKey{}).(processes)[args[0]] = cmd
}

// sees waits until a file has a match for a pattern, and sets the variable MATCH to the pattern's first group:
// sees FILE PATTERN.
func sees(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sees FILE PATTERN")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); time.Since(start) < patience; <-tick.C {
		if found := re.FindStringSubmatch(ts.ReadFile(args[0])); found != nil {
			if len(found) > 1 {
				ts.Setenv("MATCH", found[1])
			}
			return
		}
	}
	ts.Fatalf("no %q in %s:\n%s", args[1], args[0], ts.ReadFile(args[0]))
}

var signalsByName = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM}

// gets sends a signal to a process: gets NAME SIGNAL.
func gets(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || signalsByName[args[1]] == 0 {
		ts.Fatalf("usage: gets NAME HUP|INT|TERM")
	}
	ts.Check(process(ts, args[0]).Process.Signal(signalsByName[args[1]]))
}

// ends waits for the end of a process and checks its exit status: ends NAME STATUS.
func ends(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ends NAME STATUS")
	}
	cmd := process(ts, args[0])
	hangs := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer hangs.Stop()
	err := cmd.Wait()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		ts.Fatalf("%v", err)
	}
	if got := cmd.ProcessState.String(); got != "exit status "+args[1] {
		ts.Fatalf("%s, want %s\n%s", got, args[1], ts.ReadFile(args[0]+".err"))
	}
}

func process(ts *testscript.TestScript, name string) *exec.Cmd {
	cmd := ts.Value(processesKey{}).(processes)[name]
	if cmd == nil {
		ts.Fatalf("no process %s", name)
	}
	return cmd
}
