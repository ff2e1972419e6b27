package lane

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// spoolRun is one run of the model: lanes, their spool and its store, over crashes and restarts.
type spoolRun struct {
	rng      *rand.Rand
	limit    int64 // of memory
	disk     int64
	expires  bool
	store    *fakeStore
	spool    *Spool
	memory   *Budget
	lanes    []*spoolLane
	stop     context.CancelFunc
	ended    chan error
	step     atomic.Int64
	killed   atomic.Bool
	gathered int64                     // the step in which the batch was made that is being committed
	faulty   time.Time                 // when the spool last had a fault
	well     atomic.Pointer[time.Time] // since when the store is, nil while it is not
	log      []string
}

// healthy says that the store has been working for some time.
func (r *spoolRun) healthy(d time.Duration) bool {
	well := r.well.Load()
	return well != nil && time.Since(*well) >= d
}

func (r *spoolRun) isWell(well bool) {
	if !well {
		r.well.Store(nil)
		return
	}
	now := time.Now()
	r.well.Store(&now)
}

func newSpoolRun(seed uint64) *spoolRun {
	rng := rand.New(rand.NewPCG(seed, 1))
	r := &spoolRun{rng: rng, store: newFakeStore(), limit: plenty, disk: plenty}
	r.isWell(true)
	if rng.IntN(3) == 0 {
		r.limit = 10 * (base + rng.Int64N(500))
	}
	if rng.IntN(4) == 0 {
		r.disk = (40 + rng.Int64N(60)) * (base + 100)
	}
	r.expires = rng.IntN(3) == 0
	for i := range 3 {
		cfg := Config{
			OnFull: Policy(rng.IntN(3)), DropQoS0: rng.IntN(2) == 0, Hold: true, Away: rng.IntN(2) == 0,
			Always: rng.IntN(3) == 0, SpillAfter: time.Duration(rng.IntN(3)) * time.Second,
		}
		if rng.IntN(2) == 0 {
			cfg.MaxMessages, cfg.MaxBytes = 1+rng.IntN(200), (1+rng.Int64N(200))*(base+100)
		}
		if rng.IntN(3) == 0 {
			cfg.MaxAge = time.Duration(1+rng.IntN(20)) * time.Second
		}
		key := Key{Device: fmt.Sprintf("d%d", i/2), Direction: Direction(i % 2)}
		r.lanes = append(r.lanes, &spoolLane{run: r, key: key, cfg: cfg, allowed: make(map[uint16]bool)})
	}
	return r
}

