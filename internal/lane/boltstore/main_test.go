package boltstore

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// thorough is for tests that try some of many cases otherwise.
var thorough = flag.Bool("thorough", false, "lose every page, cut the power after every event")

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(child(mode, os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// small are limits that make everything happen with little data.
var small = limits{
	recentMin: 6 << 10, recentMax: 24 << 10, recentLane: 2 << 10, recentEntries: 200,
	direct: 2 << 10,
	purge:  4, purgeMost: 16,
	compact: 96 << 10, copyMost: 1 << 20,
}

// tempDir returns a directory where syncing costs nothing, if there is one.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "boltstore") //nolint:usetesting // it must be in memory
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// raw opens a file with bbolt alone.
func raw(t testing.TB, path string) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// opened opens a store and closes it when the test ends.
func opened(t testing.TB, dir string, lim limits) *Store {
	t.Helper()
	s, err := open(dir, Options{}, lim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s) })
	return s
}

func closed(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func commit(t testing.TB, s *Store, b *lane.Batch) {
	t.Helper()
	if err := s.Commit(b); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

// observed returns a logger and what is logged to it.
func observed() (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	return zap.New(core), logs
}

// model is what a store should hold.
type model struct {
	lanes map[lane.Key]*modelLane
	notes map[string][]byte
	ever  map[lane.Key]map[uint64]lane.Record // all that was ever put
}

type modelLane struct {
	state   lane.State
	records []lane.Record // the stored ones, in order
	marks   map[uint16]uint32
}

func newModel() *model {
	return &model{
		lanes: make(map[lane.Key]*modelLane), notes: make(map[string][]byte),
		ever: make(map[lane.Key]map[uint64]lane.Record),
	}
}

func (m *model) clone() *model {
	c := newModel()
	maps.Copy(c.notes, m.notes)
	for k, l := range m.lanes {
		c.lanes[k] = &modelLane{state: l.state, records: slices.Clone(l.records), marks: maps.Clone(l.marks)}
	}
	return c
}

func (m *model) lane(k lane.Key) *modelLane {
	if m.lanes[k] == nil {
		m.lanes[k] = &modelLane{state: lane.State{Head: 1, Next: 1}, marks: make(map[uint16]uint32)}
	}
	return m.lanes[k]
}

// apply is what Commit promises.
func (m *model) apply(b *lane.Batch) {
	for _, n := range b.Notes {
		if n.Value == nil {
			delete(m.notes, n.Name)
		} else {
			m.notes[n.Name] = n.Value
		}
	}
	for _, c := range b.Changes {
		l := m.lane(c.Key)
		l.state = c.State
		for _, r := range c.Put {
			if m.ever[c.Key] == nil {
				m.ever[c.Key] = make(map[uint64]lane.Record)
			}
			m.ever[c.Key][r.Seq] = r
			i, found := slices.BinarySearchFunc(l.records, r.Seq, bySeq)
			if found {
				l.records[i] = r
			} else {
				l.records = slices.Insert(l.records, i, r)
			}
		}
		l.records = slices.DeleteFunc(l.records, func(r lane.Record) bool {
			return r.Seq < c.State.Head || slices.Contains(c.Gone, r.Seq)
		})
		if c.Fresh {
			clear(l.marks)
		}
		for _, id := range c.Unmark {
			delete(l.marks, id)
		}
		for _, mark := range c.Mark {
			l.marks[mark.ID] = mark.Sum
		}
	}
}

func bySeq(r lane.Record, seq uint64) int {
	switch {
	case r.Seq < seq:
		return -1
	case r.Seq > seq:
		return 1
	}
	return 0
}

// settle makes a state true of its records, as a lane does before it commits.
func (l *modelLane) settle() {
	st := &l.state
	st.Queued, st.Bytes, st.Oldest, st.Head = len(l.records), 0, time.Time{}, st.Next
	for i := range l.records {
		st.Bytes += l.records[i].Message.Size()
	}
	if len(l.records) > 0 {
		st.Head, st.Oldest = l.records[0].Seq, l.records[0].At
	}
	var dropped uint64
	for _, d := range st.Dropped {
		dropped += d
	}
	st.Accepted = st.Delivered + uint64(st.Queued) + dropped
}

// differs returns how a store differs from what it should hold.
func (m *model) differs(s *Store) string {
	c, err := s.Load()
	if err != nil {
		return fmt.Sprintf("Load: %v", err)
	}
	if !maps.EqualFunc(m.notes, c.Notes, bytes.Equal) {
		return fmt.Sprintf("notes: %q instead of %q", c.Notes, m.notes)
	}
	if len(c.Lanes) != len(m.lanes) {
		return fmt.Sprintf("%d lanes instead of %d", len(c.Lanes), len(m.lanes))
	}
	for _, saved := range c.Lanes {
		l := m.lanes[saved.Key]
		if l == nil {
			return fmt.Sprintf("lane %v should not be there", saved.Key)
		}
		if !sameState(l.state, saved.State) {
			return fmt.Sprintf("state of %v: %s", saved.Key, cmp.Diff(l.state, saved.State))
		}
		marks := make(map[uint16]uint32)
		for _, m := range saved.Marks {
			marks[m.ID] = m.Sum
		}
		if !maps.Equal(marks, l.marks) {
			return fmt.Sprintf("marks of %v: %v instead of %v", saved.Key, marks, l.marks)
		}
		got, err := readAll(s, saved.Key, saved.State)
		if err != nil {
			return fmt.Sprintf("Read %v: %v", saved.Key, err)
		}
		if d := differ(got, l.records); d != "" {
			return fmt.Sprintf("messages of %v: %s", saved.Key, d)
		}
	}
	return ""
}

// readAll reads a lane in pieces.
func readAll(s *Store, k lane.Key, st lane.State) ([]lane.Record, error) {
	var all []lane.Record
	for from := st.Head; ; {
		piece, err := s.Read(k, from, st.Next, 40, 1<<14)
		if err != nil || len(piece) == 0 {
			return all, err
		}
		all = append(all, piece...)
		from = piece[len(piece)-1].Seq + 1
	}
}

func differ(got, want []lane.Record) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("%d instead of %d, number %d is missing", len(got), len(want), want[i].Seq)
		case i >= len(want):
			return fmt.Sprintf("%d instead of %d, number %d is too many", len(got), len(want), got[i].Seq)
		case !same(&got[i], &want[i]):
			return fmt.Sprintf("the one at %d is number %d instead of %d, or another one", i, got[i].Seq, want[i].Seq)
		}
	}
	return ""
}

