package lane

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bridged/internal/pulse"
)

// SpoolConfig says how lanes share a store.
type SpoolConfig struct {
	Store  Store
	Memory *Budget // of the lanes, to store more when it gets short; nil for none
	Limit  int64   // bytes that all lanes together may have on disk, as Message.Size counts them
	// OnFault is told when messages cannot be stored, each time the reason changes, and nil when they can again, one call
	// at a time. It must not call the spool. May be nil.
	OnFault func(error)
}

// Spool moves messages of many lanes to a store and back. One goroutine writes, and gathers what all lanes have for it
// in one commit; another one reads. Lanes ask for both without waiting.
type Spool struct {
	cfg     SpoolConfig
	disk    *Budget
	fault   atomic.Pointer[Fault] // written under faults
	faults  sync.Mutex
	refused atomic.Int64 // the size of the message that met it last
	limited atomic.Bool  // the disk limit was met in this round
	broken  atomic.Int64 // lanes with a piece that could not be read
	toWrite chan struct{}
	toRead  chan struct{}
	toTick  chan struct{}

	commits, messages atomic.Uint64
	repairs           uint64 // of the store, as far as they were noticed; used by the writer

	writer, reader, ticker pulse.Pulse

	mu      sync.Mutex // protects the following fields; taken while a lane's mutex is held, never the reverse
	saved   map[Key]Saved
	lanes   []*Lane // replaced, not changed, when one goes
	writes  []*Lane // to be looked at by the writer
	reads   []*Lane
	notes   map[string]*note
	flushes []flush
	leaving []departure
	// attended are the lanes that the timer looks at: those that are unsaved, each once.
	attended []*Lane
	resting  bool              // the timer has nothing to do
	latest   [2]*Config        // of the lanes that were made or reconfigured last, by direction
	held     map[string][]byte // all notes, as they will be when everything has been committed
}

// SpoolStatus is how a spool is.
type SpoolStatus struct {
	Fault    *Fault // nil if messages can be stored
	Bytes    int64  // on disk
	Limit    int64
	Commits  uint64 // since the start
	Messages uint64 // stored since the start
}

const (
	tickEvery = 100 * time.Millisecond
	// tidyEvery is how often deletions are written that no other commit has taken along. What was delivered since is
	// delivered again after a crash.
	tidyEvery = 2 * time.Second
	// retryEvery is how often a store that has failed is tried again.
	retryEvery = time.Second
	// The size of a commit in all and for each lane, in bytes.
	commitBytes     = 1 << 20
	laneCommitBytes = 256 << 10
	// probe is a note that is written to see whether the store works again.
	probe = "probe"
	// maintainAfter is how long nothing must have been written before the store is tidied up.
	maintainAfter = time.Minute
)

// NewSpool reads from the store what there is, and starts nothing.
func NewSpool(cfg SpoolConfig) (*Spool, error) {
	contents, err := cfg.Store.Load()
	if err != nil {
		return nil, err
	}
	s := &Spool{
		cfg: cfg, disk: NewBudget(cfg.Limit), held: contents.Notes, notes: make(map[string]*note),
		toWrite: make(chan struct{}, 1), toRead: make(chan struct{}, 1),
		toTick: make(chan struct{}, 1), saved: make(map[Key]Saved),
	}
	s.writer.Name, s.reader.Name, s.ticker.Name = "the spool's writer", "the spool's reader", "the spool's timer"
	delete(s.held, probe)
	s.repairs = cfg.Store.Repairs()
	for _, l := range contents.Lanes {
		s.saved[l.Key] = l
		_ = s.disk.reserve(l.State.Bytes, true) // it is there, whatever the limit is now
	}
	return s, nil
}

// Lane returns the lane of this name with what is stored for it. It must not be called again for a name before the lane
// was given back with Release.
func (s *Spool) Lane(key Key, cfg Config) *Lane {
	l := newLane(s.share(key.Direction, &cfg))
	l.spool, l.key = s, key
	s.mu.Lock()
	saved, ok := s.saved[key]
	delete(s.saved, key)
	s.mu.Unlock()
	if !ok {
		saved.State = State{Head: 1, Next: 1}
	}
	l.resume(saved)
	l.Hold(cfg.Hold) // without, what is stored was for a session that is over
	s.mu.Lock()
	s.lanes = append(s.lanes, l)
	s.mu.Unlock()
	return l
}

// share returns the configuration of another lane if it is the same, as it is for most devices.
func (s *Spool) share(d Direction, cfg *Config) *Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if latest := s.latest[d]; latest != nil && *latest == *cfg {
		return latest
	}
	s.latest[d] = cfg
	return cfg
}

