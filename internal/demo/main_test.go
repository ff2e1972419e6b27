package demo

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long something that must happen may take.
const patience = 30 * time.Second

// screen is what a person would see. It may be written to and read by any goroutine.
type screen struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{} // closed with the next write
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more != nil {
		close(s.more)
		s.more = nil
	}
	return s.buf.Write(p)
}

// next returns what is there, and a channel that tells when there is more.
func (s *screen) next() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more == nil {
		s.more = make(chan struct{})
	}
	return s.buf.String(), s.more
}

func (s *screen) String() string {
	text, _ := s.next()
	return text
}

// await waits until a pattern can be seen so many times, and returns the last match with its groups.
func (s *screen) await(tb testing.TB, times int, pattern string) []string {
	tb.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	timeout := time.After(patience)
	for {
		text, more := s.next()
		if found := re.FindAllStringSubmatch(text, -1); len(found) >= times {
			return found[len(found)-1]
		}
		select {
		case <-more:
		case <-timeout:
			tb.Fatalf("%q is not there %d times:\n%s", pattern, times, text)
		}
	}
}

// holds checks that a text has a match for each pattern.
func holds(tb testing.TB, text string, patterns ...string) {
	tb.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(text) {
			tb.Errorf("no %q in:\n%s", p, text)
		}
	}
}

// lacks checks that a text has no match for a pattern.
func lacks(tb testing.TB, text string, patterns ...string) {
	tb.Helper()
	for _, p := range patterns {
		if found := regexp.MustCompile("(?m)" + p).FindString(text); found != "" {
			tb.Errorf("%q is in:\n%s", found, text)
		}
	}
}

// collect returns a function that gathers lines, and one that joins them.
func collect() (add func(string), all func() string) {
	var lines []string
	return func(s string) { lines = append(lines, s) }, func() string { return strings.Join(lines, "\n") }
}

// numbered is a payload that carries its number.
func numbered(n int) []byte { return fmt.Appendf(nil, `{"n":%d}`, n) }