// start begins a life.
func (r *spoolRun) start() error {
	r.memory = NewBudget(r.limit)
	r.store.hook = r.committing
	r.store.applied = r.committed
	var err error
	r.spool, err = NewSpool(SpoolConfig{Store: r.store, Memory: r.memory, Limit: r.disk})
	if err != nil {
		return err
	}
	for _, s := range r.lanes {
		cfg := s.cfg
		cfg.Budget = r.memory
		s.mu.Lock()
		s.cfg = cfg
		s.l = r.spool.Lane(s.key, cfg)
		s.mu.Unlock()
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.ended = stop, make(chan error, 1)
	spool, ended := r.spool, r.ended
	go func() { ended <- spool.Run(ctx) }()
	return nil
}

// committing looks at a batch before it is applied: a delivery of an earlier step must be known to it.
func (r *spoolRun) committing(b *Batch) {
	if r.killed.Load() {
		return
	}
	r.gathered = r.step.Load()
	for i := range b.Changes {
		c := &b.Changes[i]
		for _, s := range r.lanes {
			if s.key != c.Key {
				continue
			}
			s.mu.Lock()
			for _, m := range s.messages {
				if m.delivered > 0 && m.sent < r.step.Load() && m.seq < c.State.Next && m.seq > c.State.Sent {
					s.faultf("message %d was delivered, and the state says that none after %d was", m.n, c.State.Sent)
				}
			}
			s.mu.Unlock()
		}
	}
}

// committed looks at what a batch leaves: nothing that was done with before it was made.
func (r *spoolRun) committed(b *Batch) {
	if r.killed.Load() {
		return
	}
	for i := range b.Changes {
		c := &b.Changes[i]
		for _, s := range r.lanes {
			if s.key != c.Key {
				continue
			}
			s.mu.Lock()
			for _, rec := range r.store.lanes[c.Key].records {
				m := s.message(number(&rec.Message))
				if m.fate != alive && m.step < r.gathered && !m.early && !s.l.isEarly(rec.Seq) {
					s.faultf("message %d is stored, its fate is %d since step %d", m.n, m.fate, m.step)
				}
			}
			s.mu.Unlock()
		}
	}
}

// restart ends the process, by a kill or cleanly, and begins a life with what is stored.
func (r *spoolRun) restart(kill bool) (string, error) {
	var left *fakeStore
	if kill {
		left = r.store.crash()
		r.killed.Store(true) // what happens from now on does not
	}
	if !kill { // far sides go first
		for _, s := range r.lanes {
			if s.conn != nil {
				s.detach(true)
			}
		}
	}
	before := make([][]int, len(r.lanes))
	counters := make([]Counters, len(r.lanes))
	r.stop()
	err := <-r.ended
	r.ended = nil
	if !kill {
		left = r.store.crash()
	}
	for i, s := range r.lanes {
		var e error
		if before[i], e = s.l.contents(r.store); e != nil && !kill {
			return "", e
		}
		counters[i] = s.l.Counters()
	}
	if e := r.store.err(); e != nil {
		return "", e
	}
	clean := !kill && err == nil
	r.killed.Store(false)
	r.store = left
	r.isWell(true)
	for i, s := range r.lanes {
		if e := s.reborn(clean, before[i]); e != nil {
			return "", fmt.Errorf("%v after a restart, clean %v: %w", s.key, clean, e)
		}
	}
	if e := r.start(); e != nil {
		return "", e
	}
	for i, s := range r.lanes {
		c := s.l.Counters()
		old := &counters[i]
		if clean && (c.Accepted != old.Accepted || c.Delivered != old.Delivered || c.Dropped != old.Dropped ||
			c.Queued != old.Queued || c.Bytes != old.Bytes || c.Stored != c.Queued) {
			return "", fmt.Errorf("%v: the ledger was %+v, is %+v", s.key, *old, c)
		}
		s.dropped, s.drops = c.DroppedTotal(), c.Dropped
		if e := s.checkMarks(clean); e != nil {
			return "", fmt.Errorf("%v, clean %v: %w", s.key, clean, e)
		}
	}
	return fmt.Sprintf("restart, kill %v, clean %v", kill, clean), nil
}

// part gives a lane back and takes it again.
func (r *spoolRun) part(s *spoolLane) (string, error) {
	if s.conn != nil {
		s.detach(true)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.rng.IntN(3000))*time.Millisecond)
	defer cancel()
	if err := r.spool.Release(ctx, s.l); err != nil {
		if r.healthy(2*time.Second) && r.disk == plenty && r.spool.Status().Fault == nil && ctx.Err() == nil {
			return "", fmt.Errorf("%v is not released: %w", s.key, err)
		}
		return fmt.Sprintf("stays: %v", err), nil
	}
	if s.l.Offer(message(1, 1), nil, 0) {
		return "", fmt.Errorf("%v takes messages although it was released", s.key)
	}
	old := s.l.Counters()
	before, err := s.l.contents(r.store)
	if err != nil {
		return "", err
	}
	if err := s.reborn(true, before); err != nil {
		return "", fmt.Errorf("%v was released: %w", s.key, err)
	}
	l := r.spool.Lane(s.key, s.cfg)
	s.mu.Lock()
	s.l = l
	s.mu.Unlock()
	c := l.Counters()
	if c.Accepted != old.Accepted || c.Delivered != old.Delivered || c.Dropped != old.Dropped ||
		c.Queued != old.Queued || c.Bytes != old.Bytes || c.Stored != c.Queued {
		return "", fmt.Errorf("%v: the ledger was %+v, is %+v", s.key, old, c)
	}
	s.dropped, s.drops = c.DroppedTotal(), c.Dropped
	return "released, and taken again", s.checkMarks(true)
}

