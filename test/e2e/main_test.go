package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// bridged is the program under test.
var bridged string

// patience is how long something that has to happen may take, on a machine that is busy with all the other tests. It
// only matters when a test fails. bridged tries a cloud again after a random time that doubles with each failure: where
// a broker needs 10 s to start again, the next try may be 16 s away.
const patience = time.Minute

// parallel is how many tests run at once. They wait for other programs most of the time.
const parallel = "6"

func TestMain(m *testing.M) {
	flag.Parse()
	err := flag.Set("test.parallel", parallel)
	dir, mkErr := os.MkdirTemp("", "bridged-e2e-")
	bridged = filepath.Join(dir, "bridged")
	if err = errors.Join(err, mkErr, findPrograms()); err == nil {
		err = build(bridged)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}))
}

func build(program string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "build", "-race", "-o", program, "bridged/cmd/bridged").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// findPrograms looks for what the tests need. Debian keeps mosquitto in /usr/sbin, which is not in everybody's path.
func findPrograms() error {
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin"); err != nil {
		return err
	}
	var missing []error
	for _, name := range []string{"mosquitto", "mosquitto_passwd", "mosquitto_pub", "mosquitto_sub", "node"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, fmt.Errorf("%w: scripts/setup installs it", err))
		}
	}
	if _, err := os.Stat(nodeModules + "/mqtt/package.json"); err != nil {
		missing = append(missing, fmt.Errorf("MQTT.js: %w: make setup installs it", err))
	}
	return errors.Join(missing...)
}

// until waits for a condition.
func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-ctx.Done():
			tb.Fatalf("%s: still not so after %s", what, patience)
		}
	}
}

const nodeModules = "../mqttjs/node_modules"
