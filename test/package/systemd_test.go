package pack

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// booted is a systemd of its own, in which the package is installed.
type booted struct {
	tb   testing.TB
	init string // its process id, as this system sees it
}

// boot starts a systemd in namespaces of its own.
func boot(tb testing.TB, deb string) *booted {
	tb.Helper()
	deb, err := filepath.Abs(deb)
	if err != nil {
		tb.Fatal(err)
	}
	script, err := filepath.Abs("testdata/boot.sh")
	if err != nil {
		tb.Fatal(err)
	}
	enter := ""
	for _, group := range cgroups(tb) {
		enter += "echo $$ >" + group + "/cgroup.procs; "
	}
	var log bytes.Buffer
	// The shell is replaced by unshare, whose only child is the first process.
	cmd := exec.Command("sh", "-ec", enter+`exec unshare -m -p -f -u -i -n -C sh "$@"`, "sh", script, tb.TempDir(), deb)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	}()
	b := &booted{tb: tb}
	tb.Cleanup(func() {
		if b.init != "" {
			_ = exec.Command("kill", "-KILL", b.init).Run() // and with it all others
		}
		_ = cmd.Process.Kill()
		<-ended
	})
	b.until("systemd runs", func() bool {
		select {
		case <-ended:
			tb.Fatalf("it does not start:\n%s", log.String())
		default:
		}
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		b.init = strings.TrimSpace(string(children))
		comm, _ := os.ReadFile("/proc/" + b.init + "/comm")
		if string(comm) != "systemd\n" {
			return false
		}
		out, _ := b.try("systemctl is-system-running")
		return strings.HasPrefix(out, "running") || strings.HasPrefix(out, "degraded")
	})
	return b
}

// cgroups makes a control group for the test in each hierarchy that systemd needs.
func cgroups(tb testing.TB) (groups []string) {
	tb.Helper()
	tops := []string{"/sys/fs/cgroup"}
	if !exists(tb, "/sys/fs/cgroup/cgroup.controllers") {
		tops = []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"}
	}
	for _, top := range tops {
		group := filepath.Join(top, fmt.Sprintf("bridged-test-%d", os.Getpid()))
		if err := os.Mkdir(group, 0o755); err != nil {
			tb.Fatalf("%v (this test needs root, and control groups)", err)
		}
		tb.Cleanup(func() {
			for end := time.Now().Add(patience); ; <-time.After(10 * time.Millisecond) { // processes take a moment to go
				_ = exec.Command("find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+").Run()
				if !exists(tb, group) {
					return
				}
				if time.Now().After(end) {
					tb.Errorf("%s is left", group)
					return
				}
			}
		})
		groups = append(groups, group)
	}
	return groups
}

func (b *booted) try(command string) (string, error) {
	out, err := exec.CommandContext(within(b.tb), "nsenter", "-t", b.init, "-m", "-p", "-n", "-u", "-i", "-C", "-r", "-w",
		"env", "-i", "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"sh", "-ec", command).CombinedOutput()
	return string(out), err
}

func (b *booted) sh(command string) string {
	b.tb.Helper()
	out, err := b.try(command)
	if err != nil {
		status, _ := b.try("systemctl status bridged; journalctl -n 30 --no-pager -u bridged")
		b.tb.Fatalf("%s: %v\n%s\n%s", command, err, out, status)
	}
	return strings.TrimSpace(out)
}

// show is a property of the service.
func (b *booted) show(property string) string {
	b.tb.Helper()
	return b.sh("systemctl show bridged --value -p " + property)
}

func (b *booted) want(property, value string) {
	b.tb.Helper()
	if got := b.show(property); got != value {
		b.tb.Errorf("%s is %q, want %q", property, got, value)
	}
}

func (b *booted) until(what string, cond func() bool) {
	b.tb.Helper()
	for end := time.Now().Add(patience); !cond(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.tb.Fatalf("still not so: %s", what)
		}
	}
}

const withCredential = `clouds: {lab: {provider: generic, url: "ws://127.0.0.1:1"}}
devices: [{name: d, cloud: lab, login: {username: u, password: {credential: d}}}]
`

// The package, under a real systemd: with the sandbox, credentials, notifications and the watchdog.
func TestSystemd(t *testing.T) {
	t.Parallel()
	b := boot(t, find(t, dist(t), "*_amd64.deb"))
	configure := func(yaml string) {
		b.sh("cat >/etc/bridged/config.yaml <<'EOF'\n" + yaml + "\nEOF\nchgrp bridged /etc/bridged/config.yaml")
	}
	install := func() string { return b.sh("dpkg --force-unsafe-io --no-triggers --install /root/bridged.deb") }

	b.sh("systemctl start bridged")
	b.want("ConditionResult", "no")
	b.want("ActiveState", "inactive")

	configure(withCredential)
	b.sh(`mkdir /etc/systemd/system/bridged.service.d
		echo s3cr3t >/root/d; chmod 600 /root/d
		printf '[Service]\nLoadCredential=d:/root/d\nWatchdogSec=4\n' >/etc/systemd/system/bridged.service.d/test.conf
		systemctl daemon-reload; systemctl start bridged`)
	b.want("ActiveState", "active")
	b.want("User", "bridged")
	pid := b.show("MainPID")
	got := b.sh(`grep -E '^(Uid|CapBnd|NoNewPrivs|Seccomp):' /proc/` + pid + `/status | tr '\t\n' '  '`)
	if !strings.Contains(got, "CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2") || strings.Contains(got, "Uid: 0") {
		t.Error(got)
	}

	b.sh("mosquitto_pub -h 127.0.0.1 -i d -u u -P s3cr3t -q 1 -t t -m hello")
	stored := func() bool { return b.show("StatusText") == "0 of 1 device online, 1 message stored" }
	b.until("the message is stored", stored)

	b.sh("systemctl reload bridged")
	configure("cluods: {}")
	if out, err := b.try("systemctl reload bridged"); err == nil {
		t.Errorf("a faulty configuration was loaded: %s", out)
	}
	if out := install(); !strings.Contains(out, "the old one goes on running") {
		t.Error(out)
	}
	b.want("MainPID", pid)
	b.want("ActiveState", "active")

	configure(withCredential)
	install()
	if b.show("MainPID") == pid {
		t.Error("an upgrade has not restarted it")
	}
	b.want("ActiveState", "active")
	b.until("the message is there", stored)

	b.want("NRestarts", "0")
	b.sh("kill -STOP " + b.show("MainPID"))
	b.until("the watchdog has restarted it", func() bool { return b.show("NRestarts") == "1" })
	b.until("it is active", func() bool { return b.show("ActiveState") == "active" })
	if b.sh("journalctl --no-pager -u bridged | grep -c 'goroutine '") == "0" {
		t.Error("the journal does not say where it was stuck")
	}
	b.until("the message is there", stored)

	b.sh("systemctl stop bridged")
	b.want("Result", "success")
	b.sh("systemctl start bridged; dpkg --purge bridged")
	if out, err := b.try("systemctl is-active bridged"); !strings.HasPrefix(out, "inactive") {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := b.try("test -e /var/lib/bridged || test -e /etc/bridged || id bridged"); err == nil {
		t.Error(out)
	}
}
