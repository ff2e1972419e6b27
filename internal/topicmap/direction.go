package topicmap

import "fmt"

// Direction says which way a rule applies. The zero value is not valid.
type Direction byte

const (
	// Up is from the device to the cloud.
	Up Direction = 1 << iota
	// Down is from the cloud to the device.
	Down
	// Both is Up and Down.
	Both = Up | Down
)

// String returns the word for the configuration: up, down or both.
func (d Direction) String() string {
	switch d {
	case Up:
		return "up"
	case Down:
		return "down"
	case Both:
		return "both"
	}
	return fmt.Sprintf("Direction(%d)", byte(d))
}

// UnmarshalText reads what String writes.
func (d *Direction) UnmarshalText(text []byte) error {
	for _, known := range []Direction{Up, Down, Both} {
		if string(text) == known.String() {
			*d = known
			return nil
		}
	}
	return fmt.Errorf("unknown direction %q; write up, down or both", text)
}
