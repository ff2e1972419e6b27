package boltstore

import (
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

// leave writes to a directory what may be found on the disk if the power is cut now: all that was synced, and of the
// rest nothing, all, or some, and of some only some sectors.
func (d *disk) leave(dir string, rng *rand.Rand) error {
	kind := rng.IntN(4)
	entries := maps.Clone(d.entries)
	n := rng.IntN(len(d.changes) + 1)
	if kind < 2 {
		n = kind * len(d.changes)
	}
	for _, c := range d.changes[:n] { // they go through a journal, in order
		d.change(entries, c)
	}
	for name, file := range entries {
		f := d.file(file)
		left := onDisk{data: slices.Clone(f.data)}
		for _, p := range f.pending {
			switch {
			case kind == 0, kind > 1 && rng.IntN(2) == 0:
			case kind == 3 && p.kind == evWrite && rng.IntN(2) == 0:
				for at := 0; at < len(p.data); at += 512 {
					if rng.IntN(2) == 0 {
						part := event{off: p.off + int64(at), data: p.data[at:min(at+512, len(p.data))]}
						left.apply(part)
					}
				}
			default:
				left.apply(p)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), left.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// cuts cuts the power at many moments of a trace and returns what was wrong afterwards.
func cuts(t *testing.T, events []event, seed, batches, howMany int, from ...int) (wrong []string) {
	t.Helper()
	from = append(from, 0)
	models := []*model{newModel()}
	for sc := scriptOf(seed); len(models) <= batches; {
		sc.next()
		models = append(models, sc.m.clone())
	}
	rng := rand.New(rand.NewPCG(uint64(seed), 77))
	d := newDisk()
	acked, tried := 0, 0
	for i, e := range events {
		d.happen(e, rng)
		if e.kind == evAck {
			acked = e.ack
		}
		// What happens to names, the first file's making and what follows a failure are short and worth more tries.
		odds := float64(howMany) / float64(len(events)-from[0])
		switch {
		case i < from[0]:
			odds = 0
		case e.kind >= evSyncDir && e.kind != evAck, i < from[0]+8:
			odds = 1
		case slices.ContainsFunc(events[max(0, i-25):i], func(e event) bool { return e.failed }):
			odds = 0.15
		}
		for range 2 {
			if rng.Float64() >= odds {
				continue
			}
			tried++
			if fault := afterCut(t, d, rng, models[acked], models[min(acked+1, batches)]); fault != "" {
				wrong = append(wrong, fmt.Sprintf("cut after event %d, %d acknowledged: %s", i, acked, fault))
			}
			if len(wrong) == 5 {
				return wrong
			}
		}
	}
	if acked != batches {
		t.Errorf("%d of %d batches were acknowledged", acked, batches)
	}
	t.Logf("%d events, %d cuts", len(events), tried)
	return wrong
}

// afterCut starts with what a power cut left: all that was acknowledged, and perhaps the batch that was under way.
func afterCut(t *testing.T, d *disk, rng *rand.Rand, acked, next *model) string {
	t.Helper()
	dir, err := os.MkdirTemp(cutDir, "cut") //nolint:usetesting // it must be in memory
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := d.leave(dir, rng); err != nil {
		t.Fatal(err)
	}
	log, logs := observed()
	s, err := open(dir, Options{Log: log}, small)
	if err != nil {
		return err.Error()
	}
	defer closed(t, s)
	if set := aside(t, dir); len(set) > 0 {
		return "the file was damaged: " + errorsLogged(logs)
	}
	m := acked
	d1 := m.differs(s)
	if d1 != "" {
		m = next
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
	for _, w := range cuts(t, tr.events, 0, cutBatches, 120) {
		t.Error(w)
	}
	// It would be noticed if a sync were left out, wherever that is.
	for name, drop := range map[string]func(i int, e event) bool{
		"names":     func(_ int, e event) bool { return e.kind == evSyncDir },
		"new files": func(_ int, e event) bool { return e.kind == evSync && e.call == "fsync" },
		"data":      func(i int, e event) bool { return e.kind == evSync && i+1 < len(tr.events) && tr.events[i+1].isMeta() },
		"meta":      func(i int, e event) bool { return e.kind == evSync && tr.events[i-1].isMeta() },
	} {
		t.Run("without "+name, func(t *testing.T) {
			t.Parallel()
			var events []event
			for i, e := range tr.events {
				if tr.acks(i) < 10 || !drop(i, e) { // the first file's making is another matter
					events = append(events, e)
				}
			}
			if len(events) == len(tr.events) {
				t.Fatal("nothing was left out")
			}
			if len(cuts(t, events, 0, cutBatches, 120)) == 0 {
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
			for _, w := range cuts(t, tr.events, 1, tr.acked(), 30, from) {
				t.Error(w)
			}
		})
	}
}
