package bridge

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"bridged/internal/broker"
	"bridged/internal/lane"
	"bridged/internal/mqtt"
	"bridged/internal/upstream"
)

// noteMap is a disk for notes.
type noteMap map[string][]byte

func (n noteMap) Note(name string, value []byte, done func()) error {
	if len(value) > lane.MaxNote {
		return lane.ErrNoteSize
	}
	if value == nil {
		delete(n, name)
	} else {
		n[name] = value
	}
	done()
	return nil
}

func TestSessionNotes(t *testing.T) {
	disk := noteMap{"other": []byte("x")}
	leftAt := time.Date(2026, 1, 2, 3, 4, 5, 678, time.Local)
	want := map[string]*upstream.Kept{
		"dev":      {Filters: map[string]byte{"a/#": 1, "+/ö\u2028\"": 2}, Expiry: mqtt.Forever},
		"odd/name": {Filters: map[string]byte{}, Expiry: 60, Left: leftAt},
	}
	saved := 0
	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	for device, k := range want {
		saver(disk, device, log)(k, func() { saved++ })
	}
	saver(disk, "none", log)(&upstream.Kept{}, func() { saved++ })
	saver(disk, "none", log)(nil, func() { saved++ })
	if got := keptSessions(disk, zap.New(core)); !cmp.Equal(got, want) {
		t.Error(cmp.Diff(got, want))
	}
	if saved != 4 || len(disk) != 3 || logs.Len() != 0 {
		t.Errorf("%d saved, notes %s, logs %v", saved, disk, logs.All())
	}

	huge := upstream.Kept{Filters: map[string]byte{strings.Repeat("<", lane.MaxNote): 1}}
	saver(disk, "huge", log)(&huge, func() { saved++ })
	if saved != 4 || len(disk) != 3 || logs.FilterLevelExact(zapcore.ErrorLevel).Len() != 1 {
		t.Errorf("a session that cannot be saved: %d saved, logs %v", saved, logs.All())
	}
	logs.TakeAll()

	damaged := []byte(`{"version":1,`)
	disk[sessionPrefix+"dev"] = damaged
	delete(want, "dev")
	if got := keptSessions(disk, zap.New(core)); !cmp.Equal(got, want) {
		t.Error(cmp.Diff(got, want))
	}
	lines := logs.FilterLevelExact(zapcore.ErrorLevel).All()
	left := disk[sessionPrefix+"dev"]
	if len(lines) != 1 || lines[0].ContextMap()["device"] != "dev" || !bytes.Equal(left, damaged) {
		t.Errorf("logs %v, note %s", lines, left)
	}
}

func TestDamagedSessions(t *testing.T) {
	for value, want := range map[string]string{
		``:                                 "unexpected end",
		`null`:                             "version 0",
		`[]`:                               "cannot unmarshal",
		`{"version":2,"filters":{}}`:       "version 2",
		`{"version":1}`:                    "no filters",
		`{"version":1,"filters":{"a#":1}}`: `"a#"`,
		`{"version":1,"filters":{"":1}}`:   `""`,
		`{"version":1,"filters":{"a":3}}`:  "QoS 3",
		`{"version":1,"filters":{"a":-1}}`: "-1",
		`{"version":1,"filters":{},"expiry":4294967296}`:                "4294967296",
		`{"version":1,"filters":{},"left":"yesterday"}`:                 "yesterday",
		`{"version":1,"filters":{},"left":"9999-12-31T23:00:00-02:00"}`: "10000",
	} {
		if k, err := decodeSession([]byte(value)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want an error about %s", value, k, err, want)
		}
	}
}

func FuzzDecodeSession(f *testing.F) {
	f.Add([]byte(`{"version":1,"filters":{"a/#":1,"\u2028":0},"expiry":60,"left":"2026-01-02T03:04:05.000000678Z"}`))
	f.Add([]byte(`{"version":1,"filters":{},"expiry":4294967295}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		k, err := decodeSession(value)
		if err != nil {
			return
		}
		again, err := decodeSession(encodeSession(k))
		if err != nil || !cmp.Equal(again, k) {
			t.Errorf("%s: %v, then %v, %v", value, k, again, err)
		}
	})
}

func TestRemaining(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	wrong := time.Unix(1000, 0)
	for name, test := range map[string]struct {
		left, now time.Time
		expiry    uint32
		want      time.Duration
	}{
		"away":                 {now.Add(-20 * time.Minute), now, 3600, 40 * time.Minute},
		"just left":            {now, now, 3600, time.Hour},
		"over":                 {now.Add(-2 * time.Hour), now, 3600, -time.Hour},
		"connected at the end": {time.Time{}, now, 3600, time.Hour},
		"clock not set now":    {now.Add(-2 * time.Hour), wrong, 3600, time.Hour},
		"clock not set then":   {wrong, now, 3600, time.Hour},
		"clock never set":      {wrong, wrong.Add(2 * time.Hour), 3600, time.Hour},
		"clock set back":       {now.Add(time.Minute), now, 3600, time.Hour},
		"another time zone":    {now.Add(-20 * time.Minute).In(time.FixedZone("x", 7200)), now, 3600, 40 * time.Minute},
		"for ages":             {now.Add(-time.Second), now, mqtt.Forever - 1, (mqtt.Forever - 2) * time.Second},
	} {
		k := &upstream.Kept{Expiry: test.expiry, Left: test.left}
		if got := remaining(k, test.now); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestLocalSession(t *testing.T) {
	now := time.Now()
	filters := map[string]byte{"b": 1, "a": 2}
	for name, test := range map[string]struct {
		kept *upstream.Kept
		want *broker.Kept
	}{
		"none":        {nil, nil},
		"the cloud's": {&upstream.Kept{Filters: filters}, nil},
		"for a time": {&upstream.Kept{Filters: filters, Expiry: 60, Left: now.Add(-time.Minute / 2)},
			&broker.Kept{Filters: []string{"a", "b"}, Remaining: 30 * time.Second}},
		"over": {&upstream.Kept{Expiry: 60, Left: now.Add(-2 * time.Minute)}, &broker.Kept{Remaining: -time.Minute}},
	} {
		if got := localSession(test.kept, now); !cmp.Equal(got, test.want) {
			t.Errorf("%s: %s", name, cmp.Diff(got, test.want))
		}
	}
	k := localSession(&upstream.Kept{Filters: filters, Expiry: mqtt.Forever}, now)
	if !k.Endless || !slices.Equal(k.Filters, []string{"a", "b"}) {
		t.Errorf("forever: %+v", k)
	}
}
