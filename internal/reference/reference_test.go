package reference

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const keys = "../config/keys.go"

func source(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What is written down is what the source says now.
func TestCurrent(t *testing.T) {
	want, err := Configuration(source(t))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error(`docs/configuration.md is not current: run "make docs"`)
	}
}

// Every key of the source is there, as a row of four cells with a meaning.
func TestRows(t *testing.T) {
	src := source(t)
	doc, err := Configuration(src)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(doc)) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		rows++
		cells := strings.Split(strings.ReplaceAll(strings.TrimSpace(line), `\|`, ""), "|")
		if len(cells) != 6 || strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[4]) == "" {
			t.Errorf("%q", line)
		}
	}
	if want := strings.Count(string(src), "`yaml:\""); rows != want {
		t.Errorf("%d rows, %d keys", rows, want)
	}
	for _, want := range []string{
		"| `max_packet_size` | size, `1KiB` to `256MiB` | `272KiB` | The largest MQTT packet",
		"| `on_full` | `block`, `drop_oldest`, `drop_newest` | `block` | ",
		"| `product_id` | text |  | The product's id, if it is not the cloud's. *Only tencent.* |",
		"| `listen` | list of sections |  | Where devices connect. ",
		"| `keepalive_max` | duration, `1s` to `65535s` |  | The range of keepalives",
	} {
		if !strings.Contains(string(doc), "\n"+want) {
			t.Errorf("no %q", want)
		}
	}
}

// A section that the document has no place for is not forgotten.
func TestNewSection(t *testing.T) {
	_, err := Configuration(append(source(t), "\ntype newKeys struct {}\n"...))
	if err == nil || !strings.Contains(err.Error(), "newKeys") {
		t.Error(err)
	}
	_, err = Configuration([]byte("package config\n"))
	if err == nil || !strings.Contains(err.Error(), "fileKeys") {
		t.Error(err)
	}
}
