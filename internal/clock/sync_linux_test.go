package clock

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestSyncOf(t *testing.T) {
	tests := []struct {
		name string
		t    unix.Timex
		want Sync
	}{
		{"since boot", unix.Timex{Maxerror: 16_000_000, Status: unix.STA_UNSYNC}, Unsynchronised},
		{"NTP", unix.Timex{Maxerror: 250_000}, Synchronised},
		{"NTP lost long ago", unix.Timex{Maxerror: 16_000_000}, Unsynchronised},
		{"chrony that leaves the hardware clock alone", unix.Timex{Maxerror: 3000, Status: unix.STA_UNSYNC}, Synchronised},
	}
	for _, test := range tests {
		if got := syncOf(&test.t); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}
