package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// The store holds what the model holds, whatever is committed, over restarts and maintenance.
func TestModel(t *testing.T) {
	var moves, compactions atomic.Uint64
	t.Run("seeds", func(t *testing.T) {
		for seed := range uint64(6) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				st := followsModel(t, seed)
				moves.Add(st.Moves)
				compactions.Add(st.Compactions)
			})
		}
	})
	if moves.Load() < 15 || compactions.Load() < 2 {
		t.Errorf("%d moves and %d compactions are too few for a test", moves.Load(), compactions.Load())
	}
}

// followsModel compares a store with the model and returns what it has done.
func followsModel(t *testing.T, seed uint64) (did Stats) {
	t.Helper()
	dir := tempDir(t)
	sc := newScript(seed, 1+int(seed)*3)
	s := opened(t, dir, small)
	for i := range 250 {
		commit(t, s, sc.next())
		if i%17 == 0 {
			sc.m.mustEqual(t, s)
		}
		if i%61 == 60 {
			if err := s.Maintain(); err != nil {
				t.Fatal(err)
			}
			sc.m.mustEqual(t, s)
		}
		if i%80 == 79 {
			st := s.Stats()
			did.Moves += st.Moves
			did.Compactions += st.Compactions
			closed(t, s)
			s = opened(t, dir, small)
			sc.m.mustEqual(t, s)
		}
	}
	sc.m.mustEqual(t, s)
	if len(aside(t, dir)) > 0 || s.Stats().Repairs > 0 {
		t.Error("the file was taken for damaged")
	}
	return did
}

func TestRoundTrip(t *testing.T) {
	k := lane.Key{Device: "d", Direction: lane.Down}
	noon := time.Date(2031, 12, 31, 23, 59, 59, 999999999, time.FixedZone("", 3600))
	messages := map[string]lane.Record{
		"zero":        {},
		"plain":       {At: epoch, Message: mqtt.Message{Topic: "t", Payload: []byte("p"), QoS: 1}},
		"all set":     {At: noon, Message: mqtt.Message{Topic: "t", Payload: []byte{0}, QoS: 2, Retain: true, Expires: noon}},
		"before 1970": {At: time.Date(1960, 1, 1, 0, 0, 0, 1, time.UTC)},
		"far":         {At: time.Date(9999, 1, 1, 0, 0, 0, 1, time.UTC), Message: mqtt.Message{Expires: noon}},
		"unix zero":   {At: time.Unix(0, 0), Message: mqtt.Message{Expires: time.Unix(0, 0)}},
		"long topic":  {At: epoch, Message: mqtt.Message{Topic: strings.Repeat("x", 65535), Payload: []byte("p")}},
		"large":       {At: epoch, Message: mqtt.Message{Topic: "t", Payload: bytes.Repeat([]byte("payload "), 2<<20/8)}},
	}
	for n := partSize - 40; n < partSize+10; n++ { // around where a second part begins
		messages[fmt.Sprintf("%d bytes", n)] = lane.Record{Message: mqtt.Message{Payload: make([]byte, n)}}
	}
	for _, direct := range []int64{0, 1 << 60} {
		lim := defaults
		lim.direct, lim.recentMin, lim.recentMax, lim.recentEntries = direct, 1<<30, 1<<30, 1<<30
		s := opened(t, tempDir(t), lim)
		m := newModel()
		for _, r := range messages {
			l := m.lane(k)
			r.Seq = l.state.Next
			st := l.state
			st.Next++
			m.commit(t, s, &lane.Batch{Changes: []lane.Change{{Key: k, State: st, Put: []lane.Record{r}}}})
		}
		l := m.lane(k)
		l.settle()
		m.commit(t, s, &lane.Batch{Changes: []lane.Change{{Key: k, State: l.state}}})
		m.mustEqual(t, s)
		closed(t, s)
		m.mustEqual(t, opened(t, s.dir, lim))
	}
}

