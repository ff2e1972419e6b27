package boltstore

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// patience is how long reads of an open file that fail are tried again, all together but for those that succeed in
	// the end. A disk that is reset, as those on USB and SD cards are now and then, fails for a moment. What can be
	// read afterwards must not be taken for lost.
	patience = 5 * time.Second
	// readAgain is the time between two attempts.
	readAgain = 50 * time.Millisecond
)

// patient is a file whose reads that fail are tried again. After that they are damage: bad sectors stay bad.
type patient struct {
	r    io.ReaderAt
	left atomic.Int64 // of patience
}

func newPatient(r io.ReaderAt) *patient {
	p := &patient{r: r}
	p.left.Store(int64(patience))
	return p
}

// ReadAt implements io.ReaderAt.
func (p *patient) ReadAt(b []byte, at int64) (int, error) {
	for waited := time.Duration(0); ; waited += readAgain {
		n, err := p.r.ReadAt(b, at)
		var failed syscall.Errno // not the end of the file, nor that it is closed
		if !errors.As(err, &failed) {
			p.left.Add(int64(waited))
			return n, err
		}
		if p.left.Add(-int64(readAgain)) < 0 {
			p.left.Add(int64(readAgain))
			return n, err
		}
		<-time.After(readAgain) // the disk is not to be asked faster; the whole is bounded by left
	}
}
