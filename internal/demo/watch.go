package demo

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"bridged/internal/cloudsim"
)

// watch tells what happens in a simulated cloud. The handlers are called one at a time.
type watch struct {
	cloud *cloudsim.Cloud

	online     func(cloudsim.Connection)
	offline    func(cloudsim.Connection)
	refused    func(cloudsim.LoginFailure)
	violation  func(cloudsim.Violation)
	acked      func(cloudsim.Ack)
	subscribed func(device, filter string, qos byte) // nil if nobody wants to know

	mu     sync.Mutex // protects the following fields, and is held while handlers are called
	seen   cloudsim.Totals
	newest struct{ connection, refusal, violation, ack time.Time }
	open   []cloudsim.Connection
	subs   map[string]map[string]byte // by device
}

// run watches until ctx ends or the cloud is closed. After something has happened it waits for a while before it looks,
// so that what belongs together is told together. What happened last is told before it returns.
func (w *watch) run(ctx context.Context, wait time.Duration) {
	for {
		looked := false
		err := w.cloud.WaitUntil(ctx, func() bool {
			if looked {
				return true // something has happened since
			}
			looked = true
			w.look()
			return false
		})
		if err != nil || !pause(ctx, wait) {
			break
		}
	}
	w.look()
}

// catchUp tells of new connections, if there are any, so that what they bring is not told first.
func (w *watch) catchUp() {
	w.mu.Lock()
	current := w.seen.Connects == w.cloud.Totals().Connects
	w.mu.Unlock()
	if !current {
		w.look()
	}
}

// look tells what is new. Each kind of event has its own counter, so that a list is only copied when it has grown.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.cloud.Totals()
	w.connections(now.Connects != w.seen.Connects)
	if w.subscribed != nil {
		w.subscriptions()
	}
	if now.LoginFailures != w.seen.LoginFailures {
		for _, f := range w.cloud.LoginFailures() {
			if after(f.Time, &w.newest.refusal) {
				w.refused(f)
			}
		}
	}
	if now.Violations != w.seen.Violations {
		for _, v := range w.cloud.Violations() {
			if after(v.Time, &w.newest.violation) {
				w.violation(v)
			}
		}
	}
	if now.Acked != w.seen.Acked {
		for _, a := range w.cloud.Acked() {
			if after(a.Time, &w.newest.ack) {
				w.acked(a)
			}
		}
	}
	w.seen = now
}

// after says whether t is newer than the newest seen, which it becomes. Records are in the order of their times.
func after(t time.Time, newest *time.Time) bool {
	if !t.After(*newest) {
		return false
	}
	*newest = t
	return true
}

// connections tells which connections ended and which are new.
func (w *watch) connections(more bool) {
	ended := slices.ContainsFunc(w.open, func(c cloudsim.Connection) bool { return !w.cloud.Online(c.Device) })
	if !more && !ended {
		return
	}
	all := w.cloud.Connections(cloudsim.All)
	w.open = slices.DeleteFunc(w.open, func(known cloudsim.Connection) bool {
		i := slices.IndexFunc(all, func(c cloudsim.Connection) bool {
			return c.Device == known.Device && c.Start.Equal(known.Start)
		})
		if i < 0 || all[i].Reason == "" {
			return false
		}
		w.offline(all[i])
		return true
	})
	for _, c := range all {
		if !after(c.Start, &w.newest.connection) {
			continue
		}
		w.online(c)
		if c.Reason != "" {
			w.offline(c)
		} else {
			w.open = append(w.open, c)
		}
	}
}

// subscriptions tells which subscriptions are new.
func (w *watch) subscriptions() {
	all := make(map[string]map[string]byte)
	for _, s := range w.cloud.Sessions() {
		all[s.Device] = s.Subs
		for _, filter := range slices.Sorted(maps.Keys(s.Subs)) {
			if _, known := w.subs[s.Device][filter]; !known {
				w.subscribed(s.Device, filter, s.Subs[filter])
			}
		}
	}
	w.subs = all
}
