package bridge

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"bridged/internal/lane"
)

// dropEvery is how often the log tells of a device's messages that are dropped for the same reason again and again.
const dropEvery = 10 * time.Minute

// drops tells the log what lanes have dropped.
type drops struct {
	mu   sync.Mutex                  // protects the following fields
	told [2]map[lane.Reason]toldDrop // up and down
	all  [2]uint64                   // how many there were when there was nothing left to tell
}

// known takes note of what earlier processes have dropped.
func (d *drops) known(counters [2]lane.Counters) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir, c := range counters {
		for _, reason := range lane.Reasons() {
			if n := c.Dropped[reason]; n > 0 {
				d.noteLocked(dir, reason, toldDrop{count: n})
			}
		}
	}
}

func (d *drops) noteLocked(dir int, reason lane.Reason, t toldDrop) {
	if d.told[dir] == nil {
		d.told[dir] = make(map[lane.Reason]toldDrop) // few devices ever need it
	}
	d.told[dir][reason] = t
}

type toldDrop struct {
	count uint64
	at    time.Time
}

var directions = [2]string{"up", "down"}

// expected are reasons that belong to normal operation: a device without a session gets no messages while it is away.
var expected = map[lane.Reason]bool{lane.NoSession: true, lane.SessionEnded: true, lane.QoS0Away: true}

// tell logs what has been dropped since it was told last; all of it at the end.
func (d *drops) tell(log *zap.Logger, device string, counters [2]lane.Counters, now time.Time, end bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir, c := range counters {
		total := c.DroppedTotal()
		if total == d.all[dir] {
			continue
		}
		waits := false
		for _, reason := range lane.Reasons() {
			old := d.told[dir][reason]
			n := c.Dropped[reason] - old.count
			if n == 0 || expected[reason] {
				continue
			}
			if !end && !old.at.IsZero() && now.Sub(old.at) < dropEvery {
				waits = true
				continue
			}
			d.noteLocked(dir, reason, toldDrop{count: c.Dropped[reason], at: now})
			log.Warn("messages dropped", zap.String("device", device), zap.String("direction", directions[dir]),
				zap.Stringer("reason", reason), zap.Uint64("count", n), zap.String("remedy", remedies[reason]))
		}
		if !waits {
			d.all[dir] = total
		}
	}
}

// remedies say what can be done.
var remedies = map[lane.Reason]string{
	lane.QueueFull:      "see on_full, max_messages and max_bytes of queue, and limits.memory",
	lane.Expired:        "see queue.max_age; MQTT 5 devices set an expiry themselves",
	lane.TooLarge:       "see limits.max_payload of the cloud, queue.max_bytes, limits.memory, and what the device takes",
	lane.Damaged:        "a file of state_dir was damaged; see the disk, and the damaged file beside it",
	lane.RefusedByCloud: "see what the cloud lets this device publish, and the sizes and topics that it takes",
	lane.TopicLimit:     "see limits.max_topic_bytes and limits.max_topic_levels of the cloud",
}
