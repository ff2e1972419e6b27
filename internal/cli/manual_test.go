package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

// The manual page has every command with its flags, and nothing in it is taken for a request.
func TestManual(t *testing.T) {
	var b bytes.Buffer
	if err := WriteManual(&b, "1.2.3", time.Date(2026, 2, 3, 23, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if want := `.TH BRIDGED 1 "2026\-02\-03" "bridged 1.2.3"`; !strings.HasPrefix(page, want+"\n") {
		t.Errorf("begins %.80q", page)
	}
	for _, c := range newRoot(&options{}).Commands() {
		if !strings.Contains(page, `.SS "`+escape(c.Name())) {
			t.Errorf("no %s", c.Name())
		}
	}
	for _, want := range []string{".TP\n.B \\-\\-reveal\n", `.SH "EXIT STATUS"`, `(default /etc/bridged/config.yaml)`} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
	known := []string{".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".nf", ".fi", ".RS", ".RE"}
	for line := range strings.Lines(page) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !slices.Contains(known, word) {
			t.Errorf("a request: %q", line)
		}
	}
}
