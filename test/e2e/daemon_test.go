package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Every secret and every payload in these tests begins with one of these, so that a log which shows one is noticed.
const (
	secretMark  = "s3cr3t"
	payloadMark = "p4yl0ad"
)

// daemon is a running bridged.
type daemon struct {
	*process
	tb   testing.TB
	conf string
	addr string // where devices connect
	// expected are messages above info that the log may have.
	expected []string
	ended    bool // and was looked at
}

// writeConfig writes a configuration: the given text below a listener on a free port and a state directory of its own.
func writeConfig(tb testing.TB, yaml string) string {
	tb.Helper()
	dir := tb.TempDir()
	const rest = "admin: {listen: '127.0.0.1:0'}\nlog: {level: debug}\n"
	head := "listen: [{url: 'tcp://127.0.0.1:0'}]\n" + rest
	if strings.Contains(yaml, "listen:") {
		head = rest
	}
	conf := filepath.Join(dir, "bridged.yaml")
	writeFile(tb, conf, head+"state_dir: "+filepath.Join(dir, "state")+"\n"+yaml)
	return conf
}

// startDaemon runs bridged and waits until it accepts devices. When the test ends it is stopped, which has to go well,
// and nothing may have been logged above info but what is expected, and no secret and no payload at all.
func startDaemon(tb testing.TB, yaml string, expected ...string) *daemon {
	tb.Helper()
	return runDaemon(tb, writeConfig(tb, yaml), expected...)
}

// runDaemon is startDaemon with a configuration file.
func runDaemon(tb testing.TB, conf string, expected ...string) *daemon {
	tb.Helper()
	d := &daemon{tb: tb, conf: conf, expected: expected}
	d.process = start(tb, command{
		name: bridged, args: []string{"run", "-c", conf},
		env: []string{"GORACE=atexit_sleep_ms=50"}, // it would sleep for a second
	})
	tb.Cleanup(d.end)
	text := d.process.expect(1, `"listen":`)
	var entry struct {
		Listen []string `json:"listen"`
	}
	if err := json.Unmarshal([]byte(text), &entry); err != nil || len(entry.Listen) == 0 {
		tb.Fatalf("no addresses (%v) in: %s", err, text)
	}
	d.addr = entry.Listen[0]
	return d
}

// end stops the daemon and looks at how it ended and what it logged.
func (d *daemon) end() {
	d.tb.Helper()
	if d.ended {
		return
	}
	d.signal(syscall.SIGTERM)
	d.goodEnd()
}

// goodEnd waits until the daemon has ended, by a signal that it was sent, and looks at how, and at what it logged.
func (d *daemon) goodEnd() {
	d.tb.Helper()
	d.ended = true
	if code := d.wait(); code != 0 {
		d.tb.Errorf("bridged ended with status %d", code)
	}
	d.checkLog()
}

// crash kills the daemon.
func (d *daemon) crash() {
	d.tb.Helper()
	d.ended = true
	d.kill()
	d.checkLog()
}

// checkLog looks for what a log must not have.
func (d *daemon) checkLog() {
	d.tb.Helper()
	if !d.over() {
		d.tb.Fatal("the log is looked at before it is complete")
	}
	var strange []string
	for _, l := range d.said() {
		if strings.Contains(l.text, secretMark) || strings.Contains(l.text, payloadMark) {
			d.tb.Errorf("a secret or a payload in the log: %s", l.text)
		}
		var entry struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
		}
		if err := json.Unmarshal([]byte(l.text), &entry); err != nil || !l.stderr {
			strange = append(strange, l.text)
		} else if entry.Level != "debug" && entry.Level != "info" && !d.expects(entry.Msg) {
			d.tb.Errorf("logged: %s", l.text)
		}
	}
	if len(strange) > 0 {
		d.tb.Errorf("not a log line on stderr:\n%s", strings.Join(strange, "\n"))
	}
}

func (d *daemon) expects(msg string) bool {
	for _, e := range d.expected {
		if strings.Contains(msg, e) {
			return true
		}
	}
	return false
}

// logged waits for the nth log line, from 1, that has all of these texts.
func (d *daemon) logged(n int, texts ...string) {
	d.tb.Helper()
	_, ok := d.find(n, func(l string) bool {
		for _, t := range texts {
			if !strings.Contains(l, t) {
				return false
			}
		}
		return true
	})
	if !ok {
		d.tb.Fatalf("bridged ended without logging %q", texts)
	}
}

// online waits until a device's cloud session is up for the nth time, from 1.
func (d *daemon) online(device string, n int) {
	d.tb.Helper()
	d.logged(n, `"device":"`+device+`"`, `"state":"online"`)
}

// gone waits until a device has left for the nth time, from 1: what it sent before has been read then.
func (d *daemon) gone(device string, n int) {
	d.tb.Helper()
	d.logged(n, `"msg":"device disconnected"`, `"device":"`+device+`"`)
}
