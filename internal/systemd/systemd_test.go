package systemd

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// told is what a manager was told, and when.
type told struct {
	began  time.Time
	states []string
	err    error
}

func (r *told) manager(watchdog time.Duration) (*Manager, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.DebugLevel)
	r.began = time.Now()
	return &Manager{log: zap.New(core), watchdog: watchdog, send: func(state string) error {
		r.states = append(r.states, fmt.Sprintf("%s %s", time.Since(r.began), state))
		return r.err
	}}, logs
}

func (r *told) want(t *testing.T, states ...string) {
	t.Helper()
	number := regexp.MustCompile(`MONOTONIC_USEC=[1-9][0-9]*`)
	got := strings.Split(number.ReplaceAllString(strings.Join(r.states, "|"), "MONOTONIC_USEC=N"), "|")
	if !slices.Equal(got, states) {
		t.Errorf("told %q\nwant %q", got, states)
	}
}

func TestStates(t *testing.T) {
	var r told
	synctest.Test(t, func(t *testing.T) {
		m, _ := r.manager(0)
		m.Ready()
		m.Reloading()
		m.Ready()
		m.Status("two\nlines")
		m.Status("two\nlines")
		m.Stopping(time.Minute)
		m.Reloading()
		m.Ready()
		m.Status("stopping")
	})
	r.want(t, "0s READY=1", "0s RELOADING=1\nMONOTONIC_USEC=N", "0s READY=1", "0s STATUS=two lines",
		"0s STOPPING=1\nEXTEND_TIMEOUT_USEC=60000000", "0s STATUS=stopping")
}

func TestFollow(t *testing.T) {
	var r told
	synctest.Test(t, func(t *testing.T) {
		m, _ := r.manager(0)
		ctx, cancel := context.WithTimeout(t.Context(), 10*StatusEvery)
		defer cancel()
		m.Follow(ctx, func() string { // which changes all the time, then no more
			return min(time.Since(r.began), 2*StatusEvery).String()
		})
	})
	r.want(t, "0s STATUS=0s", "3s STATUS=3s", "6s STATUS=6s")
}

// The watchdog is fed four times in its time, not while something is stuck, and again when it is not.
func TestFeed(t *testing.T) {
	var r told
	var logged *observer.ObservedLogs
	synctest.Test(t, func(t *testing.T) {
		m, logs := r.manager(time.Minute)
		logged = logs
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		m.Feed(ctx, func(limit time.Duration) []string {
			if limit != 30*time.Second {
				t.Errorf("limit %s", limit)
			}
			if at := time.Since(r.began); at >= 20*time.Second && at < 80*time.Second {
				return []string{"this", "that"}
			}
			return nil
		})
	})
	r.want(t, "0s WATCHDOG=1", "15s WATCHDOG=1", "1m30s WATCHDOG=1")
	entries := logged.All()
	if len(entries) != 2 || entries[0].Level != zapcore.ErrorLevel || entries[0].ContextMap()["stuck"] != "this, that" ||
		entries[1].Level != zapcore.WarnLevel {
		t.Errorf("logged %v", entries)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "1000000")
	m := New(zap.NewNop())
	m.Ready()
	m.Reloading()
	m.Stopping(0)
	asked := atomic.Bool{}
	m.Follow(context.Background(), func() string { asked.Store(true); return "" })
	m.Feed(context.Background(), func(time.Duration) []string { asked.Store(true); return nil })
	if asked.Load() {
		t.Error("it was asked for what nobody is told")
	}
}

// A service manager that cannot be reached is logged once.
func TestUnreachable(t *testing.T) {
	r := told{err: errors.New("no such file")}
	m, logs := r.manager(0)
	m.Ready()
	m.Status("a")
	r.err = nil
	m.Status("b")
	r.err = errors.New("refused")
	m.Status("c")
	if n := logs.Len(); n != 2 {
		t.Errorf("%d log lines", n)
	}
}