func TestReadLimits(t *testing.T) {
	for _, place := range []string{"recent", "messages"} {
		t.Run(place, func(t *testing.T) {
			lim := defaults
			if place == "messages" {
				lim.direct = 0
			}
			s, m, k := opened(t, tempDir(t), lim), newModel(), key("d")
			m.commit(t, s, m.fill(k, 50, 100))
			size := m.lane(k).records[0].Message.Size()
			for _, c := range []struct {
				from, before uint64
				count        int
				bytes        int64
				first, n     uint64
			}{
				{1, 51, 100, 1 << 30, 1, 50},
				{1, 51, 7, 1 << 30, 1, 7},
				{10, 51, 3, 1 << 30, 10, 3},
				{10, 12, 100, 1 << 30, 10, 2},
				{50, 51, 100, 1 << 30, 50, 1},
				{51, 99, 100, 1 << 30, 0, 0},
				{5, 5, 100, 1 << 30, 0, 0},
				{6, 5, 100, 1 << 30, 0, 0},
				{0, 3, 100, 1 << 30, 1, 2},
				{1, 51, 0, 1 << 30, 0, 0},
				{1, 51, 100, 0, 1, 1},
				{1, 51, 100, 1, 1, 1},
				{1, 51, 100, size, 1, 1},
				{1, 51, 100, size + 1, 1, 2},
				{1, 51, 100, 3 * size, 1, 3},
			} {
				got, err := s.Read(k, c.from, c.before, c.count, c.bytes)
				if err != nil {
					t.Fatal(err)
				}
				var want []lane.Record
				if c.n > 0 {
					want = m.lane(k).records[c.first-1:][:c.n]
				}
				if d := differ(got, want); d != "" {
					t.Errorf("Read(%d, %d, %d, %d): %s", c.from, c.before, c.count, c.bytes, d)
				}
			}
			if got, err := s.Read(key("nobody"), 1, 9, 9, 9); len(got) > 0 || err != nil {
				t.Errorf("a lane that is not there has %v, %v", got, err)
			}
		})
	}
}

// What was read does not change with the file.
func TestReadCopies(t *testing.T) {
	s, m, k := opened(t, tempDir(t), small), newModel(), key("d")
	m.commit(t, s, m.fill(k, 40, 300))
	want := m.lane(k).records
	got, err := s.Read(k, 1, 41, 100, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	m.commit(t, s, m.deliver(k, 40))
	if err := s.Maintain(); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		m.commit(t, s, m.fill(k, 20, 301))
	}
	if d := differ(got, want); d != "" {
		t.Error(d)
	}
}

// The same batch once more, as after an error, changes nothing.
func TestCommitAgain(t *testing.T) {
	s := opened(t, tempDir(t), small)
	sc := newScript(3, 4)
	for range 120 {
		b := sc.next()
		commit(t, s, b)
		commit(t, s, b)
		sc.m.mustEqual(t, s)
	}
}

// What is delivered leaves the file, a bounded part of it in each commit, and the rest when there is time.
func TestDeliveredIsDeleted(t *testing.T) {
	lim := defaults
	lim.direct, lim.purgeMost, lim.compact = 0, 100, 1<<40
	s, m, k := opened(t, tempDir(t), lim), newModel(), key("d")
	m.commit(t, s, m.fill(k, 3000, 100))
	entries := func() (n int) {
		tx, err := s.h.begin(false)
		if err != nil {
			t.Fatal(err)
		}
		defer s.h.end(tx)
		err = snapshotOf(s.h, tx).ascend(messageBucket, nil, func(_, _ []byte) (bool, error) { n++; return true, nil })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	m.commit(t, s, m.deliver(k, 40))
	if n := entries(); n != 3000 {
		t.Errorf("%d entries: a few that were delivered are to stay for now", n)
	}
	m.commit(t, s, m.deliver(k, 460))
	if n := entries(); n != 2900 {
		t.Errorf("%d entries: one commit was to delete 100", n)
	}
	m.commit(t, s, m.fill(key("another"), 1, 1))
	if n := entries(); n != 2801 {
		t.Errorf("%d entries: the next commit was to delete 100 as well", n)
	}
	closed(t, s)
	s = opened(t, s.dir, lim)
	m.mustEqual(t, s)
	if err := s.Maintain(); err != nil {
		t.Fatal(err)
	}
	if n := entries(); n != 2501 {
		t.Errorf("%d entries after Maintain instead of 2501", n)
	}
	m.mustEqual(t, s)
}

// Nothing is written when there is nothing to do.
func TestIdleWritesNothing(t *testing.T) {
	s, m, k := opened(t, tempDir(t), small), newModel(), key("d")
	m.commit(t, s, m.fill(k, 10, 100))
	closed(t, s)
	s = opened(t, s.dir, small)
	before, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	mtime := modified(t, s.path)
	for range 3 {
		if err := s.Maintain(); err != nil {
			t.Fatal(err)
		}
		commit(t, s, &lane.Batch{})
		m.mustEqual(t, s)
	}
	after, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) || !modified(t, s.path).Equal(mtime) {
		t.Error("the file was written to")
	}
}

