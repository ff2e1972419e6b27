package boltstore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest/observer"

	"bridged/internal/lane"
)

// spoiled is a file to be damaged, and what it holds.
type spoiled struct {
	data []byte
	m    *model
	lim  limits
	logs *observer.ObservedLogs // of the last store
}

// fresh makes a file with a script. Deliveries are rare enough for a backlog.
func newSpoiled(t testing.TB, seed uint64, lanes, commits int) *spoiled {
	t.Helper()
	f := &spoiled{lim: small}
	f.lim.compact = 1 << 40 // old pages make salvage harder, and easier
	s := opened(t, tempDir(t), f.lim)
	sc := newScript(seed, lanes)
	for range commits {
		commit(t, s, sc.next())
	}
	closed(t, s)
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	f.data, f.m = data, sc.m
	if err := os.Remove(s.path); err != nil { // fuzzing ends without cleaning up
		t.Fatal(err)
	}
	return f
}

// open opens a damaged version of the file.
func (f *spoiled) open(t testing.TB, data []byte) *Store {
	t.Helper()
	dir := tempDir(t)
	if err := os.WriteFile(filepath.Join(dir, fileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return f.reopen(t, dir)
}

func (f *spoiled) reopen(t testing.TB, dir string) *Store {
	t.Helper()
	log, logs := observed()
	f.logs = logs
	s, err := open(dir, Options{Log: log}, f.lim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s) })
	return s
}

// leftOut counts the messages of a lane that Read left out since they are damaged.
func (f *spoiled) leftOut(k lane.Key) int {
	numbers := make(map[uint64]bool)
	for _, e := range f.logs.FilterMessage("a message in the spool is damaged and left out").All() {
		if at := e.ContextMap(); at["device"] == k.Device && at["direction"] == k.Direction.String() {
			numbers[at["number"].(uint64)] = true
		}
	}
	return len(numbers)
}

// verdict is what became of a file.
type verdict struct {
	mended bool
	read   int    // messages that are left
	lost   uint64 // messages that the states say are lost
	wrong  []string
}

