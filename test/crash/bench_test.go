package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"bridged/internal/cloudsim"
	"bridged/internal/lane"
	"bridged/internal/lane/boltstore"
	"bridged/internal/mqtt"
)

// The benchmarks measure what docs/durability.md has under "What it costs". "make bench-durability" runs them.

const (
	// benchFor is how long messages are counted.
	benchFor     = 5 * time.Second
	benchPayload = 256
)

func benchCloud(b *testing.B, arrived *atomic.Int64) *cloudsim.Cloud {
	b.Helper()
	c, err := cloudsim.New(cloudsim.Options{
		Kind: cloudsim.Generic, Addr: freeAddr(b), NoWSS: true, KeepReceived: -1,
		OnMessage: func(cloudsim.Received) { arrived.Add(1) },
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

// BenchmarkStoring has devices publish messages of QoS 1 as fast as they are acknowledged, with so many
// unacknowledged at a time: with "spill" while the cloud is away, with "always" while it is well.
func BenchmarkStoring(b *testing.B) {
	for _, durability := range durabilities {
		for _, devices := range []int{1, 10, 100} {
			for _, window := range []int{1, 20} {
				b.Run(fmt.Sprintf("%s/devices=%d/window=%d", durability, devices, window), func(b *testing.B) {
					for b.Loop() {
						benchStoring(b, durability, devices, window)
					}
				})
			}
		}
	}
}

func benchStoring(b *testing.B, durability string, devices, window int) {
	var arrived, acked atomic.Int64
	c := benchCloud(b, &arrived)
	if durability == "spill" {
		c.Down()
	}
	names := names(devices)
	s := newSite(b, settings{
		cloud: c.WSURL(), program: plainProgram(b), devices: names,
		queue: "{max_messages: 10000000, max_bytes: 1GiB, durability: " + durability + "}",
		more:  "limits: {disk: 16GiB}",
	})
	s.start()
	s.ready()
	ctx, cancel := context.WithCancel(b.Context())
	run, ctx := errgroup.WithContext(ctx)
	for _, name := range names {
		run.Go(func() error { return flood(ctx, s.addr, name, window, &acked) })
	}
	enough := int64(5 * devices)
	until(b, "all devices publish", func() bool { return acked.Load() >= enough || ctx.Err() != nil }, nil)
	bytes, from, start := s.written(), acked.Load(), time.Now()
	wait(ctx, benchFor)
	n, took := float64(acked.Load()-from), time.Since(start)
	b.ReportMetric(n/took.Seconds(), "messages/s")
	b.ReportMetric(float64(s.written()-bytes)/n, "B-written/message")
	b.ReportMetric(0, "ns/op")
	cancel()
	if err := run.Wait(); err != nil {
		b.Error(err)
	}
	s.kill()
}

// flood publishes until ctx ends.
func flood(ctx context.Context, addr, name string, window int, acked *atomic.Int64) error {
	l, err := dial(ctx, addr, name, false)
	if err != nil {
		return err
	}
	defer l.close()
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos = "up/"+name, make([]byte, benchPayload), 1
	for free := window; ; {
		for ; free > 0; free-- {
			p.MessageID = p.MessageID%1000 + 1
			if err := l.send(p); err != nil {
				return err
			}
		}
		select {
		case _, ok := <-l.in:
			if !ok {
				return errBroken
			}
			acked.Add(1)
			free++
		case <-ctx.Done():
			return nil
		}
	}
}

// BenchmarkSync tells about the disk: a write of one page at the end of a file, and a sync.
func BenchmarkSync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	page := make([]byte, os.Getpagesize())
	const syncs = 500
	for b.Loop() {
		start := time.Now()
		for range syncs {
			if _, err := f.Write(page); err != nil {
				b.Fatal(err)
			}
			if err := syscall.Fdatasync(int(f.Fd())); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(time.Since(start).Microseconds())/syncs, "µs/sync")
		b.ReportMetric(0, "ns/op")
	}
}

const backlogBytes = 1 << 30

// BenchmarkStart starts bridged with a backlog of 1 GiB, of which nothing is in the page cache, or all of it.
func BenchmarkStart(b *testing.B) {
	var arrived atomic.Int64
	c := benchCloud(b, &arrived)
	devices := names(100)
	s := newSite(b, settings{
		cloud: c.WSURL(), program: plainProgram(b), devices: devices,
		queue: "{max_messages: 10000000, max_bytes: 1GiB}", more: "limits: {disk: 16GiB}",
	})
	if err := os.Mkdir(s.state, 0o700); err != nil {
		b.Fatal(err)
	}
	messages := storeBacklog(b, s.state, devices)
	info, err := os.Stat(filepath.Join(s.state, "spool.db"))
	if err != nil {
		b.Fatal(err)
	}
	for _, cached := range []bool{false, true} {
		b.Run(fmt.Sprintf("cached=%t", cached), func(b *testing.B) {
			var ready, first time.Duration
			rounds := 0
			for b.Loop() {
				if !cached {
					uncache(b, filepath.Join(s.state, "spool.db"))
				}
				had := arrived.Load()
				start := time.Now()
				s.start()
				s.ready()
				ready += time.Since(start)
				until(b, "a message arrives", func() bool { return arrived.Load() > had }, nil)
				first += time.Since(start)
				rounds++
				b.Logf("memory then: %s", s.memory())
				s.kill()
			}
			b.ReportMetric(float64(messages), "messages")
			b.ReportMetric(float64(info.Size()>>20), "MiB-of-file")
			b.ReportMetric(ready.Seconds()/float64(rounds), "s-to-ready")
			b.ReportMetric(first.Seconds()/float64(rounds), "s-to-message")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// storeBacklog makes a store with messages of some devices.
func storeBacklog(b *testing.B, dir string, devices []string) (messages int) {
	b.Helper()
	store, err := boltstore.Open(dir, boltstore.Options{Log: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	states := make([]lane.State, len(devices))
	now := time.Now().Round(0)
	for i := range states {
		states[i] = lane.State{Head: 1, Next: 1, Oldest: now}
	}
	const each, atOnce = 250, 20
	for size, at := int64(0), 0; size < backlogBytes; at += atOnce {
		batch := &lane.Batch{}
		for i := range atOnce {
			i = (at + i) % len(devices)
			st := &states[i]
			change := lane.Change{Key: lane.Key{Device: devices[i], Direction: lane.Up}}
			for range each {
				m := mqtt.Message{Topic: "up/" + devices[i], Payload: make([]byte, benchPayload), QoS: 1}
				change.Put = append(change.Put, lane.Record{Seq: st.Next, At: now, Message: m})
				st.Next++
				st.Queued++
				st.Accepted++
				st.Bytes += m.Size()
				size += m.Size()
				messages++
			}
			change.State = *st
			batch.Changes = append(batch.Changes, change)
		}
		if err := store.Commit(batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
	return messages
}

// uncache has the kernel forget what it has of a file in memory.
func uncache(b *testing.B, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const dontNeed = 4 // POSIX_FADV_DONTNEED
	if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
		b.Fatal(errno)
	}
}
