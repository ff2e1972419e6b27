package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/user"
	"syscall"

	"bridged/internal/bridge"
)

// explainStart adds the next step to an error that kept the bridge from starting. It returns nil for nil.
func explainStart(err error) error {
	if err == nil {
		return nil
	}
	var f *failure
	if errors.As(err, &f) {
		return err
	}
	var listen *net.OpError
	if errors.As(err, &listen) && listen.Op == "listen" {
		return failed(err, listenHint(listen))
	}
	var file *fs.PathError
	switch {
	case errors.Is(err, bridge.ErrLocked):
		return failed(err, "stop that process first, or give this one a state_dir of its own")
	case errors.As(err, &file):
		return failed(err, fileHint(file))
	}
	return failed(err, "")
}

// firstFreePort is the first port that needs no privilege.
const firstFreePort = 1024

func listenHint(err *net.OpError) string {
	port := 0
	if a, ok := err.Addr.(*net.TCPAddr); ok {
		port = a.Port
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("choose another port, or see who has this one: ss -ltnp 'sport = :%d'", port)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return `this machine has no such address: "ip address" lists those it has, 0.0.0.0 stands for all of them`
	case errors.Is(err, fs.ErrPermission) && port > 0 && port < firstFreePort:
		return "ports below 1024 need a privilege: choose 1883, or write AmbientCapabilities=CAP_NET_BIND_SERVICE and " +
			"CapabilityBoundingSet=CAP_NET_BIND_SERVICE into the service unit"
	}
	return ""
}

func fileHint(err *fs.PathError) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		who := "the user that bridged runs as"
		if u, lookup := user.Current(); lookup == nil {
			who = u.Username
		}
		return fmt.Sprintf("let %s write there (chown), or choose another directory", who)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return "a file is where a directory is needed: choose another directory"
	case errors.Is(err, syscall.EROFS):
		return "the file system is read-only: choose another directory; in a service unit, StateDirectory= makes one"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room on that file system, or choose another directory"
	}
	return ""
}
