package bridge

import (
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// spareFiles are for listeners, the state directory, certificates, and connections that come while others go.
const spareFiles = 64

// tellFiles warns if the connections of all devices, on both sides, are more than the files that the process may have
// open. Sessions with clouds that are up first would leave none for devices, nor for reading the configuration again.
func (b *Bridge) tellFiles() {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	needed := uint64(2*len(b.all()) + spareFiles)
	if uint64(limit.Cur) >= needed { //nolint:unconvert // it is signed on other systems
		return
	}
	b.log.Warn("the process may not have as many files open as the devices need, and will refuse connections",
		zap.Uint64("allowed", uint64(limit.Cur)), //nolint:unconvert // as above
		zap.Uint64("needed", needed),
		zap.String("remedy", "raise LimitNOFILE of the service, or ulimit -Hn of the shell that starts bridged"))
}
