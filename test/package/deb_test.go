package pack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// machine is this system once more, to install in: what is written there goes to memory. Its systemd seems to run; what
// it is told is written down. TestSystemd has a real one; here everything that was written can be looked at.
type machine struct {
	tb    testing.TB
	root  string
	upper string // what was written
}

const calls = "/calls" // what systemctl was called with

// systemctl works on files only, and says what it was told.
const systemctl = `#!/bin/sh
echo "$*" >>` + calls + `
case "$*" in
--root=*) exec /usr/bin/systemctl "$@" ;;
*is-enabled*) exec /usr/bin/systemctl --root=/ is-enabled bridged.service ;;
esac
`

func newMachine(tb testing.TB) *machine {
	tb.Helper()
	if exists(tb, "/usr/bin/bridged") || exists(tb, "/etc/bridged") {
		tb.Fatal("bridged is installed on this system, so that it cannot be installed for this test")
	}
	dir := tb.TempDir()
	m := &machine{tb: tb, root: filepath.Join(dir, "root"), upper: filepath.Join(dir, "upper")}
	m.mount("tmpfs", dir, "tmpfs", "")
	work := filepath.Join(dir, "work")
	for _, d := range []string{m.root, m.upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	m.mount("overlay", m.root, "overlay", fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", m.upper, work))
	m.mount("proc", m.root+"/proc", "proc", "")
	m.mount("tmpfs", m.root+"/tmp", "tmpfs", "")
	m.mount("tmpfs", m.root+"/run", "tmpfs", "")
	m.mount("tmpfs", m.root+"/dev", "tmpfs", "")
	if err := syscall.Mknod(m.root+"/dev/null", syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(m.root+"/dev/null", 0o666); err != nil {
		tb.Fatal(err)
	}
	m.sh("ln -s /proc/self/fd/0 /dev/stdin; rm -f /usr/sbin/policy-rc.d && mkdir -p /run/systemd/system /usr/local/bin")
	m.write("/usr/local/bin/systemctl", systemctl, 0o755)
	return m
}

func (m *machine) mount(source, target, kind, options string) {
	m.tb.Helper()
	if err := syscall.Mount(source, target, kind, 0, options); err != nil {
		m.tb.Fatalf("mount %s on %s: %v (this test needs root, and overlayfs)", source, target, err)
	}
	m.tb.Cleanup(func() {
		if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil {
			m.tb.Error(err)
		}
	})
}

// try runs a shell command there.
func (m *machine) try(command string) (string, error) {
	cmd := exec.CommandContext(within(m.tb), "/bin/sh", "-e", "-c", command)
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) sh(command string) string {
	m.tb.Helper()
	out, err := m.try(command)
	if err != nil {
		m.tb.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

func (m *machine) write(path, text string, mode fs.FileMode) {
	m.tb.Helper()
	if err := os.WriteFile(m.root+path, []byte(text), mode); err != nil {
		m.tb.Fatal(err)
	}
	if err := os.Chmod(m.root+path, mode); err != nil {
		m.tb.Fatal(err)
	}
}

// install installs a package and returns what systemctl was called with.
func (m *machine) install(deb string) (called []string) {
	m.tb.Helper()
	data, err := os.ReadFile(deb)
	if err != nil {
		m.tb.Fatal(err)
	}
	m.write("/tmp/bridged.deb", string(data), 0o644)
	return m.dpkg("--install /tmp/bridged.deb")
}

func (m *machine) dpkg(action string) (called []string) {
	m.tb.Helper()
	m.sh(": >" + calls)
	m.sh("dpkg --force-unsafe-io --no-triggers " + action)
	return strings.Split(strings.TrimSpace(m.sh("cat "+calls+"; rm "+calls)), "\n")
}

func (m *machine) wantCall(called []string, call string, want bool) {
	m.tb.Helper()
	if got := slices.ContainsFunc(called, func(c string) bool { return strings.Contains(c, call) }); got != want {
		m.tb.Errorf("systemctl %s: %t, want %t, of %q", call, got, want, called)
	}
}

// older makes a package with a lower version of another one.
func older(tb testing.TB, deb string) string {
	tb.Helper()
	dir := tb.TempDir()
	old := filepath.Join(dir, "old.deb")
	run(tb, "sh", "-ec", `dpkg-deb -R "$1" "$2/tree"
		sed -i 's/^Version: .*/Version: 0.0.0~older/' "$2/tree/DEBIAN/control"
		dpkg-deb -Zgzip -z1 --root-owner-group -b "$2/tree" "$3"`, "sh", deb, dir, old)
	return old
}

const enabled = "/etc/systemd/system/multi-user.target.wants/bridged.service"

func TestDeb(t *testing.T) {
	t.Parallel()
	deb := find(t, dist(t), "*_amd64.deb")
	m := newMachine(t)
	accounts := "cat /etc/passwd /etc/group /etc/shadow /etc/gshadow"
	before := m.sh(accounts)

	called := m.install(older(t, deb))
	m.wantCall(called, "daemon-reload", true)
	m.wantCall(called, "start bridged.service", true) // its condition has it do nothing
	stat := "stat -c '%n %U %G %a' /etc/bridged /etc/bridged/secrets /var/lib/bridged; ls -A /etc/bridged"
	if got, want := m.sh(stat), "/etc/bridged root bridged 750\n/etc/bridged/secrets bridged bridged 700\n"+
		"/var/lib/bridged bridged bridged 700\nsecrets\n"; got != want {
		t.Errorf("made\n%swant\n%s", got, want)
	}
	if !exists(t, m.root+enabled) {
		t.Error("not enabled")
	}
	for _, command := range []string{
		"bridged version", "test -f /usr/lib/systemd/system/bridged.service",
		"systemd-analyze verify --man=no /usr/lib/systemd/system/bridged.service",
		"gzip -dc /usr/share/man/man1/bridged.1.gz | grep -q '^.SS \"run'",
		"bash -n /usr/share/bash-completion/completions/bridged",
	} {
		m.sh(command)
	}

	t.Run("links", func(t *testing.T) { links(t, m.root+"/usr/share/doc/bridged") })
	t.Run("guide", func(t *testing.T) { m.guide(t, read(t, top+"/docs/install.md")) })

	const yaml = "clouds: {lab: {provider: generic, url: 'ws://127.0.0.1:1'}}\n" +
		"devices: [{name: d, cloud: lab, login: {username: u, password: {credential: d}}}]\n"
	m.write("/etc/bridged/config.yaml", yaml, 0o640)
	m.sh("echo backlog >/var/lib/bridged/spool; mkdir -p /run/credentials/bridged.service")
	m.sh("echo s3cr3t >/run/credentials/bridged.service/d; chgrp bridged /etc/bridged/config.yaml")
	t.Run("upgrade", func(t *testing.T) {
		called := m.install(deb)
		m.wantCall(called, "restart bridged.service", true)
		m.wantConfig(yaml, "root bridged 640")
		if got := m.sh("cat /var/lib/bridged/spool"); got != "backlog\n" {
			t.Errorf("the state has become %q", got)
		}
	})
	t.Run("upgrade when somebody has disabled it", func(t *testing.T) {
		m.sh("/usr/bin/systemctl --root=/ disable bridged.service")
		m.install(deb)
		if exists(t, m.root+enabled) {
			t.Error("enabled again")
		}
		m.sh("/usr/bin/systemctl --root=/ enable bridged.service")
	})
	t.Run("remove", func(t *testing.T) {
		called := m.dpkg("--remove bridged")
		m.wantCall(called, "stop bridged.service", true)
		if exists(t, m.root+"/usr/bin/bridged") || exists(t, m.root+"/usr/lib/systemd/system/bridged.service") {
			t.Error("the program or the unit is left")
		}
		m.wantConfig(yaml, "root bridged 640")
		m.sh("test -f /var/lib/bridged/spool; getent passwd bridged")
	})
	t.Run("purge", func(t *testing.T) {
		m.dpkg("--purge bridged")
		if after := m.sh(accounts); after != before {
			t.Error("accounts are not what they were before")
		}
		if left := m.left(); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

var (
	yamlBlock  = regexp.MustCompile("(?s)```yaml\n(.*?)```")
	secretFile = regexp.MustCompile(`\{file: (secrets/[^}]+)\}`)
	deviceName = regexp.MustCompile(`- name: (\S+)`)
)

// guide does what the guide says, for each of its clouds.
func (m *machine) guide(t *testing.T, text string) {
	blocks := yamlBlock.FindAllStringSubmatch(text, -1)
	if len(blocks) != 4 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, command := range []string{"sudo install -m 640 -g bridged /dev/null /etc/bridged/config.yaml",
		"sudo install -o bridged -g bridged -m 600 /dev/stdin /etc/bridged/secrets/boiler-1"} {
		if !strings.Contains(text, "\n"+command+"\n") {
			t.Errorf("no %q", command)
		}
	}
	for _, block := range blocks {
		yaml := block[1]
		m.sh("install -m 640 -g bridged /dev/null /etc/bridged/config.yaml")
		m.write("/etc/bridged/config.yaml", yaml, 0o640)
		for _, file := range secretFile.FindAllStringSubmatch(yaml, -1) {
			m.sh("echo c2VjcmV0 | install -o bridged -g bridged -m 600 /dev/stdin /etc/bridged/" + file[1])
		}
		for _, who := range []string{"", "setpriv --reuid=bridged --regid=bridged --clear-groups "} {
			if out := m.sh(who + "bridged check"); !strings.Contains(out, ", 1 cloud, no warnings") {
				t.Errorf("%s\n%s", yaml, out)
			}
		}
		if strings.Contains(yaml, "secret") {
			m.sh("bridged sign " + deviceName.FindStringSubmatch(yaml)[1])
		}
		m.sh("rm -f /etc/bridged/config.yaml /etc/bridged/secrets/*")
	}
	m.imports(t)
}

// imports checks that the service can read what root has imported and made up.
func (m *machine) imports(t *testing.T) {
	m.write("/root/fleet.csv", "ProductKey,DeviceName,DeviceSecret\npk,dev-1,c2VjcmV0\n", 0o600)
	m.write("/etc/bridged/config.yaml", `
clouds: {ali: {provider: aliyun, url: "wss://iot.example.com", product_key: pk}}
defaults: {login: {username: u, password: {file: secrets/all.login}}}
device_files: [devices.d/*.yaml]
`, 0o644)
	m.sh("bridged import /root/fleet.csv --write /etc/bridged")
	m.sh("bridged generate-login --file /etc/bridged/secrets/all.login")
	out := m.sh("setpriv --reuid=bridged --regid=bridged --clear-groups bridged check")
	if !strings.Contains(out, "1 device, ") {
		t.Error(out)
	}
	m.sh("rm -rf /root/fleet.csv /etc/bridged/config.yaml /etc/bridged/devices.d /etc/bridged/secrets/*")
}

var link = regexp.MustCompile(`\]\(([^)#:]+)[^):]*\)`) // to a file, not to a place on the same page or to another site

// links checks that what the documents refer to is where it was installed, too.
func links(t *testing.T, dir string) {
	documents, err := filepath.Glob(dir + "/*.md")
	if err != nil || len(documents) == 0 {
		t.Fatal(documents, err)
	}
	for _, document := range documents {
		for _, found := range link.FindAllStringSubmatch(read(t, document), -1) {
			if !exists(t, filepath.Join(dir, found[1])) {
				t.Errorf("%s refers to %s", filepath.Base(document), found[1])
			}
		}
	}
}

func (m *machine) wantConfig(text, stat string) {
	m.tb.Helper()
	got := m.sh("stat -c '%U %G %a' /etc/bridged/config.yaml; cat /etc/bridged/config.yaml")
	if got != stat+"\n"+text {
		m.tb.Errorf("the configuration has become %q", got)
	}
}

// kept are what dpkg, its triggers and this test have for themselves, and copies of accounts.
var kept = []string{
	"/var/lib/dpkg/", "/var/log/", "/var/cache/", "/usr/local/bin/systemctl", "/usr/sbin/policy-rc.d", "/etc/passwd-",
	"/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-", "/etc/.pwd.lock",
}

// left lists what is there that was not there before, and the reverse.
func (m *machine) left() (paths []string) {
	m.tb.Helper()
	err := filepath.WalkDir(m.upper, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path = strings.TrimPrefix(path, m.upper)
		if slices.ContainsFunc(kept, func(k string) bool { return strings.HasPrefix(path, k) }) {
			return nil
		}
		if entry.Type()&fs.ModeCharDevice != 0 { // how the overlay says that something was removed
			paths = append(paths, "removed: "+path)
		} else if _, err := os.Lstat("/" + path); errors.Is(err, fs.ErrNotExist) {
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		m.tb.Fatal(err)
	}
	return paths
}
