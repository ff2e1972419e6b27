package upstream

import (
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"bridged/internal/mqtt"
)

// Kept is what is to be known of a device's session when the process starts again.
type Kept struct {
	// Filters are in the device's words, with the QoS that it asked for.
	Filters map[string]byte
	// Expiry is for how many seconds the device's session outlives its connection, or mqtt.Forever. It is 0 if the
	// session has ended, and only the cloud's is kept, by configuration.
	Expiry uint32
	// Left is when the device left, by the wall clock. It is zero while the device is connected, and if it does not
	// matter.
	Left time.Time
}

func (k *Kept) equal(other *Kept) bool {
	if k == nil || other == nil {
		return k == other
	}
	return k.Expiry == other.Expiry && k.Left.Equal(other.Left) && maps.Equal(k.Filters, other.Filters)
}

// saveWithin is how long an answer to the device waits for the disk.
const saveWithin = 3 * time.Second

// record has Kept saved, and answers to the device wait for that.
type record struct {
	save func(k *Kept, done func())

	mu      sync.Mutex // protects the following fields; no other is taken while it is held
	last    *Kept      // what save was told last; written under Worker.mu too, so that saves are in order
	told    uint64     // how many times save was called
	written uint64     // the last of them that is on disk
	waiting []unsaved
	late    bool // the log says that the disk does not keep up
}

// unsaved is an answer to the device that waits until a save is on disk.
type unsaved struct {
	save     uint64
	deadline time.Time
	answer   func()
}

// put has k saved unless it is what was saved last. The caller holds Worker.mu.
func (r *record) put(k *Kept) {
	r.mu.Lock()
	if k.equal(r.last) {
		r.mu.Unlock()
		return
	}
	if k != nil {
		k.Filters = maps.Clone(k.Filters)
	}
	r.last = k
	r.told++
	n := r.told
	r.mu.Unlock()
	r.save(k, func() { r.onDisk(n) })
}

// onDisk notes that the n-th save is on disk, and so everything before.
func (r *record) onDisk(n uint64) {
	r.mu.Lock()
	r.written = max(r.written, n)
	if r.written == r.told {
		r.late = false
	}
	calls := r.takeLocked(func(u *unsaved) bool { return u.save <= r.written })
	r.mu.Unlock()
	call(calls)
}

// then calls answer when what was put last is on disk. For a session that ends with its connection it does not wait.
func (r *record) then(answer func()) {
	r.mu.Lock()
	if r.last == nil || r.written == r.told {
		r.mu.Unlock()
		answer()
		return
	}
	r.waiting = append(r.waiting, unsaved{save: r.told, deadline: time.Now().Add(saveWithin), answer: answer})
	r.mu.Unlock()
}

// overdue returns the answers that have waited too long, and says whether that is news.
func (r *record) overdue(now time.Time) (calls []func(), news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls = r.takeLocked(func(u *unsaved) bool { return now.After(u.deadline) })
	news = len(calls) > 0 && !r.late
	r.late = r.late || news
	return calls, news
}

// waits says whether an answer waits.
func (r *record) waits() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting) > 0
}

// takeLocked takes the first answers, as long as they are ready.
func (r *record) takeLocked(ready func(*unsaved) bool) (calls []func()) {
	for len(r.waiting) > 0 && ready(&r.waiting[0]) {
		calls = append(calls, r.waiting[0].answer)
		r.waiting = r.waiting[1:]
	}
	return calls
}

// saveLocked has saved what a restart must not forget. That is a session which outlives its connection; and if the
// configuration keeps the cloud's session for a device that connects clean, then what that one subscribed to.
func (w *Worker) saveLocked() {
	expiry := w.connect.Expiry
	if expiry == 0 && (!w.cfg.Persistent || len(w.subs.device) == 0) {
		w.record.put(nil)
		return
	}
	k := &Kept{Filters: w.subs.device, Expiry: expiry}
	if expiry > 0 && expiry < mqtt.Forever {
		k.Left = w.leftWall
	}
	w.record.put(k)
}

// whenSaved calls answer when the device's subscriptions, as they are now, are on disk.
func (w *Worker) whenSaved(answer func()) {
	w = w.lock()
	w.saveLocked()
	w.mu.Unlock()
	w.record.then(answer)
	w.soon()
}

// saveOverdue returns answers to the device that have waited too long for the disk.
func (w *Worker) saveOverdue(now time.Time) []func() {
	calls, news := w.record.overdue(now)
	if news {
		w.log.Error("the disk does not take the session of the device: its subscriptions are confirmed all the same, "+
			"but may be missing after a restart", zap.Duration("waited", saveWithin))
	}
	return calls
}

// restore takes up the session that an earlier process left.
func (w *Worker) restore(k *Kept) {
	if k == nil {
		return
	}
	w.record.last = k
	if k.Expiry == 0 {
		return
	}
	w.known, w.connect, w.leftWall = true, mqtt.Connect{Expiry: k.Expiry}, k.Left
	if k.Left.IsZero() { // the device left when that process ended; Start has it saved
		w.leftWall = time.Now().Round(0)
	}
}
