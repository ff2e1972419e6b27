//go:build race

package netconn

import (
	"errors"
	"syscall"
)

// The race detector takes what is sent and received for a synchronisation, if it is done by package syscall.

func readSocket(fd int, p []byte) (n int, err error) { return transfer(syscall.Read, fd, p) }

func writeSocket(fd int, p []byte) (n int, err error) { return transfer(syscall.Write, fd, p) }

func transfer(call func(int, []byte) (int, error), fd int, p []byte) (n int, err error) {
	for {
		if n, err = call(fd, p); !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
