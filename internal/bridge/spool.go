package bridge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"bridged/internal/lane"
	"bridged/internal/lane/boltstore"
)

// openSpool opens the file in the state directory that holds what must survive the process.
func (b *Bridge) openSpool() error {
	var told faults
	store, err := boltstore.Open(b.cfg.StateDir, boltstore.Options{Log: b.log})
	if err != nil {
		return err
	}
	b.spool, err = lane.NewSpool(lane.SpoolConfig{
		Store: store, Memory: b.memory, Limit: b.cfg.Limits.Disk,
		OnFault: func(err error) { told.tell(b.log, err) }, // one call at a time
	})
	if err != nil {
		return errors.Join(fmt.Errorf("state_dir: %w", err), store.Close())
	}
	b.store = store
	return nil
}

// faults tells what is wrong with the disk. Reading and writing may fail in turn, each over and over.
type faults struct{ reading, writing string } // as told last

// news says whether an error was not told yet.
func (f *faults) news(err error) bool {
	last := &f.writing
	if errors.Is(err, lane.ErrRead) {
		last = &f.reading
	}
	if *last == err.Error() {
		return false
	}
	*last = err.Error()
	return true
}

// tell tells that messages cannot be stored, or can again.
func (f *faults) tell(log *zap.Logger, err error) {
	if err == nil {
		*f = faults{}
		log.Info("the disk can be used again")
		return
	}
	if !f.news(err) {
		return
	}
	if errors.Is(err, lane.ErrRead) {
		log.Error("messages on disk cannot be read: they wait", zap.NamedError("err", err),
			zap.String("remedy", SpoolRemedy(err)))
		return
	}
	log.Error("messages cannot be stored on disk: what the far side does not acknowledge is not acknowledged here",
		zap.NamedError("err", err), zap.String("remedy", SpoolRemedy(err)))
}

// SpoolRemedy is what a person can do about a fault of the spool.
func SpoolRemedy(err error) string {
	switch {
	case errors.Is(err, lane.ErrDiskLimit):
		return "make limits.disk larger, or see why clouds or devices are away for so long"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room on the file system of state_dir; bridged goes on by itself"
	case errors.Is(err, syscall.EROFS):
		return "mount the file system of state_dir for writing; bridged goes on by itself"
	}
	return "look at the kernel's log for the disk of state_dir; bridged tries again every second"
}

// tellUnclaimed says what is stored for devices that are not configured. It is kept.
func (b *Bridge) tellUnclaimed() {
	unclaimed := slices.DeleteFunc(b.spool.Unclaimed(), func(s lane.Saved) bool { return s.State.Queued == 0 })
	slices.SortFunc(unclaimed, func(x, y lane.Saved) int { return strings.Compare(x.Key.Device, y.Key.Device) })
	for _, s := range unclaimed {
		b.log.Warn("messages are stored for a device that is not configured: they are kept until it is again",
			zap.String("device", s.Key.Device), zap.Stringer("direction", s.Key.Direction), zap.Int("count", s.State.Queued))
	}
}

// flushTimeout bounds how long the disk may take on the way down, before devices are let go.
const flushTimeout = 5 * time.Second

// flush stores what is not acknowledged in these lanes, in all if there are none, so that devices get their
// acknowledgements before they are let go.
func (b *Bridge) flush(ctx context.Context, lanes ...*lane.Lane) {
	ctx, cancel := context.WithTimeout(ctx, min(flushTimeout, b.config().ShutdownTimeout))
	defer cancel()
	if err := b.spool.Flush(ctx, lanes...); err != nil {
		b.log.Warn("devices are let go with messages that are not acknowledged: they will send them again",
			zap.NamedError("err", err))
	}
}

// Unclaimed tells what is kept for devices that are not configured.
func (b *Bridge) Unclaimed() []Leftover {
	counts := make(map[string]*[2]int)
	count := func(key lane.Key, n int) {
		if n > 0 {
			if counts[key.Device] == nil {
				counts[key.Device] = new([2]int)
			}
			counts[key.Device][key.Direction] += n
		}
	}
	for _, s := range b.spool.Unclaimed() {
		count(s.Key, s.State.Queued)
	}
	b.mu.Lock()
	for key, l := range b.stranded {
		count(key, l.Counters().Queued)
	}
	b.mu.Unlock()
	all := make([]Leftover, 0, len(counts))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, Leftover{Device: name, Up: counts[name][lane.Up], Down: counts[name][lane.Down]})
	}
	return all
}

// Spool tells how storing on disk goes.
func (b *Bridge) Spool() lane.SpoolStatus { return b.spool.Status() }
