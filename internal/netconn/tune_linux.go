package netconn

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// tune turns on keepalive probes, and has the kernel give up on data that the peer does not acknowledge for so long,
// instead of after its 15 minutes of retries.
func tune(c *net.TCPConn, stall time.Duration) error {
	if err := keepalive(c); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var opt error
	err = raw.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stall.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return opt
}
