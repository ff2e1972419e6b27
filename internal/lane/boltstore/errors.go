package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

var (
	// ErrLocked means that somebody else has the file, or its directory, open.
	ErrLocked = errors.New("another process uses the spool")
	// ErrClosed means that the store was used after Close.
	ErrClosed = errors.New("the spool is closed")
)

// VersionError means that a file was written by a newer program. It was left as it is.
type VersionError struct {
	Path           string
	What           string // "spool format" or "bbolt format"
	Version, Known uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s: %s %d was written by a newer bridged, this one knows up to %d; "+
		"start that version again, or move the file away to begin with an empty spool", e.Path, e.What, e.Version, e.Known)
}

// explain adds the remedy to an error of opening a file.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("spool: %w; make %s readable and writable for the user that bridged runs as", err, path)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("spool: %w; state_dir must be on a file system that is mounted for writing", err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("spool %s: %w; make room there", path, err)
	}
	return fmt.Errorf("spool %s: %w", path, err)
}

// typed makes errors.Is work for the cause of an error of bbolt's, which passes some on as text only.
func typed(err error) error {
	for _, cause := range []syscall.Errno{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EIO, syscall.EROFS, syscall.ENOMEM,
	} {
		if errors.Is(err, cause) {
			return err
		}
		if strings.HasSuffix(err.Error(), ": "+cause.Error()) {
			return &unwrapped{err: err, cause: cause}
		}
	}
	return err
}

// unwrapped is an error whose cause is known from its text.
type unwrapped struct{ err, cause error }

func (u *unwrapped) Error() string   { return u.err.Error() }
func (u *unwrapped) Unwrap() []error { return []error{u.err, u.cause} }
