package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"bridged/internal/bridge"
	"bridged/internal/config"
)

// BenchmarkRelay is a message's whole way through bridged, in this process: from the device to the cloud's
// acknowledgement at the device, or the other way round. What the device and the cloud take is in it, but they allocate
// next to nothing.
func BenchmarkRelay(b *testing.B) {
	for _, scheme := range []string{"ws", "wss"} {
		b.Run("up/"+scheme, func(b *testing.B) { relayMany(b, scheme, false) })
		b.Run("down/"+scheme, func(b *testing.B) { relayMany(b, scheme, true) })
	}
}

func relayMany(b *testing.B, scheme string, down bool) {
	c := &testcase{name: "relay", scheme: scheme, devices: 1, payload: 200, window: 16, down: down, keepalive: time.Minute}
	e := env{dir: b.TempDir(), scheme: scheme, devices: 1, keepalive: c.keepalive}
	e.ca = filepath.Join(e.dir, "ca.pem")
	cert, err := certificate(e.ca)
	if err != nil {
		b.Fatal(err)
	}
	r := newRun(c)
	if r.cloud, err = newCloud(r, scheme, cert); err != nil {
		b.Fatal(err)
	}
	defer r.end()
	e.cloud = r.cloud.listener.Addr().String()
	if e.listen, err = freeAddress(); err != nil {
		b.Fatal(err)
	}
	r.addr = e.listen
	stop := runBridge(b, e)
	defer stop()
	if err := r.connect(b.Context(), new(figures), &process{pid: os.Getpid()}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	want := r.received.Load() + int64(b.N)
	r.sending.Store(true)
	if down {
		err = r.cloud.end(0).open(r.down[0], c.window)
	} else {
		err = r.devices[0].open(r.up[0], c.window)
	}
	for err == nil && r.received.Load() < want {
		err = wait(b.Context(), 200*time.Microsecond)
	}
	b.StopTimer()
	r.sending.Store(false)
	if err != nil {
		b.Fatal(err)
	}
	if err := r.failed(); err != nil {
		b.Fatal(err)
	}
}

// runBridge runs bridged in this process.
func runBridge(b *testing.B, e env) (stop func()) {
	b.Helper()
	file, err := e.configure()
	if err != nil {
		b.Fatal(err)
	}
	cfg, err := config.Load(file, config.Env{})
	if err != nil {
		b.Fatal(err)
	}
	br, err := bridge.New(cfg, zap.NewNop(), bridge.Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- br.Run(ctx) }()
	<-br.Started()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}
