package boltstore

import (
	"strings"
	"testing"
)

// System calls fail now and then. What was acknowledged is there, also after a power cut, and the store goes on when
// they work again.
func TestFaults(t *testing.T) {
	t.Parallel()
	const batches = 60
	for _, inject := range []string{
		"fdatasync:error=EIO:when=2+7",    // of data and of meta pages in turn
		"fdatasync:error=ENOSPC:when=9+6", // as delayed allocation may
		"fsync:error=EIO:when=1+4",
		"fsync:error=EIO:when=2+3",
		"pwrite64:error=ENOSPC:when=3+61",
		"pwrite64:error=EIO:when=11+23",
		"pwrite64:error=EROFS:when=20..60",
		"ftruncate:error=ENOSPC:when=1+2",
		"renameat:error=EIO:when=1+2",
		"openat:error=EMFILE:when=9+9",
	} {
		t.Run(inject, func(t *testing.T) {
			t.Parallel()
			tr := newTracer(tempDir(t))
			if err := tr.run(t, 2, batches, inject); err != nil {
				t.Fatal(err)
			}
			if tr.injected == 0 {
				t.Error("nothing failed")
			}
			sc := scriptOf(2)
			for range batches {
				sc.next()
			}
			if d := sc.m.differs(opened(t, tr.dir, small)); d != "" {
				t.Error(d)
			}
			if set := aside(t, tr.dir); len(set) > 0 {
				t.Error("the file was taken for damaged")
			}
			if strings.Contains(inject, "sync") {
				for _, w := range (cutting{seed: 2, batches: batches, cuts: 60}).do(t, tr.events) {
					t.Error(w)
				}
			}
			t.Logf("%d failed", tr.injected)
		})
	}
}
