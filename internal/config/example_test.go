package config

import (
	"testing"
)

func TestExampleLoads(t *testing.T) {
	c, err := Load("../../config.example.yaml", envOf(exampleEnv))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings {
		t.Errorf("warning: %s", w)
	}
	if len(c.Devices) != 3 || len(c.PassThrough) != 1 || len(c.Clouds) != 4 {
		t.Errorf("%d devices, %d entries for others, %d clouds", len(c.Devices), len(c.PassThrough), len(c.Clouds))
	}
}
