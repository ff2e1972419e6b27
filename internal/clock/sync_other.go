//go:build !linux

package clock

// kernelSync does not know how to ask.
func kernelSync() Sync { return Unknown }
