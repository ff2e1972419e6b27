package clock

import (
	"os"

	"golang.org/x/sys/unix"
)

// trusted is the largest error, in microseconds, with which a clock counts as synchronised. The kernel lets the error
// grow by 500 ppm and says STA_UNSYNC at 16 s. That flag is not to go by: chrony sets it, too, when it does not want
// the kernel to set the hardware clock (systemd asks like this for the same reason).
const trusted = 16_000_000

// timesynced is made by systemd-timesyncd when it has set the clock. It helps where a sandbox denies adjtimex.
const timesynced = "/run/systemd/timesync/synchronized"

// kernelSync asks the kernel whether the clock is synchronised. Reading needs no privilege.
func kernelSync() Sync {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err == nil {
		return syncOf(&t)
	}
	if _, err := os.Stat(timesynced); err == nil {
		return Synchronised
	}
	return Unknown
}

func syncOf(t *unix.Timex) Sync {
	if t.Maxerror < trusted {
		return Synchronised
	}
	return Unsynchronised
}
