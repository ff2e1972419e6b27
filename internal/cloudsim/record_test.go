package cloudsim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestRing(t *testing.T) {
	r := ring[int]{limit: 3}
	for i, want := range [][]int{{0}, {0, 1}, {0, 1, 2}, {1, 2, 3}, {2, 3, 4}, {3, 4, 5}, {4, 5, 6}} {
		if kept := r.add(i); kept != (i < 3) {
			t.Errorf("add %d: %t", i, kept)
		}
		if got := r.all(); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	r.clear()
	r.add(7)
	if got := r.all(); !slices.Equal(got, []int{7}) {
		t.Errorf("after clear: %v", got)
	}
	none := ring[int]{limit: -1}
	if none.add(1) || len(none.all()) > 0 {
		t.Error("kept in a ring of nothing")
	}
}

func TestKeepReceived(t *testing.T) {
	for keep, want := range map[int]string{0: "0 1 2 3 4", 2: "3 4", -1: ""} {
		c := start(t, Options{Kind: Generic, KeepReceived: keep})
		r := online(t, c, "d", true)
		for i := range 5 {
			r.send(publishPacket("x", fmt.Sprint(i), 0, 0))
		}
		must(t, func() error { _, err := c.WaitReceived(ctx(t), 5); return err }())
		if got := payloads(c.Received()); got != want {
			t.Errorf("keep %d: %q, want %q", keep, got, want)
		}
		if n := c.Totals(); n.Received != 5 || n.DroppedRecords != int64(5-len(c.Received())) || n.ReceivedBytes != 5 {
			t.Errorf("keep %d: totals %+v", keep, n)
		}
	}
}

func TestClearRecords(t *testing.T) {
	c := generic(t)
	gone, r := online(t, c, "gone", true), online(t, c, "d", true)
	gone.send(packets.NewControlPacket(packets.Disconnect))
	must(t, c.WaitOffline(ctx(t), "gone"))
	r.send(publishPacket("x", "1", 0, 0), idPacket(packets.Puback, 9))
	r.pinged()
	c.ClearRecords()
	if len(c.Received())+len(c.Violations())+len(c.LoginFailures()) != 0 {
		t.Error("something is left")
	}
	if log := c.Connections(All); len(log) != 1 || log[0].Device != "d" {
		t.Errorf("connections %+v", log)
	}
	c.Drop("d", CutClose)
	if log := c.Connections("d"); log[0].Reason != EndFault {
		t.Errorf("connections %+v", log)
	}
	r = online(t, c, "d", true)
	r.send(publishPacket("x", "2", 0, 0))
	got, err := c.WaitReceived(ctx(t), 1)
	if err != nil || payloads(got) != "2" {
		t.Errorf("%q, %v", payloads(got), err)
	}
	if n := c.Totals().Received; n != 2 {
		t.Errorf("%d in total", n)
	}
}

func TestOnMessage(t *testing.T) {
	var c *Cloud
	var mu sync.Mutex
	var got []Received
	c = start(t, Options{Kind: Generic, OnMessage: func(r Received) {
		mu.Lock()
		got = append(got, r)
		mu.Unlock()
		if r.Topic == "down" {
			c.Down()
			return
		}
		if err := c.Publish(r.Device, "echo", r.Payload, 1); err != nil { // it may call back
			t.Error(err)
		}
	}})
	r := online(t, c, "d", true)
	r.subscribe("echo", 1)
	for i := range uint16(3) {
		r.send(publishPacket("x", fmt.Sprint(i), 1, i+1))
		r.expectPublish(fmt.Sprintf("%d echo=%d 1", i+1, i)) // before the acknowledgement
		expect[*packets.PubackPacket](r)
	}
	r.send(publishPacket("down", "3", 1, 4))
	if rest := r.ends(); len(rest) > 0 {
		t.Errorf("answered with %v", rest)
	}
	mu.Lock()
	defer mu.Unlock()
	if payloads(got) != "0 1 2 3" || payloads(c.Received()) != "0 1 2 3" {
		t.Errorf("called with %q, recorded %q", payloads(got), payloads(c.Received()))
	}
}

// Close and a callback that takes the cloud down do not wait for each other.
func TestDownWhileClosing(t *testing.T) {
	var c *Cloud
	entered := make(chan struct{})
	c = start(t, Options{Kind: Generic, OnMessage: func(Received) {
		close(entered)
		<-c.done
		c.Down()
	}})
	online(t, c, "d", true).send(publishPacket("x", "", 0, 0))
	<-entered
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		c.Close()
	}()
	select {
	case <-closed:
	case <-ctx(t).Done():
		t.Fatal("still closing")
	}
}

func TestWaits(t *testing.T) {
	c := generic(t)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	online(t, c, "s", true).subscribe("x", 0)
	for name, err := range map[string]error{
		"received":     func() error { _, err := c.WaitReceived(over, 1); return err }(),
		"acked":        func() error { _, err := c.WaitAcked(over, 1); return err }(),
		"online":       c.WaitOnline(over, "d"),
		"subscribed":   c.WaitSubscribed(over, "d", "x"),
		"unsubscribed": c.WaitUnsubscribed(over, "s", "x"),
		"offline":      c.WaitOffline(over, "s"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, c.WaitOffline(over, "d")) // true at once
	must(t, c.WaitUnsubscribed(over, "d", "x"))
	failed := make(chan error)
	go func() { failed <- c.WaitOnline(t.Context(), "d") }()
	c.Close()
	if err := <-failed; !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}
