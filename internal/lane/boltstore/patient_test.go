package boltstore

import (
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// failing fails for a time.
type failing struct {
	err   error
	until time.Time
	reads int
}

func (f *failing) ReadAt(b []byte, _ int64) (int, error) {
	f.reads++
	if time.Now().Before(f.until) {
		return 0, f.err
	}
	return len(b), nil
}

func TestPatient(t *testing.T) {
	eio := &os.PathError{Op: "read", Path: "x", Err: syscall.EIO}
	for _, c := range []struct {
		name    string
		err     error
		lasts   time.Duration
		works   bool
		seconds time.Duration // that it takes at most
	}{
		{"works", nil, 0, true, 0},
		{"a moment", eio, time.Second, true, 2 * time.Second},
		{"for ever", eio, time.Hour, false, patience},
		{"end of file", io.EOF, time.Hour, false, 0},
		{"closed", os.ErrClosed, time.Hour, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				p := newPatient(&failing{err: c.err, until: start.Add(c.lasts)})
				n, err := p.ReadAt(make([]byte, 8), 0)
				if (err == nil) != c.works || c.works && n != 8 {
					t.Errorf("%d, %v", n, err)
				}
				if took := time.Since(start); took > c.seconds {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
	t.Run("now and then", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &failing{err: eio}
			p := newPatient(f)
			for range 100 {
				f.until = time.Now().Add(time.Second)
				if _, err := p.ReadAt(make([]byte, 8), 0); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
	t.Run("all together", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			p := newPatient(&failing{err: eio, until: start.Add(time.Hour)})
			for range 100 {
				if _, err := p.ReadAt(make([]byte, 8), 0); err == nil {
					t.Fatal("no error")
				}
			}
			if took := time.Since(start); took > patience {
				t.Errorf("it took %v", took)
			}
		})
	})
}
