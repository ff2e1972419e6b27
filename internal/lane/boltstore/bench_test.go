package boltstore

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

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
