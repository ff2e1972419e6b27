package boltstore

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// disk is what is on a disk, and what is on its way there. It keeps no promise that fsync does not make.
type disk struct {
	files   map[int]*onDisk
	entries map[string]int // the directory
	changes []event        // to the directory, not synced yet
}

type onDisk struct {
	data    []byte
	pending []event // writes and truncations, not synced yet
}

func newDisk() *disk { return &disk{files: make(map[int]*onDisk), entries: make(map[string]int)} }

func (d *disk) file(n int) *onDisk {
	if d.files[n] == nil {
		d.files[n] = &onDisk{}
	}
	return d.files[n]
}

// happen takes the next event. After a sync that failed, what was to be synced is not written any more: the kernel
// takes it for clean. Some of it may have been written, though.
func (d *disk) happen(e event, rng *rand.Rand) {
	switch e.kind {
	case evWrite, evTruncate:
		f := d.file(e.file)
		f.pending = append(f.pending, e)
	case evSync:
		f := d.file(e.file)
		for _, p := range f.pending {
			if !e.failed || rng.IntN(3) == 0 {
				f.apply(p)
			}
		}
		f.pending = nil
	case evSyncDir:
		for _, c := range d.changes {
			if !e.failed {
				d.change(d.entries, c)
			}
		}
		if !e.failed { // a journal is written later, if at all
			d.changes = nil
		}
	case evCreate, evRename, evRemove:
		d.changes = append(d.changes, e)
	}
}

func (f *onDisk) apply(e event) {
	if e.kind == evTruncate {
		f.data = append(f.data, make([]byte, max(0, int(e.off)-len(f.data)))...)[:e.off]
		return
	}
	if end := int(e.off) + len(e.data); end > len(f.data) {
		f.data = append(f.data, make([]byte, end-len(f.data))...)
	}
	copy(f.data[e.off:], e.data)
}

func (d *disk) change(entries map[string]int, e event) {
	switch e.kind {
	case evCreate:
		entries[e.name] = e.file
	case evRename:
		entries[e.to] = entries[e.name]
		delete(entries, e.name)
	case evRemove:
		delete(entries, e.name)
	}
}

// ending is how much of what was not synced is on the disk after a power cut.
type ending int

const (
	nothing ending = iota
	everything
	some    // of the writes
	sectors // of some writes only
	endings
)

// leave writes to a directory what may be found on the disk if the power is cut now: all that was synced, and the rest
// as the ending says.
func (d *disk) leave(dir string, end ending, rng *rand.Rand) error {
	entries := maps.Clone(d.entries)
	n := rng.IntN(len(d.changes) + 1)
	switch end {
	case nothing:
		n = 0
	case everything:
		n = len(d.changes)
	}
	for _, c := range d.changes[:n] { // they go through a journal, in order
		d.change(entries, c)
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if err := d.file(entries[name]).leave(filepath.Join(dir, name), end, rng); err != nil {
			return err
		}
	}
	return nil
}

func (f *onDisk) leave(path string, end ending, rng *rand.Rand) error {
	if err := os.WriteFile(path, f.data, 0o600); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for _, p := range f.pending {
		switch {
		case end == nothing, end > everything && rng.IntN(2) == 0:
		case p.kind == evTruncate:
			err = errors.Join(err, file.Truncate(p.off))
		case end == sectors && rng.IntN(2) == 0:
			for at := 0; at < len(p.data); at += 512 {
				if rng.IntN(2) == 0 {
					_, werr := file.WriteAt(p.data[at:min(at+512, len(p.data))], p.off+int64(at))
					err = errors.Join(err, werr)
				}
			}
		default:
			_, werr := file.WriteAt(p.data, p.off)
			err = errors.Join(err, werr)
		}
	}
	return errors.Join(err, file.Close())
}

// cutting says at which moments of a trace the power is cut.
type cutting struct {
	seed, batches int // of the script
	from          int // the first event
	cuts          int // about how many, at random
	// at says after which other events it is cut in every way; may be nil.
	at   func(event) bool
	most int // faults, after which it is enough; 0: all
}

// do cuts the power at many moments of a trace and returns what was wrong afterwards. What bbolt writes depends on the
// order in which it goes through a map, so that a trace is never the same. Therefore nothing that the test relies on is
// left to chance: at the moments that matter all endings are tried.
func (c cutting) do(t *testing.T, events []event) (wrong []string) {
	t.Helper()
	models := []*model{newModel()}
	for sc := scriptOf(c.seed); len(models) <= c.batches; {
		sc.next()
		models = append(models, sc.m.clone())
	}
	rng := rand.New(rand.NewPCG(uint64(c.seed), 77))
	odds := float64(c.cuts) / float64(int(endings)*(len(events)-c.from))
	d := newDisk()
	acked, tried := 0, 0
	for i, e := range events {
		d.happen(e, rng)
		if e.kind == evAck {
			acked = e.ack
		}
		if i < c.from {
			continue
		}
		chance := odds
		switch {
		// What happens to names, and the first file's making.
		case *thorough, e.kind >= evSyncDir && e.kind != evAck, i < c.from+8, c.at != nil && c.at(e):
			chance = 1
		case slices.ContainsFunc(events[max(0, i-25):i], func(e event) bool { return e.failed }):
			chance = max(odds, 0.08)
		}
		for end := range endings {
			if rng.Float64() >= chance {
				continue
			}
			tried++
			at := cut{disk: d, end: end, seed: rng.Uint64(), acked: models[acked], next: models[min(acked+1, c.batches)]}
			if fault := at.fault(t, c.most == 0); fault != "" {
				wrong = append(wrong, fmt.Sprintf("cut after event %d, %d acknowledged: %s", i, acked, fault))
			}
			if c.most > 0 && len(wrong) == c.most || len(wrong) == 5 {
				return wrong
			}
		}
	}
	if acked != c.batches {
		t.Errorf("%d of %d batches were acknowledged", acked, c.batches)
	}
	t.Logf("%d events, %d cuts", len(events), tried)
	return wrong
}