func (v *verdict) fault(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

// judge finds out whether what a store holds is true and consistent, and whether it works.
func (f *spoiled) judge(t testing.TB, s *Store, damagedData []byte) (v verdict) {
	t.Helper()
	set := aside(t, s.dir)
	v.mended = len(set) > 0
	v.checkStates(s, f)
	if v.mended && damagedData != nil {
		kept, err := os.ReadFile(set[0])
		if err != nil || !bytes.Equal(kept, damagedData) || len(set) > 1 {
			v.fault("the damaged file was not kept as it was: %v, %v", set, err)
		}
	}
	v.checkWorks(t, s)
	return v
}

// checkStates compares states with what can be read, and what can be read with what was ever put.
func (v *verdict) checkStates(s *Store, f *spoiled) {
	c, err := s.Load()
	if err != nil {
		v.fault("Load: %v", err)
		return
	}
	for _, l := range c.Lanes {
		if strings.HasPrefix(l.Key.Device, "after") {
			continue
		}
		st := l.State
		got, err := readAll(s, l.Key, st)
		if err != nil {
			v.fault("Read: %v", err)
		}
		v.read += len(got)
		for i := range got {
			if put, ok := f.m.ever[l.Key][got[i].Seq]; !ok || !same(&put, &got[i]) {
				v.fault("%v: number %d was never put", l.Key, got[i].Seq)
			}
		}
		want := modelLane{state: st, records: got}
		want.settle()
		var dropped uint64
		for _, d := range st.Dropped {
			dropped += d
		}
		v.lost += st.Dropped[lane.Damaged]
		if st.Accepted != st.Delivered+uint64(st.Queued)+dropped {
			v.fault("%v: the ledger does not balance: %+v", l.Key, st)
		}
		isTrue := st.Head == want.state.Head && st.Bytes == want.state.Bytes && sameTime(st.Oldest, want.state.Oldest)
		// Without repair, what is damaged or gone is missing from what is read, and nothing else.
		if v.mended && (st.Queued != len(got) || !isTrue) || st.Queued < len(got)+f.leftOut(l.Key) {
			v.fault("%v: the state %+v is not true of %d messages, %d bytes", l.Key, st, len(got), want.state.Bytes)
		}
	}
}

// checkWorks commits to a store, and opens it again.
func (v *verdict) checkWorks(t testing.TB, s *Store) {
	t.Helper()
	k := key(fmt.Sprint("after", s.change))
	var puts []lane.Record
	for i := range uint64(30) {
		puts = append(puts, record(k, 1+i, 150))
	}
	st := lane.State{Head: 1, Next: 31, Queued: 30, Accepted: 30}
	if err := s.Commit(&lane.Batch{Changes: []lane.Change{{Key: k, State: st, Put: puts}}}); err != nil {
		v.fault("Commit: %v", err)
		return
	}
	if err := s.Maintain(); err != nil {
		v.fault("Maintain: %v", err)
	}
	closed(t, s)
	s, err := open(s.dir, Options{}, s.lim)
	if err != nil {
		v.fault("Open once more: %v", err)
		return
	}
	defer closed(t, s)
	got, err := s.Read(k, 1, 31, 100, 1<<30)
	if d := differ(got, puts); d != "" || err != nil {
		v.fault("after the damage: %s, %v", d, err)
	}
}

// stored counts the messages in the undamaged file.
func (f *spoiled) stored() (n int) {
	for _, l := range f.m.lanes {
		n += len(l.records)
	}
	return n
}

// pageKinds tells for each page what it is for: "" if it is not in use.
func (f *spoiled) pageKinds(t testing.TB) []string {
	t.Helper()
	r := bytes.NewReader(f.data)
	m, at, err := readMeta(r)
	if err != nil {
		t.Fatal(err)
	}
	kinds := make([]string, m.end)
	kinds[at] = "meta page"
	p := &pages{r: r, end: m.end}
	mark := func(id uint64, what string) {
		run, err := p.run(id)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(run) / pageSize {
			kinds[int(id)+i] = what
		}
	}
	mark(m.freelist, "free list")
	var walkTree func(id uint64, name string)
	walkTree = func(id uint64, name string) {
		pg, err := p.read(id, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		mark(id, name)
		for i := range pg.count {
			if !pg.leaf {
				walkTree(pg.child(i), name)
			} else if v, bucket := pg.value(i); bucket && order.Uint64(v) != 0 {
				walkTree(order.Uint64(v), string(pg.key(i)))
			}
		}
	}
	walkTree(m.root, "root")
	return kinds
}

// Each page of a file is lost in turn, of those that there are many of every 16th. Nothing else is. Where they lie is
// not the same in each run: bbolt joins pages in the order in which it goes through a map.
func TestLostPage(t *testing.T) {
	f := newSpoiled(t, 7, 20, 250)
	kinds := f.pageKinds(t)
	seen, tried := make(map[string]int), make(map[string]int)
	for n, kind := range kinds {
		seen[kind]++
		if often := kind == "" || kind == "messages"; often && seen[kind]%16 != 1 && !*thorough {
			continue
		}
		tried[kind]++
		data := slices.Clone(f.data)
		clear(data[n*pageSize:][:pageSize])
		s := f.open(t, data)
		whole := f.m.differs(s)
		v := f.judge(t, s, data)
		for _, w := range v.wrong {
			t.Errorf("page %d (%s): %s", n, kind, w)
		}
		if strings.Contains(errorsLogged(f.logs), "left out") {
			t.Errorf("page %d (%s): %s", n, kind, errorsLogged(f.logs))
		}
		switch kind {
		case "":
			if whole != "" || v.mended {
				t.Errorf("page %d is not in use: %s", n, whole)
			}
		case "meta page", "free list":
			if kind == "free list" && (whole != "" || !v.mended) {
				t.Errorf("page %d (%s): %s", n, kind, whole)
			}
		case "messages", "recent":
			if most := f.stored() / 4; v.read < f.stored()-most || v.lost > uint64(most) {
				t.Errorf("page %d (%s): %d of %d messages left, %d lost", n, kind, v.read, f.stored(), v.lost)
			}
		default:
			if v.read < f.stored() {
				t.Errorf("page %d (%s): %d of %d messages left", n, kind, v.read, f.stored())
			}
		}
	}
	t.Logf("%v, of %v", tried, seen)
	for _, kind := range []string{"", "meta page", "free list", "root", "lanes", "meta", "messages", "recent"} {
		if tried[kind] == 0 {
			t.Errorf("there was no page of the kind %q", kind)
		}
	}
}

// mutate damages a file, in ways that disks, and file systems after a power cut, do.
func mutate(rng *rand.Rand, data []byte) []byte {
	data = slices.Clone(data)
	for range 1 + rng.IntN(3) {
		pageCount := max(1, len(data)/pageSize)
		at := rng.IntN(pageCount) * pageSize
		switch rng.IntN(8) {
		case 0:
			data = data[:rng.IntN(len(data)+1)]
		case 1, 2:
			for range 1 + rng.IntN(8) {
				if i := rng.IntN(max(len(data), 1)); i < len(data) {
					data[i] ^= 1 << rng.IntN(8)
				}
			}
		case 3: // in a page's header or elements, where it hurts
			if i := at + rng.IntN(200); i < len(data) {
				data[i] ^= 1 << rng.IntN(8)
			}
		case 4:
			clear(data[min(at, len(data)):min(at+pageSize*(1+rng.IntN(4)), len(data))])
		case 5: // two pages change places
			other := rng.IntN(pageCount) * pageSize
			if n := min(pageSize, len(data)-at, len(data)-other); n > 0 {
				a, b := slices.Clone(data[at:at+n]), slices.Clone(data[other:other+n])
				copy(data[at:], b)
				copy(data[other:], a)
			}
		case 6: // garbage
			for i := at; i < min(at+512*(1+rng.IntN(8)), len(data)); i++ {
				data[i] = byte(rng.Uint32())
			}
		case 7: // an older page stayed: it says that it is where it is
			other := rng.IntN(pageCount) * pageSize
			if n := min(pageSize, len(data)-at, len(data)-other); n >= 8 {
				copy(data[at+8:at+n], data[other+8:other+n])
			}
		}
	}
	return data
}

func TestMutations(t *testing.T) {
	for n, f := range []*spoiled{newSpoiled(t, 1, 1, 60), newSpoiled(t, 2, 12, 250), newSpoiled(t, 3, 30, 120)} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(9, uint64(n)))
			const mutations = 34
			mended := 0
			for i := range mutations {
				data := mutate(rng, f.data)
				s := f.open(t, data)
				// Damage that is found by reading or committing changes what the states said before.
				first := f.judgeTwice(t, s)
				if first.mended {
					mended++
				}
				for _, w := range first.wrong {
					t.Errorf("mutation %d: %s", i, w)
				}
			}
			t.Logf("%d of %d were damaged", mended, mutations)
			if mended < mutations/4 {
				t.Errorf("only %d of %d were damaged", mended, mutations)
			}
		})
	}
}

