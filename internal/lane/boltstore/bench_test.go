package boltstore

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bridged/internal/lane"
)

// written returns how many bytes this process has sent to disks.
func written(b *testing.B) int64 {
	b.Helper()
	io, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(io), "\nwrite_bytes: ")
	n, err := strconv.ParseInt(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkCommit commits messages with a payload of 256 bytes, so many of each of so many devices in a commit.
func BenchmarkCommit(b *testing.B) {
	for _, lanes := range []int{1, 10, 100, 1000} {
		for _, each := range []int{1, 10, 100} {
			if lanes*each > 10000 {
				continue
			}
			for _, direct := range []bool{false, true} {
				b.Run(fmt.Sprintf("lanes=%d/messages=%d/direct=%t", lanes, each, direct), func(b *testing.B) {
					lim := defaults
					if direct {
						lim.direct = 0
					}
					benchCommit(b, lim, lanes, each, 256)
				})
			}
		}
	}
}

// backlog makes batches for lanes that grow.
type backlog struct {
	keys   []lane.Key
	states []lane.State
	size   int
}

func newBacklog(lanes, size int) *backlog {
	g := &backlog{size: size}
	for i := range lanes {
		g.keys = append(g.keys, key(fmt.Sprintf("device-%04d", i)))
		g.states = append(g.states, lane.State{Head: 1, Next: 1, Oldest: epoch})
	}
	return g
}

// grow puts so many messages into each of some lanes.
func (g *backlog) grow(each int, lanes ...int) *lane.Batch {
	b := &lane.Batch{}
	for _, i := range lanes {
		st := &g.states[i]
		c := lane.Change{Key: g.keys[i]}
		for range each {
			r := record(g.keys[i], st.Next, g.size)
			st.Bytes += r.Message.Size()
			st.Next++
			st.Queued++
			st.Accepted++
			c.Put = append(c.Put, r)
		}
		c.State = *st
		b.Changes = append(b.Changes, c)
	}
	return b
}

// shrink takes so many messages off the head of each of some lanes.
func (g *backlog) shrink(each int, lanes ...int) *lane.Batch {
	b := &lane.Batch{}
	for _, i := range lanes {
		st := &g.states[i]
		n := min(each, st.Queued)
		st.Bytes -= st.Bytes / int64(max(st.Queued, 1)) * int64(n)
		st.Head += uint64(n)
		st.Queued -= n
		st.Delivered += uint64(n)
		b.Changes = append(b.Changes, lane.Change{Key: g.keys[i], State: *st})
	}
	return b
}

func (g *backlog) all() []int {
	all := make([]int, len(g.keys))
	for i := range all {
		all[i] = i
	}
	return all
}

func benchCommit(b *testing.B, lim limits, lanes, each, size int) {
	s := opened(b, b.TempDir(), lim)
	g := newBacklog(lanes, size)
	for n := 0; n < 20000; n += lanes * max(each, 10) {
		commit(b, s, g.grow(max(each, 10), g.all()...))
	}
	start, moves := written(b), s.Stats().Moves
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		next := g.grow(each, g.all()...)
		b.StartTimer()
		commit(b, s, next)
	}
	n := float64(b.N * lanes * each)
	b.ReportMetric(float64(written(b)-start)/n, "B-written/msg")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/msg")
	b.ReportMetric(float64(written(b)-start)/float64(b.N), "B-written/commit")
	b.ReportMetric(float64(s.Stats().Moves-moves), "moves")
}

// BenchmarkDrain commits what a cloud acknowledged, 50 messages of each device at a time, while it reads the next ones.
func BenchmarkDrain(b *testing.B) {
	for _, lanes := range []int{1, 100} {
		b.Run(fmt.Sprintf("lanes=%d", lanes), func(b *testing.B) {
			s := opened(b, b.TempDir(), defaults)
			g := newBacklog(lanes, 256)
			for range 100000 / lanes / 10 {
				commit(b, s, g.grow(10, g.all()...))
			}
			start, n := written(b), 0
			b.ResetTimer()
			for b.Loop() && g.states[0].Queued > 0 {
				for i, k := range g.keys {
					st := &g.states[i]
					records, err := s.Read(k, st.Head, st.Next, 50, 1<<20)
					if err != nil {
						b.Fatal(err)
					}
					n += len(records)
				}
				commit(b, s, g.shrink(50, g.all()...))
			}
			b.ReportMetric(float64(written(b)-start)/float64(n), "B-written/msg")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/msg")
		})
	}
}

// BenchmarkRead reads pieces of a lane that shares the file with others.
func BenchmarkRead(b *testing.B) {
	for _, place := range []string{"recent", "messages"} {
		b.Run(place, func(b *testing.B) {
			s := opened(b, b.TempDir(), defaults)
			g := newBacklog(20, 256)
			for range 100 {
				commit(b, s, g.grow(1, g.all()...))
			}
			if place == "messages" {
				if err := s.compact(); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			for b.Loop() {
				if got, err := s.Read(g.keys[7], 20, 101, 50, 1<<20); len(got) != 50 || err != nil {
					b.Fatal(len(got), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/msg")
		})
	}
}

// BenchmarkOpen starts with a backlog of 1 GiB, once with the file in memory and once without.
func BenchmarkOpen(b *testing.B) {
	const lanes, size = 1000, 700
	s := opened(b, b.TempDir(), defaults)
	closed(b, s)
	build, err := newBuilder(s.path)
	if err != nil {
		b.Fatal(err)
	}
	g := newBacklog(lanes, size)
	put := func(bucket int, k, v []byte) {
		if err := build.put(bucket, k, v); err != nil {
			b.Fatal(err)
		}
	}
	for i, k := range g.keys {
		c := g.grow(1<<30/lanes/(size+60), i).Changes[0]
		for n := range c.Put {
			p := place{lane: uint32(i + 1), seq: c.Put[n].Seq}
			put(messageBucket, p.key(), encode(p.lane, &c.Put[n])[0])
		}
		r := row{id: uint32(i + 1), change: 1, state: c.State}
		put(laneBucket, laneKey(k), r.encode(laneKey(k)))
		put(metaBucket, nameKey(r.id), nameRow(r.id, k))
	}
	h, _, err := build.finish()
	if err != nil {
		b.Fatal(err)
	}
	if err := h.close(); err != nil {
		b.Fatal(err)
	}
	for _, cold := range []bool{false, true} {
		b.Run(fmt.Sprintf("cold=%t", cold), func(b *testing.B) {
			for b.Loop() {
				if cold {
					b.StopTimer()
					forget(b, s.path)
					b.StartTimer()
				}
				s, err := Open(s.dir, Options{})
				if err != nil {
					b.Fatal(err)
				}
				c, err := s.Load()
				if err != nil || len(c.Lanes) != lanes {
					b.Fatal(len(c.Lanes), err)
				}
				b.ReportMetric(float64(s.Stats().Size), "file-bytes")
				b.StopTimer()
				closed(b, s)
				b.StartTimer()
			}
		})
	}
}

// forget has the kernel drop a file from memory.
func forget(b *testing.B, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
}