// cut is one power cut.
type cut struct {
	disk        *disk
	end         ending
	seed        uint64
	acked, next *model
}

func (c *cut) leave(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(cutDir, "cut") //nolint:usetesting // it must be in memory
	if err != nil {
		t.Fatal(err)
	}
	if err := c.disk.leave(dir, c.end, rand.New(rand.NewPCG(c.seed, 78))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fault starts with what a power cut left: all that was acknowledged, and perhaps the batch that was under way. What
// was wrong may be kept, since the trace cannot be repeated.
func (c *cut) fault(t *testing.T, keep bool) string {
	t.Helper()
	dir := c.leave(t)
	defer func() { _ = os.RemoveAll(dir) }()
	fault := c.after(t, dir)
	if fault != "" && keep {
		fault += "\nthe disk after the cut is kept in " + c.leave(t)
	}
	return fault
}

func (c *cut) after(t *testing.T, dir string) string {
	t.Helper()
	log, logs := observed()
	s, err := open(dir, Options{Log: log}, small)
	if err != nil {
		return err.Error()
	}
	defer closed(t, s)
	if set := aside(t, dir); len(set) > 0 {
		return "the file was damaged: " + errorsLogged(logs)
	}
	m := c.acked
	d1 := m.differs(s)
	if d1 != "" {
		m = c.next
		if d2 := m.differs(s); d2 != "" {
			return d1 + "\nor " + d2
		}
	}
	// What is found is not only there, it can be gone on with.
	m = m.clone()
	b := m.fill(key("device-1"), 5, 300)
	m.apply(b)
	if err := s.Commit(b); err != nil {
		return err.Error()
	}
	return m.differs(s)
}

// cutDir is where the disks after a power cut are laid out.
var cutDir = func() string {
	if exists("/dev/shm") {
		return "/dev/shm"
	}
	return ""
}()

const cutBatches = 120

func TestPowerCut(t *testing.T) {
	t.Parallel()
	tr := newTracer(tempDir(t))
	if err := tr.run(t, 0, cutBatches); err != nil {
		t.Fatal(err)
	}
	renames := 0
	for _, e := range tr.events {
		if e.kind == evRename {
			renames++
		}
	}
	if renames < 2 {
		t.Error("the file was never compacted")
	}
	for _, w := range (cutting{batches: cutBatches, cuts: 240}).do(t, tr.events) {
		t.Error(w)
	}
	// It would be noticed if a sync were left out, wherever that is.
	for name, without := range map[string]struct {
		drop func(i int, e event) bool
		at   func(e event) bool
	}{
		"names":     {drop: func(_ int, e event) bool { return e.kind == evSyncDir }},
		"new files": {drop: func(_ int, e event) bool { return e.kind == evSync && e.call == "fsync" }},
		"data": { // which is on its way together with the meta page then, and at no other moment
			drop: func(i int, e event) bool { return e.kind == evSync && i+1 < len(tr.events) && tr.events[i+1].isMeta() },
			at:   func(e event) bool { return e.isMeta() },
		},
		"meta": {drop: func(i int, e event) bool { return e.kind == evSync && tr.events[i-1].isMeta() }},
	} {
		t.Run("without "+name, func(t *testing.T) {
			t.Parallel()
			var events []event
			for i, e := range tr.events {
				if tr.acks(i) < 10 || !without.drop(i, e) { // the first file's making is another matter
					events = append(events, e)
				}
			}
			if len(events) == len(tr.events) {
				t.Fatal("nothing was left out")
			}
			c := cutting{batches: cutBatches, cuts: 240, at: without.at, most: 1}
			if len(c.do(t, events)) == 0 {
				t.Error("nobody noticed")
			}
		})
	}
}

func (e *event) isMeta() bool {
	return e.kind == evWrite && e.off < 2*pageSize && len(e.data) == pageSize
}

func (tr *tracer) acks(i int) (n int) {
	for _, e := range tr.events[:i] {
		n = max(n, e.ack)
	}
	return n
}

// A process is killed within a commit, another goes on, and then the power is cut.
func TestKilledThenPowerCut(t *testing.T) {
	t.Parallel()
	for _, when := range []string{
		"fdatasync:signal=KILL:when=20", "fdatasync:signal=KILL:when=41", "pwrite64:signal=KILL:when=77",
		"fsync:signal=KILL:when=2", "fsync:signal=KILL:when=3", "fsync:signal=KILL:when=5", "renameat:signal=KILL:when=2",
	} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			tr := newTracer(tempDir(t))
			if err := tr.run(t, 1, 60, when); err == nil {
				t.Fatal("the child was not killed")
			}
			from := len(tr.events)
			if err := tr.run(t, 1, tr.acked()+12); err != nil {
				t.Fatal(err)
			}
			for _, w := range (cutting{seed: 1, batches: tr.acked(), cuts: 60, from: from}).do(t, tr.events) {
				t.Error(w)
			}
		})
	}
}
