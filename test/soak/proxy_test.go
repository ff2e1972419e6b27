package soak

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// proxy is a real one. It belongs to one goroutine.
type proxy struct {
	scheme, addr string
	name         string
	args         []string

	cmd   *exec.Cmd // nil while it does not run
	ended chan struct{}
}

// newTinyproxy is for HTTP CONNECT.
func newTinyproxy(tb testing.TB) *proxy {
	tb.Helper()
	addr := freeAddress(tb)
	_, port, _ := net.SplitHostPort(addr) // ours
	conf := filepath.Join(tb.TempDir(), "tinyproxy.conf")
	text := fmt.Sprintf("Listen 127.0.0.1\nPort %s\nTimeout 600\nMaxClients 100\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return run(tb, &proxy{scheme: "http", addr: addr, name: "tinyproxy", args: []string{"-d", "-c", conf}})
}

// newMicrosocks is for SOCKS5.
func newMicrosocks(tb testing.TB) *proxy {
	tb.Helper()
	addr := freeAddress(tb)
	host, port, _ := net.SplitHostPort(addr) // ours
	return run(tb, &proxy{scheme: "socks5", addr: addr, name: "microsocks", args: []string{"-i", host, "-p", port}})
}

func run(tb testing.TB, p *proxy) *proxy {
	tb.Helper()
	tb.Cleanup(p.kill)
	if err := p.start(); err != nil {
		tb.Fatal(err)
	}
	return p
}

func (p *proxy) url() string { return p.scheme + "://" + p.addr }

// start starts it if it does not run, and waits until it listens.
func (p *proxy) start() error {
	if p.cmd != nil {
		return nil
	}
	bin, err := exec.LookPath(p.name)
	if err != nil {
		return fmt.Errorf("%w: scripts/setup installs it", err)
	}
	p.cmd, p.ended = exec.Command(bin, p.args...), make(chan struct{})
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the test be killed
	started := make(chan error)
	go func() {
		defer close(p.ended)
		runtime.LockOSThread() // Pdeathsig is about the thread
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		if started <- err; err == nil {
			_ = p.cmd.Wait() // it is killed
		}
	}()
	if err := <-started; err != nil {
		p.cmd = nil
		return err
	}
	limit := time.After(30 * time.Second)
	for {
		c, err := net.Dial("tcp", p.addr)
		if err == nil {
			return c.Close() // only to see that it listens
		}
		select {
		case <-p.ended:
			p.cmd = nil
			return errors.New(p.name + " has ended at once")
		case <-limit:
			return fmt.Errorf("%s does not listen: %w", p.name, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill ends it, with all connections.
func (p *proxy) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
		p.cmd = nil
	}
}
