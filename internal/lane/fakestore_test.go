package lane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"bridged/internal/mqtt"
)

var errStore = errors.New("the store's fault")

// fakeStore is a store in memory that fails as it is told to. It holds each commit against the records that it leaves.
type fakeStore struct {
	writing, reading solo // one goroutine each

	mu    sync.Mutex
	lanes map[Key]*fakeLane
	notes map[string][]byte

	// What it is told to do.
	commitErr error         // of each commit
	applies   bool          // a commit that fails is applied all the same
	readErr   error         // of each read
	tidyErr   error         // of Maintain
	delay     time.Duration // of each commit and read
	gate      chan struct{} // each commit takes one, if there is one
	hook      func(*Batch)  // called when a commit begins
	applied   func(*Batch)  // called when one has been applied, with mu held
	damaged   bool          // records are missing, so that they cannot match the state
	unchecked bool
	repairs   uint64

	seen  seen
	wrong []string
}

// seen is what a store has seen.
type seen struct {
	commits, tries int // that succeeded, or were applied, and all
	readTries      int
	reads          []int // records of each
	maintained     int
}

type fakeLane struct {
	state   State
	records []Record // in order
	marks   map[uint16]mqtt.Mark
}

func newFakeStore() *fakeStore {
	return &fakeStore{lanes: make(map[Key]*fakeLane), notes: make(map[string][]byte)}
}

func (s *fakeStore) Repairs() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repairs
}

// crash returns what a process finds that starts after this one was killed.
func (s *fakeStore) crash() *fakeStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newFakeStore()
	c.notes = maps.Clone(s.notes)
	for key, l := range s.lanes {
		c.lanes[key] = &fakeLane{state: l.state, records: slices.Clone(l.records), marks: maps.Clone(l.marks)}
	}
	return c
}

func (s *fakeStore) Load() (Contents, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Contents{Notes: maps.Clone(s.notes)}
	for key, l := range s.lanes {
		c.Lanes = append(c.Lanes, Saved{Key: key, State: l.state, Marks: slices.Collect(maps.Values(l.marks))})
	}
	return c, nil
}

func (s *fakeStore) Commit(b *Batch) error {
	defer s.writing.enter("Commit")()
	s.mu.Lock()
	hook, gate, delay := s.hook, s.gate, s.delay
	s.seen.tries++
	s.mu.Unlock()
	if hook != nil {
		hook(b)
	}
	if gate != nil {
		<-gate
	}
	if delay > 0 {
		<-time.After(delay)
	}
	s.mu.Lock()
	err := s.commitErr
	if err == nil || s.applies {
		s.applyLocked(b)
	}
	s.mu.Unlock()
	if delay > 0 {
		<-time.After(delay)
	}
	return err
}

func (s *fakeStore) applyLocked(b *Batch) {
	s.seen.commits++
	if len(b.Changes)+len(b.Notes) == 0 {
		s.wrongf("an empty batch")
	}
	changed := make(map[Key]bool)
	for i := range b.Changes {
		c := &b.Changes[i]
		if changed[c.Key] {
			s.wrongf("%v: two changes in a batch", c.Key)
		}
		changed[c.Key] = true
		l := s.lanes[c.Key]
		if l == nil {
			l = &fakeLane{marks: make(map[uint16]mqtt.Mark)}
			s.lanes[c.Key] = l
		}
		s.changeLocked(l, c)
	}
	for _, n := range b.Notes {
		if n.Value == nil {
			delete(s.notes, n.Name)
		} else {
			s.notes[n.Name] = n.Value
		}
	}
	if s.applied != nil {
		s.applied(b)
	}
}

