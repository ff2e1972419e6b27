package lane

import (
	"errors"
	"fmt"
	"maps"
)

type note struct {
	value []byte
	done  []func()
}

// MaxNote is how many bytes a note may have.
const MaxNote = 1 << 20

// ErrNoteSize means that a note is larger than MaxNote.
var ErrNoteSize = errors.New("too large to be stored")

// Notes returns all notes.
func (s *Spool) Notes() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.held)
}

// Note stores a named value, or deletes it if it is nil, and calls done, which may be nil, once that is on disk. It
// does not wait. The latest value of a name counts. If it returns an error nothing happens.
func (s *Spool) Note(name string, value []byte, done func()) error {
	if len(value) > MaxNote {
		return fmt.Errorf("%s: %d bytes are %w", name, len(value), ErrNoteSize)
	}
	s.mu.Lock()
	n := s.notes[name]
	if n == nil {
		n = new(note)
		s.notes[name] = n
	}
	n.value = value
	if value == nil {
		delete(s.held, name)
	} else {
		s.held[name] = value
	}
	if done != nil {
		n.done = append(n.done, done)
	}
	s.mu.Unlock()
	wake(s.toWrite)
	return nil
}
