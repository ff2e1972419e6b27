package cloudsim

import (
	"slices"
	"time"
)

// Received is a message that a device published.
type Received struct {
	Device   string
	ClientID string
	Topic    string
	Payload  []byte // shared, not to be changed
	QoS      byte
	Dup      bool
	Retain   bool
	PacketID uint16 // 0 for QoS 0 and wills
	Secure   bool   // came over wss
	// Connection tells which one it came on: the cloud's first successful login is number 1. 0 for wills.
	Connection int64
	Will       bool // is the device's last will
	// Redelivery says that DUP was set and a message of the same topic and payload was among the 256 before it from
	// this device. A repetition of a QoS 2 message that the session still knows is not recorded at all.
	Redelivery bool
	Time       time.Time
}

// Ack is the acknowledgement of a message that was sent to a device: its PUBACK, or for QoS 2 its PUBREC.
type Ack struct {
	Device   string
	Topic    string
	Payload  []byte // shared, not to be changed
	QoS      byte
	PacketID uint16
	Resent   bool // had been sent more than once
	Sent     time.Time
	Time     time.Time
}

// Violation is something that a client must not do.
type Violation struct {
	Device   string // empty if not known
	ClientID string
	Rule     Rule
	Detail   string
	Time     time.Time
}

// LoginFailure is a connection that did not come to be.
type LoginFailure struct {
	Device   string // empty if not known
	ClientID string
	Code     byte // CONNACK return code, 0 if refused before
	Status   int  // HTTP status of a refused upgrade, otherwise 0
	Reason   string
	Secure   bool // over wss
	Time     time.Time
}

// EndReason is why a connection ended.
type EndReason string

// Why connections end.
const (
	EndDisconnect EndReason = "disconnect" // the client sent DISCONNECT
	EndClosed     EndReason = "closed"     // the client or the network closed it without
	EndKeepalive  EndReason = "keepalive"  // silent for one and a half times its keepalive
	EndTakenOver  EndReason = "taken over" // a newer connection of the same identity
	EndViolation  EndReason = "violation"
	EndStuck      EndReason = "stuck" // did not read what was sent to it for a minute
	EndFault      EndReason = "fault" // cut by a fault method
	EndDown       EndReason = "down"  // cut by Down or Close
)

// Connection is a successful login and what became of it.
type Connection struct {
	Device         string
	ClientID       string
	Secure         bool
	Clean          bool
	SessionPresent bool
	Keepalive      time.Duration
	Start          time.Time
	End            time.Time // zero while it lasts
	Reason         EndReason // empty while it lasts
}

// Totals are counters since the start. They do not depend on what is kept.
type Totals struct {
	Upgrades       int64 // WebSocket connections accepted
	Connects       int64 // successful logins
	LoginFailures  int64
	Received       int64 // messages from devices, wills included
	ReceivedBytes  int64 // their payloads
	QoS2Repeats    int64 // QoS 2 publishes that were recognised as repetitions
	DroppedUplink  int64 // lost to Rules.DropExcess
	Sent           int64 // messages to devices, resends not included
	Resent         int64
	Acked          int64 // messages that a device acknowledged
	DroppedQueue   int64 // QoS 1 and 2 messages that found a session's queue full
	DroppedQoS0    int64 // QoS 0 messages that a device was offline or too slow for
	Violations     int64
	DroppedRecords int64 // messages and acknowledgements that fell out of the record
}

// Bounds of the records that have no option of their own.
const (
	keepViolations  = 10_000
	keepLogins      = 10_000
	keepConnections = 100_000
	recentHashes    = 256
)

// recorder keeps what happened. Cloud.mu guards it.
type recorder struct {
	totals      Totals
	cleared     Totals // totals when ClearRecords was called
	received    ring[Received]
	acked       ring[Ack]
	violations  ring[Violation]
	logins      ring[LoginFailure]
	connections ring[*Connection]
}