// reborn sets the fates as a restart leaves them: what is stored is alive, and everything that has to be is there.
func (s *spoolLane) reborn(clean bool, before []int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrong != nil {
		return s.wrong
	}
	var sent uint64
	s.run.store.mu.Lock()
	if l := s.run.store.lanes[s.key]; l != nil {
		sent = l.state.Sent
	}
	s.run.store.mu.Unlock()
	var stored []int
	there := make(map[int]bool)
	for _, rec := range s.run.store.records(s.key) {
		n := number(&rec.Message)
		m := s.message(n)
		if m.fate == refused {
			return fmt.Errorf("message %d is stored, and was not taken", n)
		}
		stored = append(stored, n)
		there[n] = true
		m.again, m.maybe = m.again && !m.maybe || rec.Seq <= sent, false
		m.fate, m.step = alive, s.run.step.Load()
	}
	for _, m := range s.messages {
		switch {
		case there[m.n]:
		case m.fate == alive && s.expired(m):
			m.fate = lost
		case m.fate == alive && m.told == Stored:
			return fmt.Errorf("message %d was acknowledged, and is lost: %+v, %+v, %+v", m.n, *m, s.cfg, s.l.Counters())
		case m.fate == alive:
			m.fate = unsaved
		}
		if !there[m.n] {
			m.step = 0 // long ago
		}
		m.delivered, m.told, m.early, m.late = 0, 0, false, false
	}
	if clean && !slices.Equal(stored, before) {
		return fmt.Errorf("stored are %v, the lane had %v", stored, before)
	}
	s.life++
	s.conn, s.past, s.refused, s.lastTold, s.stalled, s.ended, s.rejected = nil, nil, 0, 0, stall{}, false, 0
	return nil
}

// checkMarks looks for marks that must be there, and for others that may not.
func (s *spoolLane) checkMarks(clean bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := make(map[uint16]bool)
	for _, m := range s.l.Marks() {
		have[m.ID] = true
		if !s.allowed[m.ID] || clean && int(m.ID) <= s.since {
			return fmt.Errorf("the mark %d was removed, and is there", m.ID)
		}
	}
	for _, m := range s.messages {
		if (m.firm || clean && m.mark) && !have[uint16(m.n)] {
			return fmt.Errorf("the mark %d is not there", m.n)
		}
		if !have[uint16(m.n)] {
			m.mark, m.firm, s.allowed[uint16(m.n)] = false, false, false
		} else {
			m.told, m.mark, m.firm, m.released = Stored, true, true, false
		}
	}
	s.since = 0 // those that came back are this session's
	return nil
}

func (r *spoolRun) do() (string, error) {
	rng := r.rng
	switch n := rng.IntN(100); {
	case n < 4:
		return r.fault(), nil
	case n < 14:
		d := time.Duration(rng.IntN(1500)) * time.Millisecond
		if rng.IntN(10) == 0 {
			d *= 10
		}
		<-time.After(d)
		return fmt.Sprintf("%v go by", d), nil
	case n < 15:
		return r.restart(rng.IntN(3) > 0)
	case n < 16 && r.healthy(time.Second):
		return fmt.Sprintf("flush: %v", r.spool.Flush(context.Background())), nil
	}
	i := rng.IntN(len(r.lanes))
	if rng.IntN(100) == 0 {
		did, err := r.part(r.lanes[i])
		return fmt.Sprintf("lane %d: %s", i, did), err
	}
	did := r.lanes[i].do(rng)
	return fmt.Sprintf("lane %d: %s", i, did), nil
}

