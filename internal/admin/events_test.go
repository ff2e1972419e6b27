package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bridged/internal/bridge"
	"bridged/internal/failure"
)

// listener reads events.
type listener struct{ lines *bufio.Scanner }

// listen asks for events, until the test ends.
func listen(t *testing.T, url string) *listener {
	t.Helper()
	return listenWith(t, url, "")
}

func listenWith(t *testing.T, url, token string) *listener {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	transport := &http.Transport{}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = resp.Body.Close()
		transport.CloseIdleConnections()
	})
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 16<<20)
	return &listener{lines: lines}
}

// next is the next event.
func (l *listener) next(t *testing.T) (name string, data []byte) {
	t.Helper()
	for l.lines.Scan() {
		line := l.lines.Text()
		if rest, ok := strings.CutPrefix(line, "event: "); ok {
			name = rest
		} else if rest, ok := strings.CutPrefix(line, "data: "); ok {
			return name, []byte(rest)
		}
	}
	t.Fatalf("no more events: %v", l.lines.Err())
	return "", nil
}

// changed waits for the next event about devices.
func (l *listener) changed(t *testing.T) (c Changed) {
	t.Helper()
	for {
		name, data := l.next(t)
		if name == "devices" {
			if err := json.Unmarshal(data, &c); err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
}

// What changes is told, once, and nothing else.
func TestEvents(t *testing.T) {
	f := fleet(3)
	a := newAdmin(f)
	s := httptest.NewServer(a.Handler())
	t.Cleanup(s.Close)
	l := listen(t, s.URL+"/api/v1/events")
	if name, _ := l.next(t); name != "status" {
		t.Errorf("begins with %s", name)
	}
	a.tick() // nothing has changed
	f.change(1, fail(failure.Refused))
	a.tick()
	c := l.changed(t)
	if len(c.Changed) != 1 || c.Changed[0].Name != "dev-1" || c.Changed[0].Failure == nil || len(c.Removed) != 0 {
		t.Errorf("%+v", c)
	}
	f.change(1, func(d *bridge.DeviceSummary) { d.Up.Oldest = time.Hour }) // by itself
	a.tick()
	f.change(0, func(d *bridge.DeviceSummary) { d.Local.Connected = true })
	f.mu.Lock()
	f.devices = f.devices[:2]
	f.mu.Unlock()
	a.tick()
	if c := l.changed(t); len(c.Changed) != 1 || c.Changed[0].Name != "dev-0" || len(c.Removed) != 1 ||
		c.Removed[0] != "dev-2" {
		t.Errorf("%+v", c)
	}
	a.events.end()
	if l.lines.Scan(); l.lines.Err() != nil {
		t.Error(l.lines.Err())
	}
	get(t, a.Handler(), "/api/v1/events", 503, nil)
}

// Of a fleet that changes as a whole each event tells a part, and all of it in the end.
func TestManyChanges(t *testing.T) {
	const n = 2*maxChanged + 10
	f := fleet(n)
	a := newAdmin(f)
	s := a.events.join(a.summaries)
	for i := range n {
		f.change(i, fail(failure.Refused))
	}
	told := make(map[string]bool)
	for tick := range 3 {
		a.tick()
		_, data, _ := strings.Cut(string(<-s.chunks), "event: devices\ndata: ")
		var c Changed
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			t.Fatal(err)
		}
		for _, d := range c.Changed {
			told[d.Name] = true
		}
		if len(c.Changed) != maxChanged || c.More < n-(tick+1)*maxChanged {
			t.Errorf("%d, and %d more", len(c.Changed), c.More)
		}
		for i := range maxChanged { // those that change all the time must not keep others waiting
			f.change(i, relay(uint64(tick+1), 0))
		}
	}
	if len(told) != n {
		t.Errorf("%d devices were told of", len(told))
	}
	a.events.leave(s)
}

// A reader that does not read is dropped, and others go on; there is a bound on how many there are.
func TestSlowReader(t *testing.T) {
	a := newAdmin(fleet(1))
	slow, quick := a.events.join(a.summaries), a.events.join(a.summaries)
	for range behind + 1 {
		a.tick()
		if _, ok := <-quick.chunks; !ok {
			t.Fatal("the quick one was dropped")
		}
	}
	for range behind {
		<-slow.chunks
	}
	if _, ok := <-slow.chunks; ok {
		t.Error("the slow one was not dropped")
	}
	a.events.leave(slow) // again
	for range maxStreams - 1 {
		if a.events.join(a.summaries) == nil {
			t.Fatal("refused")
		}
	}
	if a.events.join(a.summaries) != nil {
		t.Error("one too many")
	}
	a.events.end()
}
