//go:build !linux

package netconn

import "syscall"

// unacknowledged is not known here: what the kernel takes is taken for what the peer takes.
func unacknowledged(syscall.RawConn) int { return 0 }