// fault has the store fail, or work again.
func (r *spoolRun) fault() string {
	n := r.rng.IntN(6)
	r.store.set(func(s *fakeStore) {
		s.commitErr, s.applies, s.readErr, s.delay = nil, false, nil, 0
		switch n {
		case 0:
			s.commitErr = errStore
		case 1:
			s.commitErr, s.applies = errStore, true
		case 2:
			s.readErr = errStore
		case 3:
			s.delay = 300 * time.Millisecond
		}
	})
	r.isWell(n >= 4)
	return fmt.Sprintf("store: %s", []string{"fails", "fails late", "cannot read", "is slow", "works", "works"}[n])
}

func (s *spoolLane) do(rng *rand.Rand) string {
	switch n := rng.IntN(100); {
	case n < 30:
		return s.offer(rng)
	case n < 34:
		defer s.cork(rng)()
		for range 10 + rng.IntN(100) {
			s.offer(rng)
		}
		return "offer many"
	case n < 54:
		return s.done(rng)
	case n < 57:
		defer s.cork(rng)()
		for range 10 + rng.IntN(100) {
			s.done(rng)
		}
		return "done many"
	case n < 63:
		w := Window{Messages: 1 + rng.IntN(6), Bytes: (1 + rng.Int64N(8)) * (base + 50)}
		if rng.IntN(4) == 0 {
			w.Messages = 100
		}
		return s.attach(w, rng.IntN(8) == 0)
	case n < 71 && s.conn != nil:
		s.mu.Lock()
		s.conn.started = true
		s.mu.Unlock()
		s.conn.r.Start()
		return "start"
	case n < 75 && s.conn != nil:
		return s.detach(rng.IntN(8) > 0)
	case n < 80 && s.conn != nil:
		s.mu.Lock()
		s.conn.ready = !s.conn.ready
		s.mu.Unlock()
		s.conn.r.Pump()
		return fmt.Sprintf("ready %v", s.conn.ready)
	case n < 82:
		s.l.Expect()
		return "expect"
	case n < 84:
		s.l.Away()
		return "away"
	case n < 87:
		s.l.Sweep()
		return "sweep"
	case n < 88 && s.conn == nil:
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		s.l.Hold(false)
		s.l.Hold(true)
		return "session over"
	case n < 94:
		return s.unmark(rng)
	case n < 97:
		return s.mark()
	case n < 98:
		return s.endSession()
	case n < 99:
		return s.reconfigure(rng)
	}
	return "nothing"
}

// cork corks the lane, or does not.
func (s *spoolLane) cork(rng *rand.Rand) (uncork func()) {
	if rng.IntN(2) == 0 {
		return func() {}
	}
	s.l.Cork()
	return s.l.Uncork
}

// reconfigure changes the bounds, and when messages are stored.
func (s *spoolLane) reconfigure(rng *rand.Rand) string {
	s.mu.Lock()
	cfg := s.cfg
	cfg.Always, cfg.SpillAfter = rng.IntN(3) == 0, time.Duration(rng.IntN(3))*time.Second
	cfg.MaxMessages, cfg.MaxBytes = 0, 0
	if rng.IntN(2) == 0 {
		cfg.MaxMessages, cfg.MaxBytes = 1+rng.IntN(200), (1+rng.Int64N(200))*(base+100)
	}
	s.cfg, s.asOf = cfg, time.Now()
	s.mu.Unlock()
	s.l.Reconfigure(cfg)
	return fmt.Sprintf("reconfigure: %+v", cfg)
}

