package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bridged/internal/cloudsim"
	"bridged/internal/testdevice"
)

const (
	each   = 1000 // devices of each cloud
	steady = 990  // of them; the others have their connections cut again and again
	// perSecond is the limit on dials to one cloud that is configured; burst is how many come at once after a quiet time.
	// All clouds together may be dialled twice as often.
	perSecond, burst = 50, 10
	// spread is within which time devices try again when one of them has got through.
	spread = 5 * time.Second
	// slack is what a busy machine may add.
	slack = 5 * time.Second
)

// backWithin is how long it may take until all devices of a cloud are back: one of them finds out, it tells the others,
// and they have their turns. Those that were refused by the load balancer try at random times of up to a few seconds,
// as long as the outage is short, so that the first finds out soon.
const backWithin = spread + (each-burst)*time.Second/perSecond

// Two thousand devices of two clouds lose their sessions at the same time, as in a power cut at the clouds. When half
// of them are back those lose theirs once more, and then it happens again. The clouds count how often they are dialled,
// and refuse devices that connect too often. In the end all are back in time, with what was published meanwhile.
func TestFleetAfterOutage(t *testing.T) {
	clouds := []*cloud{newCloud(t, cloudsim.Aliyun, each), newCloud(t, cloudsim.Tencent, each)}
	addr := start(t, clouds)
	begin := time.Now()
	allBack(t, clouds, begin)
	t.Logf("after the start all are online within %s", time.Since(begin).Round(time.Millisecond))

	var talkers []*testdevice.Device
	for _, c := range clouds {
		for _, name := range c.names[:20] {
			talkers = append(talkers, testdevice.Connect(t, addr, testdevice.Options{
				ClientID: name, Username: lanUser, Password: lanPassword,
			}))
		}
	}
	vexed, calm := context.WithCancel(t.Context())
	var vexing sync.WaitGroup
	defer vexing.Wait()
	defer calm()
	for _, c := range clouds {
		vexing.Go(func() { c.vex(vexed) })
	}
	for _, c := range clouds {
		until(t, time.Minute, "all that are vexed have come back three times", func() bool { return c.leastConnected() >= 4 },
			func() string { return fmt.Sprintf("%d; %v", c.leastConnected(), c.Violations()) })
	}
	for round := range 2 {
		outage := time.Now()
		for _, c := range clouds {
			c.away()
		}
		for i, d := range talkers {
			d.Publish("up", fmt.Appendf(nil, "%d %d", i, round), 1)
		}
		for _, c := range clouds {
			until(t, time.Minute, "many have tried to come back", func() bool { return c.dialledSince(outage) >= each/2 },
				func() string { return fmt.Sprint(c.dialledSince(outage)) })
		}
		begin = time.Now()
		t.Logf("outage of %s", begin.Sub(outage).Round(time.Millisecond))
		for _, c := range clouds {
			c.back()
		}
		for times := range 2 {
			for _, c := range clouds {
				if round > 0 {
					break
				}
				until(t, time.Minute, "half are back", func() bool { return c.online() >= each/2 },
					func() string { return fmt.Sprint(c.online()) })
				if times == 0 {
					c.Drop(cloudsim.All, cloudsim.CutReset)
				}
			}
		}
	}
	allBack(t, clouds, begin)
	took := time.Since(begin)
	t.Logf("all are back within %s, computed: %s", took.Round(time.Millisecond), backWithin)
	if took > backWithin+slack {
		t.Errorf("it took %s until all were back, want %s", took, backWithin)
	}
	for _, c := range clouds {
		until(t, time.Minute, "what was published in the outages has arrived",
			func() bool { return len(c.Received()) >= len(talkers) }, func() string { return fmt.Sprint(len(c.Received())) })
		c.checkPolite()
	}
	checkRates(t, clouds)
}

