package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"bridged/internal/broker"
	"bridged/internal/mqtt"
	"bridged/internal/upstream"
)

// Sessions that outlive their connections are kept as notes, one for each device, so that they outlive the process too.
// A note is written when a subscription changes, and, if the session's time is limited, when the device leaves and when
// it returns; never for a message.

// notes keeps named values; see lane.Spool.
type notes interface {
	// Note replaces a value, or deletes it if it is nil, and returns at once. done is called when that is on disk. If it
	// returns an error nothing happens.
	Note(name string, value []byte, done func()) error
}

// sessionPrefix begins the names of sessions' notes. The device's name follows.
const sessionPrefix = "session/"

// saver returns what a worker saves its session with.
func saver(n notes, device string, log *zap.Logger) func(*upstream.Kept, func()) {
	return func(k *upstream.Kept, done func()) {
		var value []byte
		if k != nil {
			value = encodeSession(k)
		}
		if err := n.Note(sessionPrefix+device, value, done); err != nil {
			log.Error("a session cannot be saved: after a restart its device has to subscribe again",
				zap.String("device", device), zap.NamedError("err", err))
		}
	}
}

// keptSessions finds the sessions that an earlier process left, by device. A damaged one is left as it is: its device
// subscribes again, which replaces it.
func keptSessions(notes map[string][]byte, log *zap.Logger) map[string]*upstream.Kept {
	kept := make(map[string]*upstream.Kept)
	for name, value := range notes {
		device, ok := strings.CutPrefix(name, sessionPrefix)
		if !ok {
			continue
		}
		k, err := decodeSession(value)
		if err != nil {
			log.Error("the session of a device cannot be read: the device has to subscribe again",
				zap.String("device", device), zap.NamedError("err", err))
			continue
		}
		kept[device] = k
	}
	return kept
}

// sessionRecord is a note's value, as JSON.
type sessionRecord struct {
	Version int             `json:"version"`
	Filters map[string]byte `json:"filters"` // with their QoS
	Expiry  uint32          `json:"expiry"`
	Left    time.Time       `json:"left,omitzero"`
}

const sessionVersion = 1

func encodeSession(k *upstream.Kept) []byte {
	r := sessionRecord{Version: sessionVersion, Filters: k.Filters, Expiry: k.Expiry, Left: k.Left.UTC()}
	if r.Filters == nil {
		r.Filters = map[string]byte{}
	}
	var value bytes.Buffer
	e := json.NewEncoder(&value)
	e.SetEscapeHTML(false) // which makes some characters six times as long
	if err := e.Encode(r); err != nil {
		panic(err) // only for types and times that it cannot have
	}
	return value.Bytes()
}

func decodeSession(value []byte) (*upstream.Kept, error) {
	var r sessionRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	if r.Version != sessionVersion {
		return nil, fmt.Errorf("version %d is not known", r.Version)
	}
	if r.Filters == nil {
		return nil, errors.New("it has no filters")
	}
	for filter, qos := range r.Filters {
		if !mqtt.ValidFilter(filter) || qos > 2 {
			return nil, fmt.Errorf("filter %q, QoS %d", filter, qos)
		}
	}
	left := r.Left.UTC()
	if year := left.Year(); year < 0 || year > 9999 { // the time zone made it so; it could not be encoded again
		return nil, fmt.Errorf("left %s", left)
	}
	return &upstream.Kept{Filters: r.Filters, Expiry: r.Expiry, Left: left}, nil
}

// remaining is how long a session is kept further. It ends too late rather than early: if the clock is wrong, or the
// device was connected when the process ended, its whole time begins again.
func remaining(k *upstream.Kept, now time.Time) time.Duration {
	if k.Expiry == mqtt.Forever {
		return math.MaxInt64
	}
	whole := time.Duration(k.Expiry) * time.Second
	if k.Left.Year() < sane || now.Before(k.Left) {
		return whole
	}
	return whole - now.Sub(k.Left)
}

// sane is a year before which a clock cannot have been set, as on a gateway without a battery for it.
const sane = 2020

// localSession is a kept session as the broker needs it, nil if the device has none.
func localSession(k *upstream.Kept, now time.Time) *broker.Kept {
	if k == nil || k.Expiry == 0 { // or none of its own
		return nil
	}
	return &broker.Kept{
		Filters:   slices.Sorted(maps.Keys(k.Filters)),
		Endless:   k.Expiry == mqtt.Forever,
		Remaining: remaining(k, now),
	}
}