func newRecorder(keep int) recorder {
	return recorder{
		received:    ring[Received]{limit: keep},
		acked:       ring[Ack]{limit: keep},
		violations:  ring[Violation]{limit: keepViolations},
		logins:      ring[LoginFailure]{limit: keepLogins},
		connections: ring[*Connection]{limit: keepConnections},
	}
}

// ring keeps the newest limit values; a limit below one keeps none.
type ring[T any] struct {
	limit  int
	values []T
	oldest int // index of the oldest, once full
}

// add reports whether nothing was lost.
func (r *ring[T]) add(v T) bool {
	switch {
	case r.limit < 1:
		return false
	case len(r.values) < r.limit:
		r.values = append(r.values, v)
		return true
	}
	r.values[r.oldest] = v
	r.oldest = (r.oldest + 1) % r.limit
	return false
}

func (r *ring[T]) all() []T {
	return slices.Concat(r.values[r.oldest:], r.values[:r.oldest])
}

func (r *ring[T]) clear() { r.values, r.oldest = nil, 0 }

// Received returns the messages that devices published, oldest first.
func (c *Cloud) Received() []Received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.received.all()
}

// ReceivedFrom returns one device's messages, oldest first.
func (c *Cloud) ReceivedFrom(device string) []Received {
	return slices.DeleteFunc(c.Received(), func(r Received) bool { return r.Device != device })
}

// Acked returns which messages devices acknowledged, oldest first.
func (c *Cloud) Acked() []Ack {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.acked.all()
}

// AckedBy returns what one device acknowledged, oldest first.
func (c *Cloud) AckedBy(device string) []Ack {
	return slices.DeleteFunc(c.Acked(), func(a Ack) bool { return a.Device != device })
}

// Violations returns what clients did against the rules, oldest first, the newest 10,000.
func (c *Cloud) Violations() []Violation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.violations.all()
}

// LoginFailures returns the refused logins and upgrades, oldest first, the newest 10,000.
func (c *Cloud) LoginFailures() []LoginFailure {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.logins.all()
}

// Connections returns the successful logins of a device, or of all for All, oldest first, the newest 100,000.
func (c *Cloud) Connections(device string) []Connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Connection
	for _, p := range c.rec.connections.all() {
		if device == All || p.Device == device {
			out = append(out, *p)
		}
	}
	return out
}

// Totals returns the counters.
func (c *Cloud) Totals() Totals {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.totals
}

// ClearRecords forgets messages, acknowledgements, violations, login failures and ended connections. WaitReceived and
// WaitAcked count from here; Totals goes on.
func (c *Cloud) ClearRecords() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rec.cleared = c.rec.totals
	c.rec.received.clear()
	c.rec.acked.clear()
	c.rec.violations.clear()
	c.rec.logins.clear()
	current := slices.DeleteFunc(c.rec.connections.all(), func(p *Connection) bool { return p.Reason != "" })
	c.rec.connections.clear()
	c.rec.connections.values = current
}

func (r *recorder) receive(m Received) {
	r.totals.Received++
	r.totals.ReceivedBytes += int64(len(m.Payload))
	if !r.received.add(m) {
		r.totals.DroppedRecords++
	}
}

func (r *recorder) ack(a Ack) {
	r.totals.Acked++
	if !r.acked.add(a) {
		r.totals.DroppedRecords++
	}
}

// violationLocked records a violation. The caller holds c.mu.
func (c *Cloud) violationLocked(device, clientID string, rule Rule, detail string) {
	c.rec.totals.Violations++
	c.rec.violations.add(Violation{
		Device: device, ClientID: clientID, Rule: rule, Detail: detail, Time: time.Now(),
	})
	c.wakeLocked()
}

// loginFailedLocked records a refused login. The caller holds c.mu.
func (c *Cloud) loginFailedLocked(f LoginFailure) {
	f.Time = time.Now()
	c.rec.totals.LoginFailures++
	c.rec.logins.add(f)
	c.wakeLocked()
}