// allBack waits until all devices are online.
func allBack(t *testing.T, clouds []*cloud, since time.Time) {
	t.Helper()
	for _, c := range clouds {
		until(t, 3*time.Minute, "all are online", func() bool { return c.online() == steady },
			func() string { return fmt.Sprintf("%d of %s after %s", c.online(), c.provider, time.Since(since)) })
	}
}

// checkPolite checks that nobody has connected too often, or done anything else that the cloud forbids.
func (c *cloud) checkPolite() {
	c.tb.Helper()
	for i, v := range c.Violations() {
		if c.tb.Errorf("%s: %s: %s", v.Device, v.Rule, v.Detail); i == 10 {
			break
		}
	}
	for _, f := range c.LoginFailures() {
		if f.Code != 0 { // otherwise the cloud went away meanwhile
			c.tb.Errorf("%s was refused with %d: %s", f.Device, f.Code, f.Reason)
		}
	}
}

// checkRates checks that in no span of time there were more dials than are allowed, as far as the clouds can tell:
// they note a dial late when a thousand of their sessions end.
func checkRates(t *testing.T, clouds []*cloud) {
	t.Helper()
	var all []time.Time
	for _, c := range clouds {
		all = append(all, c.times()...)
		checkRate(t, c.provider, c.times(), perSecond, burst)
	}
	slices.SortFunc(all, time.Time.Compare)
	checkRate(t, "all clouds", all, 2*perSecond, 2*burst)
}

func checkRate(t *testing.T, who string, dials []time.Time, perSecond, burst int) {
	t.Helper()
	const late = 2 * time.Second
	for _, span := range []time.Duration{5 * time.Second, 20 * time.Second} {
		most, first := 0, 0
		for i, at := range dials {
			for at.Sub(dials[first]) > span {
				first++
			}
			most = max(most, i-first+1)
		}
		allowed := burst + int((span+late).Seconds()*float64(perSecond))
		t.Logf("%s: at most %d of %d dials within %s, allowed: %d", who, most, len(dials), span, allowed)
		if most > allowed {
			t.Errorf("%s: %d dials within %s, want %d", who, most, span, allowed)
		}
	}
}

const lanUser, lanPassword = "lan", "s3cr3t"

// start starts bridged and ends it with the test.
func start(t *testing.T, clouds []*cloud) (addr string) {
	t.Helper()
	dir := t.TempDir()
	addr = freeAddress(t)
	var y, devices strings.Builder
	fmt.Fprintf(&y, "listen: [{url: 'tcp://%s'}]\nadmin: {listen: ''}\nstate_dir: %s\n", addr, filepath.Join(dir, "state"))
	fmt.Fprintf(&y, "limits: {dials_per_second: %d}\nclouds:\n", perSecond)
	for _, c := range clouds {
		section, list := c.yaml()
		y.WriteString(section)
		devices.WriteString(list)
	}
	fmt.Fprintf(&y, "defaults: {upstream: always, login: {username: %s, password: %s}}\ndevices:\n%s",
		lanUser, lanPassword, devices.String())
	conf := filepath.Join(dir, "bridged.yaml")
	if err := os.WriteFile(conf, []byte(y.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bridged, "run", "-c", conf)
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the test be killed
	var log bytes.Buffer
	var reading sync.WaitGroup
	started := make(chan error)
	reading.Go(func() {
		runtime.LockOSThread() // Pdeathsig is about the thread
		defer runtime.UnlockOSThread()
		err := errors.Join(cmd.Start(), w.Close())
		if started <- err; err == nil {
			_, _ = io.Copy(&log, r) // until it ends
			_ = cmd.Wait()          // ProcessState has it
		}
		_ = r.Close()
	})
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // if it has ended, its status tells
		reading.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("bridged ended with %s:\n%s", cmd.ProcessState, log.String())
		}
		for l := range strings.Lines(log.String()) {
			if strings.Contains(l, `"level":"error"`) {
				t.Errorf("bridged said: %s", l)
			}
		}
	})
	return addr
}
