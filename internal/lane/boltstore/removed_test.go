package boltstore

import (
	"os"
	"path/filepath"
	"testing"
)

// Somebody removes the file, or puts another one in its place, while it is in use. Nothing is committed to what nobody
// will find.
func TestRemovedInUse(t *testing.T) {
	for _, c := range []struct {
		name   string
		remove func(s *Store, old string) error
	}{
		{"removed", func(s *Store, _ string) error { return os.Remove(s.path) }},
		{"replaced", func(s *Store, old string) error { return os.Rename(old, s.path) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tempDir(t)
			s, m := opened(t, dir, small), newModel()
			m.commit(t, s, m.fill(key("d"), 3, 100))
			data, err := os.ReadFile(s.path)
			if err != nil {
				t.Fatal(err)
			}
			old := filepath.Join(tempDir(t), "old")
			if err := os.WriteFile(old, data, 0o600); err != nil {
				t.Fatal(err)
			}
			m.commit(t, s, m.fill(key("d"), 3, 100))
			if err := c.remove(s, old); err != nil {
				t.Fatal(err)
			}
			b := m.fill(key("d"), 3, 100)
			if err := s.Commit(b); err == nil {
				t.Error("committed to a file that is gone")
			}
			if s.Repairs() == 0 {
				t.Error("lanes do not learn of it")
			}
			if err := s.Commit(b); err != nil {
				t.Fatal(err)
			}
			closed(t, s)
			s = opened(t, dir, small)
			records, err := s.Read(key("d"), b.Changes[0].Put[0].Seq, 1<<60, 10, 1<<20)
			if err != nil || len(records) != 3 {
				t.Errorf("%d messages are there, %v", len(records), err)
			}
		})
	}
	t.Run("directory", func(t *testing.T) {
		dir := filepath.Join(tempDir(t), "state")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s, m := opened(t, dir, small), newModel()
		m.commit(t, s, m.fill(key("d"), 3, 100))
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		b := m.fill(key("d"), 3, 100)
		commit := func() {
			t.Helper()
			for range 3 {
				if err := s.Commit(b); err == nil {
					t.Error("committed to a directory that is gone")
				}
			}
		}
		commit()
		if err := os.Mkdir(dir, 0o700); err != nil { // which is another one: nobody has locked it
			t.Fatal(err)
		}
		commit()
	})
}
