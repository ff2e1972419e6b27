package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// device is a configured device, connected or not.
type device struct {
	name     string
	b        *Broker
	cfg      atomic.Pointer[Device] // replaced as a whole when the configuration changes
	stripped atomic.Uint64          // messages that lost MQTT 5 properties

	// mu protects the following fields and puts the calls to Upstream in order. It is held while calling lanes and
	// Upstream, none of which ever comes back to a device.
	mu       sync.Mutex
	removed  bool        // nobody enters any more
	arrivals uint64      // links that have wanted to enter
	link     *link       // the one that is in, nil if the device is away
	since    time.Time   // of the last change of link
	session  *session    // of link, or kept while away; nil if there is none
	expiry   *time.Timer // of the session that is kept
	will     *delayed    // will that waits for its time
}

// The window of messages that are delivered to a device and not acknowledged.
const (
	windowMessages = 64
	windowBytes    = 128 << 10
)

func newDevice(b *Broker, cfg *Device) *device {
	d := &device{name: cfg.Name, b: b}
	d.cfg.Store(cfg)
	if cfg.Kept != nil {
		d.session = restored(cfg.Kept, cfg.Marks)
	}
	return d
}

// setup is the device's configuration of the moment.
func (d *device) setup() *Device { return d.cfg.Load() }

// resume has the session that an earlier process left end in its time.
func (d *device) resume() {
	k := d.setup().Kept
	if k == nil || k.Endless {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if k.Remaining > 0 {
		d.expireLocked(k.Remaining)
		return
	}
	d.endSessionLocked()
	d.b.log.Info(sessionExpired, zap.String("device", d.name))
}

const sessionExpired = "the device's session has expired"

// enter makes l the device's link, in place of any other, with the session that l asked for. If l has ended meanwhile,
// was overtaken by a still later one, or may not log in any more, it does nothing but end l: mochi's next write fails
// then.
func (d *device) enter(l *link) {
	if !d.claim(l) {
		l.end(takenOver)
		return
	}
	defer d.mu.Unlock()
	if e, ok := d.admitsLocked(l); !ok {
		l.end(e)
		return
	}
	d.b.cancel(d.expiry)
	d.expiry = nil
	resumed := d.session != nil && !l.req.fresh
	if d.will != nil {
		// A resumed session takes its will back, one that is discarded ends and has it delivered (MQTT 5, 3.1.3.2.2).
		d.settleWillLocked(!resumed)
	}
	connect := l.req.session(resumed)
	if !resumed {
		if d.session != nil {
			d.session.end()
		} else {
			d.setup().Marks.ClearMarks() // that an earlier process may have left
		}
		d.session = newSession(d.setup().Marks)
		if (connect.Clean || connect.Reset) && !d.setup().Persistent {
			d.setup().Down.Hold(false) // drops what was held for an earlier session
		}
	}
	l.req.resumed, l.req.clean = resumed, connect.Clean
	l.session = d.session
	l.session.connected(l)
	d.link, d.since = l, time.Now()
	r := d.setup().Down.Attach(l, lane.Window{Messages: min(windowMessages, l.req.receiveMax), Bytes: windowBytes})
	l.mu.Lock()
	l.reader = r
	l.mu.Unlock()
	d.setup().Upstream.Connected(connect)
}

// claim waits until the device has no link and returns with d.mu held, or returns false. The latest arrival wins: an
// earlier one that still waits must not end it.
func (d *device) claim(l *link) bool {
	d.mu.Lock()
	d.arrivals++
	arrival := d.arrivals
	for d.link != nil && arrival == d.arrivals {
		old := d.link
		d.mu.Unlock()
		old.end(takenOver)
		<-old.done // soon: nothing that it does blocks
		d.mu.Lock()
	}
	if arrival == d.arrivals && !l.over() {
		return true
	}
	d.mu.Unlock()
	return false
}

// begin lets messages flow, after CONNACK.
func (l *link) begin() {
	id := l.req.clientID
	if id == "" {
		id = l.assigned
	}
	l.b.log.Info("device connected", l.fields(clientIDField(id), zap.String("protocol", versionName(l.req.version)),
		zap.Bool("resumed", l.req.resumed))...)
	l.session.mu.Lock()
	var resend []byte
	for _, id := range l.session.out.Released() {
		resend = appendAck(resend, pubrel, id)
	}
	l.session.mu.Unlock()
	if len(resend) > 0 {
		l.send(resend)
	}
	l.reader.Start()
}

// leave takes l out of its device.
func (d *device) leave(l *link, graceful bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := l.req.expiry > 0
	l.session.disconnected(kept)
	l.reader.Detach(kept || d.setup().Persistent)
	if w := l.req.will; w != nil && w.held && !graceful {
		d.holdWillLocked(w, l.req.expiry)
	}
	d.setup().Upstream.Disconnected(graceful, l.req.expiry)
	d.link, d.since = nil, time.Now()
	switch {
	case !kept:
		d.session.end()
		d.session = nil
		if !l.req.clean { // it was kept so far
			d.setup().Upstream.EndSession()
		}
	case l.req.expiry < mqtt.Forever:
		d.expireLocked(time.Duration(l.req.expiry) * time.Second)
	}
}

// expireLocked has the kept session end after a time.
func (d *device) expireLocked(after time.Duration) {
	var timer *time.Timer
	timer = d.b.after(after, func() {
		d.mu.Lock()
		expired := d.expiry == timer // otherwise the device came back in this moment
		if expired {
			d.endSessionLocked()
		}
		d.mu.Unlock()
		if expired {
			d.b.log.Info(sessionExpired, zap.String("device", d.name))
		}
	})
	d.expiry = timer
}

func (d *device) endSessionLocked() {
	d.session.end()
	d.expiry, d.session = nil, nil
	if d.will != nil {
		d.settleWillLocked(true)
	}
	d.setup().Down.Hold(d.setup().Persistent)
	d.setup().Upstream.EndSession()
}

// stop ends what would happen later. A will that waits is delivered now, because nobody will remember it.
func (d *device) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.b.cancel(d.expiry)
	d.expiry = nil
	if d.will != nil {
		d.settleWillLocked(true)
	}
}

func versionName(v byte) string {
	switch v {
	case 3:
		return "3.1"
	case 4:
		return "3.1.1"
	}
	return "5"
}
