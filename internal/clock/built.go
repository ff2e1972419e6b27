package clock

import (
	"runtime/debug"
	"time"
)

// built is for the linker: -ldflags "-X bridged/internal/clock.built=2026-11-22T10:00:00Z".
var built string

// floor is for builds that know nothing about themselves.
var floor = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// Built is when the program was built, by the linker's word or else by its last commit's. It cannot be earlier now.
func Built() time.Time {
	info, _ := debug.ReadBuildInfo() // nil if built without modules
	return builtAt(built, info)
}

func builtAt(linked string, info *debug.BuildInfo) time.Time {
	if t, err := time.Parse(time.RFC3339, linked); err == nil && t.After(floor) {
		return t
	}
	if info != nil {
		for _, s := range info.Settings {
			if s.Key != "vcs.time" {
				continue
			}
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil && t.After(floor) {
				return t
			}
		}
	}
	return floor
}
