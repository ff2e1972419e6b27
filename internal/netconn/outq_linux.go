package netconn

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unacknowledged is how many bytes the kernel holds that the peer has not acknowledged, 0 on a closed connection.
func unacknowledged(raw syscall.RawConn) (n int) {
	_ = raw.Control(func(fd uintptr) { // fails only on a closed connection
		if queued, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = queued
		}
	})
	return n
}
