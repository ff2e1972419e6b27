package main

import (
	"bytes"
	"os"
	"testing"

	"go.uber.org/goleak"

	"bridged/internal/failure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestIsCurrent(t *testing.T) {
	got, err := os.ReadFile("../" + target)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, page()) {
		t.Error("docs/troubleshooting.md is not what the table says: go generate ./internal/failure")
	}
}

func TestEveryKind(t *testing.T) {
	text := page()
	for _, k := range failure.Kinds() {
		if n := bytes.Count(text, []byte("\n**`"+string(k)+"`**: ")); n != 1 {
			t.Errorf("%s is there %d times", k, n)
		}
	}
	for _, c := range failure.Classes() {
		if classes[c] == "" {
			t.Errorf("class %s is not described", c)
		}
	}
}
