package lane

import (
	"time"

	"bridged/internal/mqtt"
)

// Store keeps what lanes must not lose beyond the end of the process. It is used by one Spool, which calls Load first,
// then Commit and Maintain from one goroutine and Read from another.
//
// A store that finds itself damaged mends what it can: it sets the damaged file aside, and what is missing then is
// missing from Read, or was counted as dropped with the reason Damaged by the states that Load returns. What it then
// has of the lanes' states may be old: lanes write theirs again when Repairs has changed.
type Store interface {
	// Load returns everything but the messages.
	Load() (Contents, error)
	// Commit applies a batch in whole or, if it returns an error, not at all as far as the caller may rely on it. When it
	// returns nil the batch survives a power cut. The same changes may be committed again after an error.
	Commit(b *Batch) error
	// Read returns messages of a lane in order, from the sequence number from up to before the number before. It stops
	// after count messages, or earlier as soon as they have bytes (as Message.Size counts) or more, but never before the
	// first. It returns fewer only if there are no more. A record that cannot be read is left out.
	Read(k Key, from, before uint64, count int, bytes int64) ([]Record, error)
	// Repairs is how often the store has mended itself since Load. It may be called at any time.
	Repairs() uint64
	// Maintain is called when nothing has been written for a while, to give space back.
	Maintain() error
}

// Direction is up, from the device to the cloud, or down.
type Direction byte

const (
	// Up is from the device to the cloud.
	Up Direction = iota
	// Down is from the cloud to the device.
	Down
)

// String is "up" or "down".
func (d Direction) String() string {
	if d == Down {
		return "down"
	}
	return "up"
}

// Key names a lane in the store.
type Key struct {
	Device    string
	Direction Direction
}

// Contents is what a store holds, without the messages.
type Contents struct {
	Lanes []Saved
	// Notes are the values of Batch.Notes by their names.
	Notes map[string][]byte
}

// Saved is a stored lane.
type Saved struct {
	Key   Key
	State State
	Marks []mqtt.Mark
}

// State is what a store keeps of a lane beside its messages, as of a commit.
type State struct {
	// Head is the sequence number of the oldest stored message, or Next if there is none. All stored messages are before
	// Next.
	Head, Next uint64
	// Sent is the highest sequence number that has been delivered, 0 if none: up to it deliveries are repetitions.
	Sent uint64
	// Oldest is when the oldest stored message was accepted, zero if there is none.
	Oldest time.Time
	// Queued and Bytes are the number of stored messages, and their size as Message.Size counts it.
	Queued int
	Bytes  int64
	// The ledger: Accepted = Delivered + Queued + the sum of Dropped. Messages that are not stored are not in it.
	Accepted, Delivered uint64
	Dropped             [reasons]uint64 // by Reason
}

// Record is a stored message.
type Record struct {
	Seq     uint64
	At      time.Time // when it was accepted
	Message mqtt.Message
}

// Batch is what one commit writes.
type Batch struct {
	Changes []Change // at most one for each lane
	Notes   []Note
}

// Change is a lane's part of a batch. What it deletes may not be there, and what it puts may be there already.
type Change struct {
	Key    Key
	State  State
	Gone   []uint64 // delete these messages; those before State.Head are to be deleted as well
	Put    []Record // in order
	Unmark []uint16 // delete these marks, or all of them if Fresh is set, before adding Mark
	Fresh  bool
	Mark   []mqtt.Mark
}

// Note is a named value that somebody else keeps in the store. A nil value deletes it.
type Note struct {
	Name  string
	Value []byte
}