func modified(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

func TestNotes(t *testing.T) {
	s, m := opened(t, tempDir(t), small), newModel()
	large := bytes.Repeat([]byte("note"), lane.MaxNote/4)
	m.commit(t, s, &lane.Batch{Notes: []lane.Note{
		{Name: "", Value: []byte("no name")}, {Name: "empty", Value: []byte{}}, {Name: "gone"}, {Name: "l", Value: large},
	}})
	m.mustEqual(t, s)
	m.commit(t, s, &lane.Batch{Notes: []lane.Note{{Name: "", Value: nil}, {Name: "empty", Value: []byte("not any more")}}})
	m.mustEqual(t, s)
	err := s.Commit(&lane.Batch{Notes: []lane.Note{{Name: "l", Value: append(large, 0)}}})
	if !errors.Is(err, lane.ErrNoteSize) {
		t.Errorf("a note that is too large: %v", err)
	}
	m.mustEqual(t, s)
	closed(t, s)
	m.mustEqual(t, opened(t, s.dir, small))
}

// Readers always find all that has been committed, while messages are put, delivered, moved and copied to a new file.
func TestReadBesideCommit(t *testing.T) {
	const readers, rounds = 3, 100
	s, k := opened(t, tempDir(t), small), key("d")
	var mu sync.Mutex
	m := newModel()
	m.lane(k)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				want := m.lane(k).records
				mu.Unlock()
				if len(want) == 0 {
					continue
				}
				got, err := s.Read(k, want[0].Seq, want[len(want)-1].Seq+1, 1000, 1<<30)
				mu.Lock()
				head := m.lane(k).state.Head
				mu.Unlock()
				// What was delivered in the meantime may be missing, if anything.
				for len(want) > 0 && want[0].Seq < head {
					if len(got) > 0 && got[0].Seq == want[0].Seq {
						got = got[1:]
					}
					want = want[1:]
				}
				if d := differ(got, want); d != "" || err != nil {
					t.Errorf("from %d: %s, %v", head, d, err)
					return
				}
			}
		})
	}
	other := newModel()
	for i := range rounds {
		mu.Lock()
		b := m.fill(k, 1+i%5, 50+i*3)
		mu.Unlock()
		commit(t, s, b)
		mu.Lock()
		m.apply(b)
		b = m.deliver(k, i%6)
		mu.Unlock()
		commit(t, s, b)
		other.commit(t, s, other.fill(key(fmt.Sprint(i%20)), 30, 200))
		if i%10 == 0 {
			for n := range 20 {
				other.commit(t, s, other.deliver(key(fmt.Sprint(n)), 1000))
			}
			if err := s.Maintain(); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if st := s.Stats(); st.Compactions < 2 || st.Moves < 5 {
		t.Errorf("too little happened: %+v", st)
	}
}

func TestClosed(t *testing.T) {
	s := opened(t, tempDir(t), small)
	closed(t, s)
	closed(t, s)
	_, errLoad := s.Load()
	_, errRead := s.Read(key("d"), 1, 2, 3, 4)
	errCommit := s.Commit(&lane.Batch{Notes: []lane.Note{{Name: "n", Value: nil}}})
	for _, err := range []error{errLoad, errRead, errCommit, s.Maintain()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	}
}

func TestLocked(t *testing.T) {
	dir := tempDir(t)
	s := opened(t, dir, small)
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), s.path) {
		t.Errorf("a second one: %v", err)
	}
	closed(t, s)

	f, err := os.Open(s.path) // as a tool for bbolt files does
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), s.path) {
		t.Errorf("beside a tool: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	opened(t, dir, small)
}

// A file of a newer version is left alone.
func TestNewerVersion(t *testing.T) {
	dir := tempDir(t)
	s := opened(t, dir, small)
	closed(t, s)
	db := raw(t, s.path)
	err := db.Update(func(tx *bbolt.Tx) error {
		row := seal(versionKey, []byte{kindVersion, 0, 0, 0, formatVersion + 1})
		return tx.Bucket([]byte("meta")).Put(versionKey, row)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, Options{})
	var newer *VersionError
	if !errors.As(err, &newer) || newer.Version != formatVersion+1 || newer.Path != s.path {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{s.path, "spool format 2", "start that version again, or move the file away"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if after, err := os.ReadFile(s.path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
	files, err := os.ReadDir(dir)
	if len(files) != 1 || err != nil {
		t.Errorf("%v, %v", files, err)
	}
}

func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(dir string) error
		want    []string
	}{
		{"directory", func(dir string) error { return os.Mkdir(filepath.Join(dir, fileName), 0o700) },
			[]string{fileName, "not a regular file", "move it away"}},
		{"pipe", func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, fileName), 0o600) },
			[]string{fileName, "not a regular file"}},
		{"no directory", os.Remove, []string{"no such file"}},
		{"leftover", func(dir string) error { return os.MkdirAll(filepath.Join(dir, newName, "x"), 0o700) },
			[]string{newName, "not empty"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(tempDir(t), "state")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := c.prepare(dir); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir, Options{})
			if err == nil {
				closed(t, s)
				t.Fatal("no error")
			}
			for _, part := range append(c.want, dir) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}

func TestFileMode(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	s := opened(t, tempDir(t), small)
	info, err := os.Stat(s.path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What an interrupted process leaves is removed, or put in its place.
func TestLeftovers(t *testing.T) {
	t.Run("new", func(t *testing.T) {
		s, m := opened(t, tempDir(t), small), newModel()
		m.commit(t, s, m.fill(key("d"), 3, 10))
		closed(t, s)
		for _, name := range []string{newName, mendedName} {
			if err := os.WriteFile(filepath.Join(s.dir, name), []byte("half a file"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m.mustEqual(t, opened(t, s.dir, small))
		if exists(filepath.Join(s.dir, newName)) || exists(filepath.Join(s.dir, mendedName)) {
			t.Error("they are still there")
		}
	})
	t.Run("mended", func(t *testing.T) {
		s, m := opened(t, tempDir(t), small), newModel()
		m.commit(t, s, m.fill(key("d"), 3, 10))
		closed(t, s)
		if err := os.Rename(s.path, filepath.Join(s.dir, mendedName)); err != nil {
			t.Fatal(err)
		}
		m.mustEqual(t, opened(t, s.dir, small))
	})
	t.Run("empty", func(t *testing.T) {
		dir := tempDir(t)
		if err := os.WriteFile(filepath.Join(dir, fileName), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		log, logs := observed()
		s, err := Open(dir, Options{Log: log})
		if err != nil {
			t.Fatal(err)
		}
		defer closed(t, s)
		newModel().mustEqual(t, s)
		if logs.FilterLevelExact(zap.ErrorLevel).Len() != 1 || len(aside(t, dir)) > 0 {
			t.Errorf("%v", logs.All())
		}
	})
}

// A file that is mostly free is made smaller, at the start and when there is time.
func TestCompact(t *testing.T) {
	for _, when := range []string{"start", "idle"} {
		t.Run(when, func(t *testing.T) {
			lim := small
			if when == "start" {
				lim.compact = 1 << 40
			}
			s, m := opened(t, tempDir(t), lim), newModel()
			for i := range 40 {
				m.commit(t, s, m.fill(key(fmt.Sprint(i%8)), 30, 300))
			}
			for i := range 8 {
				m.commit(t, s, m.deliver(key(fmt.Sprint(i)), 150-i))
			}
			full := s.Stats()
			if err := s.Maintain(); err != nil {
				t.Fatal(err)
			}
			if when == "start" {
				if s.Stats().Compactions > 0 {
					t.Fatal("compacted too early")
				}
				closed(t, s)
				s = opened(t, s.dir, small)
			}
			st := s.Stats()
			info, err := os.Stat(s.path)
			if err != nil || st.Compactions != 1 || info.Size() > full.Size/2 || st.Size > full.Size/4 {
				t.Errorf("%+v, then %+v, %d bytes, %v", full, st, info.Size(), err)
			}
			m.mustEqual(t, s)
			m.commit(t, s, m.fill(key("1"), 3, 300))
			m.mustEqual(t, s)
			closed(t, s)
			m.mustEqual(t, opened(t, s.dir, small))
		})
	}
}

// With much in use the copy would keep commits waiting.
func TestCompactNotIfLarge(t *testing.T) {
	lim := small
	lim.compact, lim.copyMost = 1, 16<<10
	s, m := opened(t, tempDir(t), lim), newModel()
	for i := range 40 {
		m.commit(t, s, m.fill(key(fmt.Sprint(i%8)), 30, 300))
	}
	for i := range 8 {
		m.commit(t, s, m.deliver(key(fmt.Sprint(i)), 140))
	}
	if err := s.Maintain(); err != nil {
		t.Fatal(err)
	}
	st := s.Stats()
	if st.Compactions > 0 || st.Free < st.Size/4*3 {
		t.Errorf("%+v", st)
	}
}
