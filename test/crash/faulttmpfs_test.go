package crash

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tmpfs is a small file system, mounted where only a shell of its own sees it. Others reach it by that shell's root.
type tmpfs struct {
	tb    testing.TB
	shell *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	mount string // the shell's name for it
	dir   string // everybody's
}

// newTmpfs mounts a file system of a size like 4m. Who is not root needs a kernel that lets users have namespaces.
func newTmpfs(tb testing.TB, size string) *tmpfs {
	tb.Helper()
	f := &tmpfs{tb: tb, shell: exec.Command("sh"), mount: tb.TempDir()}
	f.shell.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		a := f.shell.SysProcAttr
		a.Unshareflags, a.Cloneflags = 0, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS
		a.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{HostID: gid, Size: 1}}
	}
	in, err := f.shell.StdinPipe()
	out, pipeErr := f.shell.StdoutPipe()
	if err := errors.Join(err, pipeErr); err != nil {
		tb.Fatal(err)
	}
	f.shell.Stderr = f.shell.Stdout
	f.in, f.out = in, bufio.NewReader(out)
	if err := f.shell.Start(); err != nil {
		tb.Skipf("no mount namespace, be root or let users have namespaces: %v", err)
	}
	tb.Cleanup(func() {
		_ = f.in.Close() // the shell ends
		_ = f.shell.Wait()
	})
	if err := f.run("mount -t tmpfs -o mode=700,size=%s tmpfs '%s'", size, f.mount); err != nil {
		tb.Skipf("no tmpfs, be root or let users have namespaces: %v", err)
	}
	f.dir = fmt.Sprintf("/proc/%d/root%s", f.shell.Process.Pid, f.mount)
	return f
}

// run has the shell run a command.
func (f *tmpfs) run(format string, args ...any) error {
	const end = "end of the command: "
	if _, err := fmt.Fprintf(f.in, format+"; echo \"%s$?\"\n", append(args, end)...); err != nil {
		return err
	}
	said := ""
	for {
		line, err := f.out.ReadString('\n')
		if err != nil {
			return err
		}
		if status, ok := strings.CutPrefix(line, end); ok {
			if status != "0\n" {
				return fmt.Errorf(format+": status %s%s", append(args, status, said)...)
			}
			return nil
		}
		said += line
	}
}

// remount changes the file system's options.
func (f *tmpfs) remount(options string) {
	f.tb.Helper()
	if err := f.run("mount -o remount,%s '%s'", options, f.mount); err != nil {
		f.tb.Fatal(err)
	}
}

// fill takes all the room that there is.
func (f *tmpfs) fill() {
	f.tb.Helper()
	file, err := os.OpenFile(f.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		f.tb.Fatal(err)
	}
	for err == nil {
		_, err = file.Write(make([]byte, os.Getpagesize()))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		f.tb.Error(err)
	}
	if err := file.Close(); err != nil {
		f.tb.Error(err)
	}
}

// empty gives the room back.
func (f *tmpfs) empty() {
	f.tb.Helper()
	if err := os.Remove(f.filler()); err != nil {
		f.tb.Fatal(err)
	}
}

func (f *tmpfs) filler() string { return filepath.Join(f.dir, "filler") }
