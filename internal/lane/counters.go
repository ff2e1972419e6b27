package lane

import (
	"fmt"
	"time"
)

// Reason is why a message was dropped.
type Reason byte

const (
	// QueueFull is a bound that was reached: on_full, or QoS 0.
	QueueFull Reason = iota + 1
	// Expired is a message older than max_age or than its own expiry.
	Expired
	// TooLarge is a message that the far side or the lane can never take.
	TooLarge
	// TopicLimit is a topic longer or deeper than the far side takes.
	TopicLimit
	// NoSession is a message for a far side that is away and has no session to keep it for.
	NoSession
	// SessionEnded is a message that was queued for a session when it ended.
	SessionEnded
	// QoS0Away is a QoS 0 message that came while the far side was away, and is not to be stored.
	QoS0Away
	// Damaged is a stored message that cannot be read any more.
	Damaged
	// RefusedByCloud is a message that the cloud answers by closing the connection, each time.
	RefusedByCloud

	reasons // stores keep the numbers: new ones go before this
)

var reasonNames = [reasons]string{
	"", "queue_full", "expired", "too_large", "topic_limit", "no_session", "session_ended", "qos0_away",
	"damaged", "refused_by_cloud",
}

// String is the reason's name in logs, metrics and the status.
func (r Reason) String() string {
	if r == 0 || r >= reasons {
		return fmt.Sprintf("Reason(%d)", byte(r))
	}
	return reasonNames[r]
}

// Reasons lists every reason.
func Reasons() []Reason {
	all := make([]Reason, 0, reasons-1)
	for r := Reason(1); r < reasons; r++ {
		all = append(all, r)
	}
	return all
}

// Counters is a lane's ledger: at every moment Accepted = Delivered + Queued + the sum of Dropped.
type Counters struct {
	Accepted    uint64
	Delivered   uint64
	Dropped     [reasons]uint64 // by Reason
	LastDropped Reason          // 0 if nothing was dropped
	Queued      int             // in flight or waiting
	InFlight    int             // handed to the consumer
	Bytes       int64           // of the queued messages
	Oldest      time.Duration   // age of the oldest queued message
	Stored      int             // queued messages that are on disk
	StoredBytes int64           // of the stored messages
}

// DroppedTotal is the sum of Dropped.
func (c *Counters) DroppedTotal() (n uint64) {
	for _, d := range c.Dropped {
		n += d
	}
	return n
}

// Counters returns the lane's ledger as it stands.
func (l *Lane) Counters() Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.count
	c.Queued, c.Bytes = l.live, l.bytes
	if l.reader != nil {
		c.InFlight = l.reader.inFlight
	}
	c.Stored, c.StoredBytes = l.disk.live, l.disk.bytes
	if _, at, ok := l.headLocked(); ok {
		c.Oldest = time.Since(l.epoch) - at
	}
	return c
}