// Unclaimed returns what is stored of lanes that Lane was not called for.
func (s *Spool) Unclaimed() []Saved {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Saved, 0, len(s.saved))
	for _, l := range s.saved {
		all = append(all, l)
	}
	return all
}

// Status tells how the spool is.
func (s *Spool) Status() SpoolStatus {
	return SpoolStatus{
		Fault: s.fault.Load(), Bytes: s.disk.Used(), Limit: s.disk.limit.Load(),
		Commits: s.commits.Load(), Messages: s.messages.Load(),
	}
}

// SetLimit changes SpoolConfig.Limit.
func (s *Spool) SetLimit(limit int64) { s.disk.SetLimit(limit) }

// pressed says whether memory is getting short: more than half of it is taken.
func (s *Spool) pressed() bool {
	return s.cfg.Memory != nil && s.cfg.Memory.Used() > s.cfg.Memory.limit.Load()/2
}

// short says whether memory is short: more than three quarters of it are taken.
func (s *Spool) short() bool {
	return s.cfg.Memory != nil && s.cfg.Memory.Used() > s.cfg.Memory.limit.Load()/4*3
}

// reserve takes disk space.
func (s *Spool) reserve(size int64) bool {
	ok := s.disk.reserve(size, false)
	if !ok {
		s.limited.Store(true)
		s.refused.Store(size)
	}
	return ok
}

// store has the writer look at a lane. The caller holds the lane's mutex.
func (s *Spool) store(l *Lane) {
	if l.disk.wanted || l.stage == released {
		return
	}
	l.disk.wanted = true
	s.mu.Lock()
	s.writes = append(s.writes, l)
	s.mu.Unlock()
	wake(s.toWrite)
}

// load has the reader read a piece of a lane.
func (s *Spool) load(l *Lane) {
	s.mu.Lock()
	s.reads = append(s.reads, l)
	s.mu.Unlock()
	wake(s.toRead)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Pulses are those of the goroutines that Run has, until ctx ends. The disk is outside.
func (s *Spool) Pulses() []*pulse.Pulse { return []*pulse.Pulse{&s.writer, &s.reader, &s.ticker} }

// Run serves the lanes until ctx ends. Then it stores what is left in them, and their ledgers.
func (s *Spool) Run(ctx context.Context) error {
	helpers, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.read(helpers) })
	wg.Go(func() { s.tick(helpers) })
	s.write(ctx)
	cancel()
	wg.Wait()
	return s.finish()
}

// tick looks after the lanes. It is slow while there is nothing to do.
func (s *Spool) tick(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	defer s.ticker.End()
	var tidied time.Time
	for {
		s.ticker.Beat()
		select {
		case <-ctx.Done():
			return
		case <-s.toTick:
			t.Reset(tickEvery)
		case now := <-t.C:
			tidy := now.Sub(tidied) >= tidyEvery
			if tidy {
				tidied = now
			}
			if f := s.fault.Load(); f != nil {
				wake(s.toWrite)
			}
			s.look(now, tidy)
			if s.rests() {
				t.Reset(pulse.Every)
			}
		}
	}
}

// look looks after the lanes that have something to be stored, and if memory is short after all.
func (s *Spool) look(now time.Time, tidy bool) {
	s.mu.Lock()
	lanes := s.attended
	s.attended = nil
	s.mu.Unlock()
	pressed := s.pressed()
	lanes = slices.DeleteFunc(lanes, func(l *Lane) bool { return !l.tick(now, pressed, tidy) })
	s.mu.Lock()
	s.attended = append(lanes, s.attended...)
	s.mu.Unlock()
	if s.short() {
		for _, l := range s.all() {
			l.evict()
		}
	}
}

// rests says that the timer has nothing to do until it is woken.
func (s *Spool) rests() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resting = len(s.attended) == 0 && s.fault.Load() == nil
	return s.resting
}

// attend has the timer look at a lane. The caller holds the lane's mutex.
func (s *Spool) attend(l *Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attended = append(s.attended, l)
	if s.resting {
		s.resting = false
		wake(s.toTick)
	}
}

func (s *Spool) all() []*Lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lanes[:len(s.lanes):len(s.lanes)]
}

// read reads pieces for lanes, first come, first served.
func (s *Spool) read(ctx context.Context) {
	rounds := time.NewTicker(pulse.Every)
	defer rounds.Stop()
	defer s.reader.End()
	for {
		s.reader.Beat()
		select {
		case <-ctx.Done():
			return
		case <-rounds.C:
			continue
		case <-s.toRead:
		}
		s.mu.Lock()
		lanes := s.reads
		s.reads = nil
		s.mu.Unlock()
		for _, l := range lanes {
			if ctx.Err() != nil {
				return
			}
			p := l.nextPiece()
			var records []Record
			err := s.reader.Outside(func() (err error) {
				records, err = s.cfg.Store.Read(l.key, p.from, p.before, pieceMessages, pieceBytes)
				return err
			})
			if err != nil {
				s.failed(fmt.Errorf("%w: %w", ErrRead, err))
			}
			l.loaded(p, records, err)
		}
	}
}