func (s *fakeStore) changeLocked(l *fakeLane, c *Change) {
	l.state = c.State
	head, _ := l.find(c.State.Head)
	l.records = l.records[head:]
	for i, r := range c.Put {
		if i > 0 && r.Seq <= c.Put[i-1].Seq {
			s.wrongf("%v: %d is put after %d", c.Key, r.Seq, c.Put[i-1].Seq)
		}
		if i, there := l.find(r.Seq); there {
			l.records[i] = r
		} else {
			l.records = slices.Insert(l.records, i, r)
		}
	}
	for _, seq := range c.Gone { // after Put: it may not depend on the order
		if i, there := l.find(seq); there {
			l.records = slices.Delete(l.records, i, i+1)
		}
	}
	if c.Fresh {
		clear(l.marks)
	}
	for _, id := range c.Unmark {
		delete(l.marks, id)
	}
	for _, m := range c.Mark {
		l.marks[m.ID] = m
	}
	if s.damaged || s.unchecked {
		return
	}
	if err := l.check(); err != nil {
		s.wrongf("%v: %v", c.Key, err)
	}
}

// check holds a lane's state against its records.
func (l *fakeLane) check() error {
	st := &l.state
	var bytes int64
	for i := range l.records {
		r := &l.records[i]
		seq := r.Seq
		bytes += r.Message.Size()
		if seq >= st.Next || seq < st.Head {
			return fmt.Errorf("record %d is not from %d to before %d", seq, st.Head, st.Next)
		}
		if st.Oldest.After(r.At) {
			return fmt.Errorf("record %d is of %v, the oldest of %v", seq, r.At, st.Oldest)
		}
	}
	var dropped uint64
	for _, n := range st.Dropped {
		dropped += n
	}
	switch {
	case st.Queued != len(l.records), st.Bytes != bytes:
		return fmt.Errorf("%d records of %d bytes, the state has %d of %d", len(l.records), bytes, st.Queued, st.Bytes)
	case st.Head == 0, st.Head > st.Next, st.Queued == 0 && st.Head != st.Next, st.Sent >= st.Next:
		return fmt.Errorf("head %d, next %d, sent %d with %d records", st.Head, st.Next, st.Sent, st.Queued)
	case st.Oldest.IsZero() != (st.Queued == 0):
		return fmt.Errorf("oldest %v with %d records", st.Oldest, st.Queued)
	case st.Accepted != st.Delivered+uint64(st.Queued)+dropped:
		return fmt.Errorf("the ledger does not balance: %+v", *st)
	}
	return nil
}

func (s *fakeStore) Read(k Key, from, before uint64, count int, bytes int64) ([]Record, error) {
	defer s.reading.enter("Read")()
	s.mu.Lock()
	delay := s.delay
	s.mu.Unlock()
	if delay > 0 {
		<-time.After(delay)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.readTries++
	if s.readErr != nil {
		return nil, s.readErr
	}
	var got []Record
	if l := s.lanes[k]; l != nil {
		got = slices.Clone(cut(l.sorted(from, before), count, bytes))
	}
	s.seen.reads = append(s.seen.reads, len(got))
	return got, nil
}

func cut(all []Record, count int, bytes int64) []Record {
	var size int64
	for i := range all {
		if i >= count || i > 0 && size >= bytes {
			return all[:i]
		}
		size += all[i].Message.Size()
	}
	return all
}

func (l *fakeLane) sorted(from, before uint64) []Record {
	i, _ := l.find(from)
	j, _ := l.find(before)
	return l.records[i:max(i, j)]
}

// find returns where the record with this sequence number is, or would be.
func (l *fakeLane) find(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(l.records, seq, func(r Record, seq uint64) int { return cmp.Compare(r.Seq, seq) })
}

func (s *fakeStore) Maintain() error {
	defer s.writing.enter("Maintain")()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.maintained++
	return s.tidyErr
}

func (s *fakeStore) wrongf(format string, args ...any) {
	if len(s.wrong) < 5 {
		s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
	}
}

// set changes what the store does.
func (s *fakeStore) set(f func(*fakeStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// records returns what is stored of a lane.
func (s *fakeStore) records(k Key) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[k]; l != nil {
		return slices.Clone(l.records)
	}
	return nil
}

// saw returns what it has seen so far.
func (s *fakeStore) saw() seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// err is what was wrong with the commits.
func (s *fakeStore) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrong) > 0 {
		return fmt.Errorf("commits: %q", s.wrong)
	}
	return nil
}
