package netconn

import (
	"net"
	"time"
)

// keepalive is for idle connections. Where something is sent, the watch finds out earlier.
var keepalive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}
