package cli

import (
	"bytes"
	"strings"
	"testing"

	"bridged/internal/doctor"
)

func TestBar(t *testing.T) {
	_, tty := openTerminal(t)
	if b := newBar(tty, 4); b.w == nil {
		t.Error("nothing is shown on a terminal")
	}
	var out bytes.Buffer
	b := newBar(&out, 4)
	b.done(&doctor.Report{})
	b.clear()
	if out.Len() > 0 {
		t.Errorf("shows %q where there is no terminal", out.String())
	}
	b = &bar{w: &out, all: 4}
	b.show()
	b.done(&doctor.Report{})
	b.done(&doctor.Report{Failure: new(doctor.Failure)})
	b.clear()
	want := "\r[" + strings.Repeat(".", 30) + "] 0 of 4" +
		"\r[" + strings.Repeat("#", 7) + strings.Repeat(".", 23) + "] 1 of 4" +
		"\r[" + strings.Repeat("#", 15) + strings.Repeat(".", 15) + "] 2 of 4, 1 failed" +
		"\r" + strings.Repeat(" ", 49) + "\r"
	if got := out.String(); got != want {
		t.Errorf("%q\nwant\n%q", got, want)
	}
}