func same(a, b *lane.Record) bool {
	return a.Seq == b.Seq && sameTime(a.At, b.At) && a.Message.Topic == b.Message.Topic &&
		bytes.Equal(a.Message.Payload, b.Message.Payload) && a.Message.QoS == b.Message.QoS &&
		a.Message.Retain == b.Message.Retain && sameTime(a.Message.Expires, b.Message.Expires)
}

func sameState(a, b lane.State) bool {
	oldest := sameTime(a.Oldest, b.Oldest)
	a.Oldest, b.Oldest = time.Time{}, time.Time{}
	return oldest && a == b
}

func sameTime(a, b time.Time) bool { return a.Equal(b) && a.IsZero() == b.IsZero() }

// mustEqual fails if a store does not hold what it should.
func (m *model) mustEqual(t testing.TB, s *Store) {
	t.Helper()
	if d := m.differs(s); d != "" {
		t.Fatal(d)
	}
}

// set applies a batch to both.
func (m *model) commit(t testing.TB, s *Store, b *lane.Batch) {
	t.Helper()
	m.apply(b)
	commit(t, s, b)
}

// aside returns the files that were set aside.
func aside(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, damagedName+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var epoch = time.Date(2026, 11, 5, 7, 9, 11, 123456789, time.UTC)

// record returns a message of a lane, the same one for the same arguments.
func record(k lane.Key, seq uint64, size int) lane.Record {
	r := lane.Record{Seq: seq, At: epoch.Add(time.Duration(seq) * 1234567 * time.Microsecond)}
	r.Message = mqtt.Message{Topic: "plant/" + k.Device + "/data", QoS: byte(seq % 3), Retain: seq%5 == 0}
	r.Message.Payload = bytes.Repeat([]byte(fmt.Sprintf("%s %s %d;", k.Device, k.Direction, seq)), size/4+1)[:size]
	if seq%4 == 0 {
		r.Message.Expires = r.At.Add(time.Duration(seq) * time.Second)
	}
	if seq%11 == 0 {
		r.At = time.Time{}
	}
	return r
}

func key(device string) lane.Key { return lane.Key{Device: device} }

// fill puts messages into a lane.
func (m *model) fill(k lane.Key, count, size int) *lane.Batch {
	l := m.lane(k)
	c := lane.Change{Key: k}
	old := l.records
	for range count {
		c.Put = append(c.Put, record(k, l.state.Next, size))
		l.state.Next++
	}
	l.records = append(slices.Clone(old), c.Put...)
	l.settle()
	c.State = l.state
	l.records = old
	return &lane.Batch{Changes: []lane.Change{c}}
}

// deliver takes messages off a lane's head.
func (m *model) deliver(k lane.Key, count int) *lane.Batch {
	l := m.lane(k)
	l.records = slices.Clone(l.records[min(count, len(l.records)):])
	l.state.Delivered += uint64(count)
	l.settle()
	l.state.Sent = l.state.Head
	return &lane.Batch{Changes: []lane.Change{{Key: k, State: l.state}}}
}

// errorsLogged returns the texts of what was logged as an error.
func errorsLogged(logs *observer.ObservedLogs) string {
	var b strings.Builder
	for _, e := range logs.FilterLevelExact(zap.ErrorLevel).All() {
		fmt.Fprintf(&b, "%s %v\n", e.Message, e.ContextMap())
	}
	return b.String()
}