// judgeTwice reads and commits first, so that all damage is found, and judges then.
func (f *spoiled) judgeTwice(t testing.TB, s *Store) verdict {
	t.Helper()
	c, err := s.Load()
	if err != nil {
		return verdict{wrong: []string{err.Error()}}
	}
	for _, l := range c.Lanes {
		if _, err := readAll(s, l.Key, l.State); err != nil {
			return verdict{wrong: []string{err.Error()}}
		}
	}
	var first verdict
	first.checkWorks(t, s)
	s = f.reopen(t, s.dir)
	v := f.judge(t, s, nil)
	v.wrong = append(first.wrong, v.wrong...)
	return v
}

// Damage while the store is in use.
func TestDamagedInUse(t *testing.T) {
	f := newSpoiled(t, 7, 20, 250)
	kinds := f.pageKinds(t)
	for _, kind := range []string{"root", "lanes", "messages", "recent", "free list", "meta page", "cut", "gone"} {
		t.Run(strings.ReplaceAll(kind, " ", "_"), func(t *testing.T) {
			s := f.open(t, f.data)
			f.m.mustEqual(t, s)
			file, err := os.OpenFile(s.path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = file.Close() }()
			switch kind {
			case "cut":
				err = file.Truncate(int64(len(f.data) / 3 / pageSize * pageSize))
			case "gone":
				err = file.Truncate(0)
			default:
				for n, k := range kinds {
					if k == kind && err == nil {
						_, err = file.WriteAt(bytes.Repeat([]byte{0xA5}, pageSize), int64(n)*pageSize)
					}
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range f.judgeTwice(t, s).wrong {
				t.Errorf("%s: %s", kind, w)
			}
		})
	}
}