// finish heals the store, delivers what is left, and looks for what remains of it.
func (r *spoolRun) finish() error {
	r.store.set(func(s *fakeStore) { s.commitErr, s.applies, s.readErr, s.delay = nil, false, nil, 0 })
	r.isWell(true)
	<-time.After(3 * time.Second)
	if err := r.check(); err != nil {
		return err
	}
	for _, s := range r.lanes {
		s.attach(Window{Messages: 1000, Bytes: 1 << 30}, true)
		s.mu.Lock()
		s.conn.started = true
		s.mu.Unlock()
		s.conn.r.Start()
	}
	if err := r.check(); err != nil {
		return err
	}
	<-time.After(5 * time.Second)
	if err := r.check(); err != nil {
		return err
	}
	for _, s := range r.lanes {
		if c := s.l.Counters(); c.Queued+c.Stored != 0 || c.StoredBytes != 0 {
			return fmt.Errorf("%v in the end: %+v", s.key, c)
		}
		if n := len(r.store.records(s.key)); n != 0 {
			return fmt.Errorf("%v: %d records are left", s.key, n)
		}
		if s.l.expiring != 0 || len(s.l.q.buf) > ringKeep || s.l.unsaved || len(s.l.disk.gone) > 0 {
			return fmt.Errorf("%v keeps %d places, %d expiring, unsaved %v, gone %v", s.key, len(s.l.q.buf), s.l.expiring,
				s.l.unsaved, s.l.disk.gone)
		}
	}
	if n, m := r.memory.Used(), r.spool.disk.Used(); n != 0 || m != 0 {
		return fmt.Errorf("%d bytes of memory and %d of disk are taken in the end", n, m)
	}
	if st := r.spool.Status(); st.Fault != nil || r.spool.broken.Load() != 0 {
		return fmt.Errorf("fault in the end: %v", st.Fault)
	}
	before := r.store.saw()
	<-time.After(time.Minute)
	synctest.Wait()
	after := r.store.saw()
	if after.tries != before.tries || before.commits > 0 && after.maintained == 0 {
		return fmt.Errorf("%+v, and after a minute in which nothing happened %+v", before, after)
	}
	return r.store.err()
}

// check waits until nothing moves, checks everything, and ends the step.
func (r *spoolRun) check() error {
	synctest.Wait()
	if r.spool.Status().Fault != nil {
		r.faulty = time.Now()
	}
	for _, s := range r.lanes {
		if err := s.check(); err != nil {
			return fmt.Errorf("%v, %+v: %w", s.key, s.cfg, err)
		}
	}
	r.step.Add(1)
	return r.checkBudgets()
}

func (r *spoolRun) checkBudgets() error {
	var memory, disk int64
	for _, s := range r.lanes {
		s.l.mu.Lock()
		memory += s.l.bytes - s.l.gap.bytes
		disk += s.l.disk.bytes
		s.l.mu.Unlock()
	}
	if n, m := r.memory.Used(), r.spool.disk.Used(); n != memory || m != disk {
		return fmt.Errorf("%d bytes of memory and %d of disk are taken, the lanes have %d and %d", n, m, memory, disk)
	}
	return r.store.err()
}

// setClock has the clock of a bubble show a time that a gateway's clock shows.
func setClock() { <-time.After(time.Until(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))) }

var (
	modelSeed = flag.Uint64("model.seed", 0, "the seed of a run that failed")
	modelRuns = flag.Int("model.runs", 40, "how many runs")
	lastSteps = flag.Int("model.steps", 14, "how many steps are shown of a run that failed")
)

// TestSpoolModel has three lanes with a common spool do random things, with a store that fails and a process that dies.
func TestSpoolModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		setClock()
		for range *modelRuns {
			seed := cmp.Or(*modelSeed, rand.Uint64())
			if err := runSpoolModel(seed); err != nil {
				t.Fatalf("seed %#x: %v", seed, err)
			}
		}
	})
}

func runSpoolModel(seed uint64) (err error) {
	r := newSpoolRun(seed)
	if err := r.start(); err != nil {
		return err
	}
	defer func() {
		r.stop()
		if r.ended == nil {
			return
		}
		if ended := <-r.ended; err == nil {
			err = ended
		}
	}()
	r.step.Store(1)
	for i := range 400 {
		did, err := r.do()
		r.log = append(r.log, did)
		if err == nil {
			err = r.check()
		}
		if err != nil {
			return fmt.Errorf("%w\nstep %d, the last steps: %q", err, i, r.log[max(0, len(r.log)-*lastSteps):])
		}
	}
	return r.finish()
}
