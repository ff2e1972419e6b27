package bridge

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A device that is configured and away takes little memory.
func TestMemoryAtRest(t *testing.T) {
	const n, bound = 500, 5000
	var yaml strings.Builder
	yaml.WriteString("clouds: {lab: {provider: generic, url: 'wss://127.0.0.1:1/mqtt'}}\n" +
		"defaults: {login: {username: u, password: p}}\ndevices:\n")
	for i := range n {
		fmt.Fprintf(&yaml, "  - {name: dev-%d}\n", i)
	}
	heap := func() int {
		runtime.GC()
		runtime.GC() // what the first one has left in pools
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	text := yaml.String()
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard),
		zap.InfoLevel))
	before := heap()
	cfg := load(t, t.TempDir(), text)
	b, err := New(cfg, log, Options{})
	if err != nil {
		t.Fatal(err)
	}
	per := (heap() - before) / n
	t.Logf("%d bytes for each device", per)
	if per > bound {
		t.Errorf("%d bytes for each device, more than %d", per, bound)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	if err := b.Run(ended); err != nil {
		t.Error(err)
	}
	runtime.KeepAlive(text)
}
