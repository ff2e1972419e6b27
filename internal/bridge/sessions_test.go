package bridge

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"bridged/internal/upstream"
)

func TestSessionsSurvive(t *testing.T) {
	dir := t.TempDir()
	open := func() (*sessions, map[string]upstream.Kept) {
		t.Helper()
		s, kept, err := openSessions(dir, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		return s, kept
	}
	end := func(s *sessions) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.run(ctx)
	}
	s, kept := open()
	if len(kept) != 0 {
		t.Errorf("kept %v", kept)
	}
	s.save("dev", upstream.Kept{"a/#": 1, "b": 2})
	s.save("odd/name", upstream.Kept{})
	s.save("clean", upstream.Kept{"x": 0})
	end(s)

	s, kept = open()
	if len(kept) != 3 || kept["dev"]["a/#"] != 1 || kept["dev"]["b"] != 2 || kept["odd/name"] == nil {
		t.Errorf("kept %v", kept)
	}
	s.save("clean", nil)
	s.save("never", nil)
	end(s)
	damaged := filepath.Join(dir, "sessions", "dev.json")
	if err := os.WriteFile(damaged, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}

	_, kept = open()
	if len(kept) != 1 || kept["odd/name"] == nil {
		t.Errorf("kept %v", kept)
	}
	if _, err := os.Stat(damaged + ".damaged"); err != nil {
		t.Errorf("the damaged file is gone: %v", err)
	}
}
