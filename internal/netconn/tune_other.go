//go:build !linux

package netconn

import (
	"net"
	"time"
)

// tune turns on keepalive probes.
func tune(c *net.TCPConn, _ time.Duration) error { return keepalive(c) }