// write commits what lanes have for it until ctx ends.
func (s *Spool) write(ctx context.Context) {
	idle := time.NewTimer(maintainAfter)
	defer idle.Stop()
	rounds := time.NewTicker(pulse.Every)
	defer rounds.Stop()
	defer s.writer.End()
	var retryAt time.Time
	for {
		s.writer.Beat()
		select {
		case <-ctx.Done():
			return
		case <-rounds.C:
			continue
		case <-idle.C:
			if err := s.writer.Outside(s.cfg.Store.Maintain); err != nil {
				s.failed(err)
			}
			continue
		case <-s.toWrite:
		}
		if time.Now().Before(retryAt) {
			continue // the tick comes back here
		}
		for more := true; more && ctx.Err() == nil; {
			wrote, err := s.commit(false)
			if err != nil {
				retryAt = time.Now().Add(retryEvery)
			}
			if wrote {
				idle.Reset(maintainAfter)
			}
			more = wrote && err == nil
		}
	}
}

// commit writes one batch. It returns false if there was nothing to write.
func (s *Spool) commit(end bool) (wrote bool, err error) {
	s.mu.Lock()
	lanes, notes, flushes := s.writes, s.notes, s.flushes
	s.writes, s.notes, s.flushes = nil, make(map[string]*note), nil
	s.mu.Unlock()

	b, taken := s.gather(lanes, end)
	for name, n := range notes {
		b.Notes = append(b.Notes, Note{Name: name, Value: n.value})
	}
	if len(taken)+len(notes) == 0 && !end && s.probes() {
		b.Notes = append(b.Notes, Note{Name: probe, Value: []byte{1}})
	}
	wrote = len(b.Changes)+len(b.Notes) > 0
	if wrote {
		err = s.writer.Outside(func() error { return s.cfg.Store.Commit(b) })
	}
	if err != nil {
		s.mu.Lock()
		for name, n := range notes {
			if newer := s.notes[name]; newer != nil {
				newer.done = append(n.done, newer.done...)
			} else {
				s.notes[name] = n
			}
		}
		s.mu.Unlock()
		for _, l := range taken {
			l.failed()
		}
		s.failed(err)
	} else {
		s.committed(b, taken, notes)
	}
	s.repaired()
	s.flushed(flushes, err)
	s.depart(err)
	return wrote, err
}

// repaired has all ledgers written again if the store was mended.
func (s *Spool) repaired() {
	n := s.cfg.Store.Repairs()
	if n == s.repairs {
		return
	}
	s.repairs = n
	for _, l := range s.all() {
		l.rewrite()
	}
}

// gather makes a batch of what lanes have.
func (s *Spool) gather(lanes []*Lane, end bool) (b *Batch, taken []*Lane) {
	b = new(Batch)
	s.limited.Store(false)
	total := int64(0)
	for i, l := range lanes {
		if total >= commitBytes {
			s.mu.Lock()
			s.writes = append(lanes[i:len(lanes):len(lanes)], s.writes...)
			s.mu.Unlock()
			wake(s.toWrite)
			return b, taken
		}
		l.mu.Lock()
		c, size, ok := l.collectLocked(laneCommitBytes, end || l.stage == leaving)
		l.mu.Unlock()
		if ok {
			b.Changes = append(b.Changes, c)
			taken = append(taken, l)
			total += size
		}
	}
	return b, taken
}

// committed tells everybody that a batch is on disk.
func (s *Spool) committed(b *Batch, taken []*Lane, notes map[string]*note) {
	if len(b.Changes)+len(b.Notes) > 0 {
		s.commits.Add(1)
	}
	for i, l := range taken {
		s.messages.Add(uint64(len(b.Changes[i].Put)))
		l.committed()
	}
	for _, n := range notes {
		for _, done := range n.done {
			done()
		}
	}
	if s.limited.Load() {
		s.failed(ErrDiskLimit)
	} else {
		s.worked()
	}
}

// finish writes what is left.
func (s *Spool) finish() error {
	for _, l := range s.all() {
		l.mu.Lock()
		s.store(l)
		l.mu.Unlock()
	}
	var err error
	limited := false
	for wrote := true; wrote && err == nil; {
		wrote, err = s.commit(true)
		limited = limited || s.limited.Load()
	}
	if err == nil && limited {
		err = ErrDiskLimit
	}
	if err != nil {
		return fmt.Errorf("messages that were not acknowledged are lost with this process: %w", err)
	}
	return nil
}
