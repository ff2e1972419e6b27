package soak

import (
	"go.uber.org/zap"

	"bridged/internal/lane/boltstore"
)

// ledgers checks what a bridged that has ended has written down: nothing was dropped, and everything is accounted for.
// That all has arrived is known from the other side; repetitions of that may still be queued.
func (s *soak) ledgers() {
	s.t.Helper()
	store, err := boltstore.Open(s.state, boltstore.Options{Log: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			s.t.Error(err)
		}
	}()
	contents, err := store.Load()
	if err != nil {
		s.t.Fatal(err)
	}
	if want := 2 * len(s.devices); len(contents.Lanes) != want {
		s.t.Errorf("there are %d ledgers, want %d", len(contents.Lanes), want)
	}
	for _, saved := range contents.Lanes {
		st := saved.State
		dropped := uint64(0)
		for _, n := range st.Dropped {
			dropped += n
		}
		if dropped != 0 || st.Accepted != st.Delivered+uint64(st.Queued) || st.Accepted == 0 {
			s.t.Errorf("the ledger of %v: %+v", saved.Key, st)
		}
	}
}
