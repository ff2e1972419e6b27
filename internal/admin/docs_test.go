package admin

import (
	"os"
	"regexp"
	"testing"
)

// The documentation lists every metric, and none that there is not.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `(bridged_[a-z_]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = true
	}
	name := regexp.MustCompile(`fqName: "([a-z_]+)"`)
	for _, d := range descs {
		m := name.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatal(d)
		}
		if !documented[m[1]] {
			t.Errorf("%s is not documented", m[1])
		}
		delete(documented, m[1])
	}
	for n := range documented {
		t.Errorf("%s does not exist", n)
	}
}
