package boltstore

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// compacted makes a file that has no older copies of its pages.
func compacted(t *testing.T) *spoiled {
	t.Helper()
	f := &spoiled{lim: small, m: newModel()}
	f.lim.compact = 1 << 40
	s := opened(t, tempDir(t), f.lim)
	for i := range 60 {
		k := key(fmt.Sprintf("device %2d with a name that takes some room", i))
		f.m.commit(t, s, f.m.fill(k, 12, 200))
		f.m.commit(t, s, f.m.deliver(k, i%12))
		c := lane.Change{Key: k, State: f.m.lane(k).state, Mark: []mqtt.Mark{{ID: 7, Sum: 99}, {ID: uint16(i), Sum: 5}}}
		f.m.commit(t, s, &lane.Batch{Changes: []lane.Change{c}})
	}
	if err := s.compact(); err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	f.data = data
	return f
}

// without returns the file without the pages of some kinds.
func (f *spoiled) without(t *testing.T, kinds ...string) []byte {
	t.Helper()
	data := slices.Clone(f.data)
	n := 0
	for i, kind := range f.pageKinds(t) {
		if slices.Contains(kinds, kind) {
			clear(data[i*pageSize:][:pageSize])
			n++
		}
	}
	if n < len(kinds) {
		t.Fatalf("%d pages for %v", n, kinds)
	}
	return data
}

// Where a state is lost, all messages are there, and it is made true of them.
func TestLostStates(t *testing.T) {
	f := compacted(t)
	data := f.without(t, "lanes")
	s := f.open(t, data)
	v := f.judge(t, s, data)
	if len(v.wrong) > 0 || v.read != f.stored() || v.lost > 0 {
		t.Errorf("%+v, %d messages were stored", v, f.stored())
	}
	// Its lanes are there once more, as far as they have messages.
	s = f.reopen(t, s.dir)
	c, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	for _, l := range c.Lanes {
		if old := f.m.lanes[l.Key]; old != nil {
			known++
			if l.State.Next != old.state.Next || l.State.Sent != old.state.Next-1 || len(l.Marks) != len(old.marks) {
				t.Errorf("%v: %+v instead of %+v", l.Key, l.State, old.state)
			}
		}
	}
	if known != 60 {
		t.Errorf("%d lanes", known)
	}
}

// Without any way to them nothing is lost either, but for marks.
func TestLostRoots(t *testing.T) {
	f := compacted(t)
	branches := slices.Clone(f.data)
	for at := 2 * pageSize; at < len(branches); at += pageSize {
		if order.Uint16(branches[at+8:]) == branchFlag {
			clear(branches[at:][:pageSize])
		}
	}
	root := f.without(t, "root")
	both := slices.Clone(branches)
	for i := range both {
		both[i] &= root[i]
	}
	for name, data := range map[string][]byte{"root": root, "branches": branches, "both": both} {
		t.Run(name, func(t *testing.T) {
			s := f.open(t, data)
			c, err := s.Load()
			if err != nil || len(c.Lanes) != 60 {
				t.Errorf("%d lanes, %v", len(c.Lanes), err)
			}
			for _, l := range c.Lanes {
				if name != "branches" && len(l.Marks) > 0 {
					t.Errorf("%v has marks, and nobody knows whether they are still true", l.Key)
				}
			}
			if v := f.judge(t, s, nil); len(v.wrong) > 0 || v.read != f.stored() || v.lost > 0 {
				t.Errorf("%+v, %d messages were stored", v, f.stored())
			}
		})
	}
}

// Both meta pages are gone, as when the beginning of a disk was overwritten.
func TestLostMeta(t *testing.T) {
	f := compacted(t)
	data := slices.Clone(f.data)
	copy(data, bytes.Repeat([]byte("somebody else's file"), 2*pageSize/20))
	s := f.open(t, data)
	if v := f.judge(t, s, data); len(v.wrong) > 0 || v.read != f.stored() || v.lost > 0 {
		t.Errorf("%+v, %d messages were stored", v, f.stored())
	}
}

// Nobody knows whose the messages are: they stay in the damaged file, and that is said.
func TestNameless(t *testing.T) {
	f := compacted(t)
	s := f.open(t, f.without(t, "lanes", "meta"))
	said := errorsLogged(f.logs)
	if !strings.Contains(said, fmt.Sprintf("nameless:%d", f.stored())) || !strings.Contains(said, damagedName) {
		t.Error(said)
	}
	if c, err := s.Load(); err != nil || len(c.Lanes) > 0 {
		t.Errorf("%v, %v", c, err)
	}
}

// What is said when a file was damaged.
func TestDamageIsLogged(t *testing.T) {
	f := compacted(t)
	data := slices.Clone(f.data)
	kinds := f.pageKinds(t)
	clear(data[(slices.Index(kinds, "messages")+3)*pageSize:][:pageSize])
	s := f.open(t, data)
	c, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	var lost uint64
	for _, l := range c.Lanes {
		if _, err := readAll(s, l.Key, l.State); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = s.Load(); err != nil {
		t.Fatal(err)
	}
	for _, l := range c.Lanes {
		lost += l.State.Dropped[lane.Damaged]
	}
	logged := f.logs.FilterLevelExact(zap.ErrorLevel).All()
	if len(logged) != 2 || lost == 0 {
		t.Fatalf("%d lost, %v", lost, logged)
	}
	at := logged[1].ContextMap()
	if at["damaged"] != aside(t, s.dir)[0] || at["lost"] != lost || at["salvaged"] != int64(f.stored())-int64(lost) {
		t.Errorf("%v, with %d of %d lost", at, lost, f.stored())
	}
}

// A file that is damaged again and again is not copied again and again.
func TestMendMost(t *testing.T) {
	s, m := opened(t, tempDir(t), small), newModel()
	m.commit(t, s, m.fill(key("d"), 3, 10))
	spoil := func() {
		f, err := os.OpenFile(s.path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		meta, _, err := readMeta(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, pageSize), int64(meta.root)*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	for range mendMost {
		spoil()
		if _, err := s.Load(); err != nil {
			t.Fatal(err)
		}
	}
	spoil()
	if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), "damaged again") {
		t.Errorf("%v", err)
	}
	if n := len(aside(t, s.dir)); n != mendMost {
		t.Errorf("%d files were set aside", n)
	}
}

// Files that were set aside are never overwritten.
func TestSetAside(t *testing.T) {
	dir := tempDir(t)
	for i := range 4 {
		data := bytes.Repeat([]byte{byte('a' + i)}, 5000)
		if err := os.WriteFile(dir+"/"+fileName, data, 0o600); err != nil {
			t.Fatal(err)
		}
		closed(t, opened(t, dir, small))
	}
	seen := make(map[byte]bool)
	for _, name := range aside(t, dir) {
		data, err := os.ReadFile(name)
		if err != nil || len(data) != 5000 {
			t.Fatal(err)
		}
		seen[data[0]] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d of 4 files were kept", len(seen))
	}
}
