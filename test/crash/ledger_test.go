package crash

import (
	"fmt"
	"testing"

	"go.uber.org/zap"

	"bridged/internal/lane"
	"bridged/internal/lane/boltstore"
)

// ledger is what a state directory holds, of lanes that have messages or had some.
type ledger map[lane.Key]lane.State

// ledger opens the store of a bridged that does not run. Every lane has to balance, and to have the messages that it
// says it has; see is called for each of them if it is not nil.
func (s *site) ledger(see func(lane.Key, *lane.Record)) ledger {
	s.tb.Helper()
	store, err := boltstore.Open(s.state, boltstore.Options{Log: zap.NewNop()})
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			s.tb.Error(err)
		}
	}()
	contents, err := store.Load()
	if err != nil {
		s.tb.Fatal(err)
	}
	all := make(ledger)
	for _, saved := range contents.Lanes {
		st := saved.State
		all[saved.Key] = st
		if err := balance(&st); err != nil {
			s.tb.Errorf("%v: %v", saved.Key, err)
		}
		records, err := store.Read(saved.Key, st.Head, st.Next, st.Queued+1, 1<<40)
		if err != nil {
			s.tb.Errorf("%v: %v", saved.Key, err)
		}
		if err := compare(&st, records); err != nil {
			s.tb.Errorf("%v: %v", saved.Key, err)
		}
		for i := range records {
			if see != nil {
				see(saved.Key, &records[i])
			}
		}
	}
	return all
}

func dropped(st *lane.State) (n uint64) {
	for _, d := range st.Dropped {
		n += d
	}
	return n
}

func balance(st *lane.State) error {
	if out := st.Delivered + uint64(st.Queued) + dropped(st); st.Accepted != out {
		return fmt.Errorf("%d accepted, and %d delivered, queued and dropped: %+v", st.Accepted, out, *st)
	}
	return nil
}

// compare compares a lane's state with its messages.
func compare(st *lane.State, records []lane.Record) error {
	if len(records) != st.Queued {
		return fmt.Errorf("%d messages are said to be stored, and there are %d", st.Queued, len(records))
	}
	last, bytes := uint64(0), int64(0)
	for i := range records {
		r := &records[i]
		if r.Seq <= last || r.Seq >= st.Next || i == 0 && r.Seq != st.Head {
			return fmt.Errorf("number %d after %d, of %d to %d", r.Seq, last, st.Head, st.Next)
		}
		last = r.Seq
		bytes += r.Message.Size()
	}
	if bytes != st.Bytes {
		return fmt.Errorf("%d bytes are said to be stored, and there are %d", st.Bytes, bytes)
	}
	return nil
}

// drained checks the ledgers of a bridged that has delivered everything, which the caller knows from the other side:
// repetitions of that may still be queued when it is stopped. A lane may have none, if nothing of it was
// ever stored: what is in memory only is not in the ledger of a bridged that is killed.
func (l ledger) drained(tb testing.TB, direction lane.Direction, devices []string) {
	tb.Helper()
	for _, name := range devices {
		st := l[lane.Key{Device: name, Direction: direction}]
		if dropped(&st) != 0 || st.Accepted != st.Delivered+uint64(st.Queued) {
			tb.Errorf("the ledger of %s %s: %+v", name, direction, st)
		}
	}
}
