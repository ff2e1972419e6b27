package boltstore

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// A disk that is reset fails to read for a moment. That is not damage: nothing is set aside, and nothing lost.
func TestReadsFailForAMoment(t *testing.T) {
	const batches = 60
	for _, inject := range []string{"when=1..2", "when=1..12", "when=1..30", "when=7..40", "when=9+29"} {
		t.Run(inject, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			s, sc := opened(t, dir, small), scriptOf(3)
			for range batches {
				if err := s.Commit(sc.next()); err != nil {
					t.Fatal(err)
				}
			}
			closed(t, s)
			out := filepath.Join(tempDir(t), "trace")
			cmd := childCommand(t, "script", []string{
				"strace", "-f", "-o", out, "-P", filepath.Join(dir, fileName), "-e", "trace=pread64", "-e", "signal=none",
				"-e", "inject=pread64:error=EIO:" + inject,
			}, dir, "3", strconv.Itoa(batches), strconv.Itoa(2*batches))
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			if trace, err := os.ReadFile(out); err != nil || !strings.Contains(string(trace), "(INJECTED)") {
				t.Errorf("nothing failed: %v", err)
			}
			for range batches {
				sc.next()
			}
			if d := sc.m.differs(opened(t, dir, small)); d != "" {
				t.Error(d)
			}
			if set := aside(t, dir); len(set) > 0 {
				t.Error("the file was taken for damaged")
			}
		})
	}
}

// What a file of which nothing is left had nobody knows. The log does not say that nothing is lost.
func TestNothingLeftIsLogged(t *testing.T) {
	for _, size := range []int64{0, 1, 100, 2*pageSize + 1} {
		t.Run(strconv.FormatInt(size, 10), func(t *testing.T) {
			dir := tempDir(t)
			s, m := opened(t, dir, small), newModel()
			m.commit(t, s, m.fill(key("d"), 30, 100))
			closed(t, s)
			if err := os.Truncate(s.path, size); err != nil {
				t.Fatal(err)
			}
			log, logs := observed()
			s, err := open(dir, Options{Log: log}, small)
			if err != nil {
				t.Fatal(err)
			}
			closed(t, s)
			logged := logs.FilterLevelExact(zap.ErrorLevel).All()
			if len(logged) == 0 {
				t.Fatal("no error was logged")
			}
			lost, ok := logged[len(logged)-1].ContextMap()["lost"].(string)
			if !ok || !strings.HasPrefix(lost, "unknown") {
				t.Errorf("lost: %v", logged[len(logged)-1].ContextMap())
			}
		})
	}
}
