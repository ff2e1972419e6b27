package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Bounds of streams of events.
const (
	maxStreams = 32
	// maxChanged is how many devices one event tells of; others that have changed come with the next.
	maxChanged = 500
	// behind is how many events may wait for a reader before it is dropped.
	behind = 3
	// streamWriteWithin is how long a reader may take for what is written at once.
	streamWriteWithin = 10 * time.Second
)

// events tells those who listen what has changed. Every event is encoded once for all of them.
type events struct {
	mu      sync.Mutex // protects the following fields
	streams map[*stream]struct{}
	over    bool
	sent    map[string]DeviceSummary // as told last; nil: nobody was told anything
	next    int                      // where to begin looking for changes
}

// stream is one who listens.
type stream struct {
	chunks chan []byte // closed when the stream is over
}

func newEvents() *events { return &events{streams: make(map[*stream]struct{})} }

func (e *events) wanted() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.streams) > 0
}

// forget is for when nobody listens.
func (e *events) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.streams) == 0 {
		e.sent = nil
	}
}

// join returns a stream, nil if there are too many. What changes after the devices were as given is told.
func (e *events) join(devices func() []DeviceSummary) *stream {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over || len(e.streams) >= maxStreams {
		return nil
	}
	if e.sent == nil {
		e.sent = make(map[string]DeviceSummary)
		for _, d := range devices() {
			e.sent[d.Name] = still(d)
		}
	}
	s := &stream{chunks: make(chan []byte, behind)}
	e.streams[s] = struct{}{}
	return s
}

func (e *events) leave(s *stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropLocked(s)
}

func (e *events) dropLocked(s *stream) {
	if _, ok := e.streams[s]; ok {
		delete(e.streams, s)
		close(s.chunks)
	}
}

// end ends all streams.
func (e *events) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	for s := range e.streams {
		e.dropLocked(s)
	}
}

// publish tells all who listen. One that does not keep up is dropped; it may come again.
func (e *events) publish(st *Status, devices []DeviceSummary) {
	e.mu.Lock()
	defer e.mu.Unlock()
	chunk := event("status", st)
	if c := e.changesLocked(devices); len(c.Changed)+len(c.Removed) > 0 {
		c.At = st.At
		chunk = append(chunk, event("devices", c)...)
	}
	for s := range e.streams {
		select {
		case s.chunks <- chunk:
		default:
			e.dropLocked(s)
		}
	}
}

// changesLocked finds what has changed since it was told last, at most maxChanged of it, in turns.
func (e *events) changesLocked(devices []DeviceSummary) *Changed {
	c := &Changed{Changed: []DeviceSummary{}, Removed: []string{}}
	if e.sent == nil {
		e.sent = make(map[string]DeviceSummary)
	}
	there := make(map[string]bool, len(devices))
	first := -1 // that has to wait
	for i := range devices {
		at := (e.next + i) % len(devices)
		d := &devices[at]
		there[d.Name] = true
		if old, ok := e.sent[d.Name]; ok && same(&old, d) {
			continue
		}
		if len(c.Changed) == maxChanged {
			if c.More++; first < 0 {
				first = at
			}
			continue
		}
		e.sent[d.Name] = still(*d)
		c.Changed = append(c.Changed, *d)
	}
	e.next = max(first, 0)
	for name := range e.sent {
		if !there[name] {
			delete(e.sent, name)
			c.Removed = append(c.Removed, name)
		}
	}
	slices.Sort(c.Removed)
	return c
}

// still is a device without what changes by itself.
func still(d DeviceSummary) DeviceSummary {
	d.Up.OldestAgeSeconds, d.Down.OldestAgeSeconds = 0, 0
	return d
}

// same says whether nothing has changed since a still one.
func same(old, d *DeviceSummary) bool {
	now := still(*d)
	if !equal(old.Failure, now.Failure) || !equal(old.NextAttemptAt, now.NextAttemptAt) ||
		!equal(old.OfflineSince, now.OfflineSince) {
		return false
	}
	now.Failure, now.NextAttemptAt, now.OfflineSince = old.Failure, old.NextAttemptAt, old.OfflineSince
	return *old == now
}

func equal[T comparable](x, y *T) bool { return x == y || x != nil && y != nil && *x == *y }

// event encodes an event.
func event(name string, data any) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "event: %s\ndata: ", name)
	_ = json.NewEncoder(&b).Encode(data) // one line; these types can be encoded
	b.WriteByte('\n')
	return b.Bytes()
}

// stream answers with events: status at once and about once a second, devices when some have changed, and, with
// ?device=NAME, that device in full. A reader that asks for the list of devices after the first event misses nothing.
func (a *Admin) stream(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("device")
	if name != "" && !a.has(name) {
		refuse(w, r, Fault{Status: http.StatusNotFound, Detail: fmt.Sprintf("there is no device %q", name)})
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return
	}
	s := a.events.join(a.summaries)
	if s == nil {
		w.Header().Set("Retry-After", "5")
		refuse(w, r, Fault{
			Status: http.StatusServiceUnavailable, Detail: "too many streams of events are open, or bridged is stopping",
		})
		return
	}
	defer a.events.leave(s)
	control := http.NewResponseController(w)
	send := func(chunk []byte) bool {
		if name != "" {
			chunk = append(slices.Clone(chunk), a.deviceEvent(name)...)
		}
		_ = control.SetWriteDeadline(time.Now().Add(streamWriteWithin)) // a test's recorder has none
		_, err := w.Write(chunk)
		return err == nil && control.Flush() == nil
	}
	if !send(event("status", a.overview(a.summaries()))) {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case chunk, ok := <-s.chunks:
			if !ok || !send(chunk) {
				return
			}
		}
	}
}

func (a *Admin) has(name string) bool {
	_, ok := a.opts.Source.DeviceStatus(name)
	return ok
}

// deviceEvent is a device in full, nothing once it has been removed.
func (a *Admin) deviceEvent(name string) []byte {
	st, ok := a.opts.Source.DeviceStatus(name)
	if !ok {
		return nil
	}
	return event("device", device(&st, a.sampler.latest(name), time.Now()))
}
