//go:build !race

package netconn

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Non-blocking sockets never wait, so the scheduler need not know of the system calls.

func readSocket(fd int, p []byte) (n int, err error) { return transfer(unix.SYS_READ, fd, p) }

func writeSocket(fd int, p []byte) (n int, err error) { return transfer(unix.SYS_WRITE, fd, p) }

func transfer(trap uintptr, fd int, p []byte) (n int, err error) {
	for {
		n, _, errno := unix.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
