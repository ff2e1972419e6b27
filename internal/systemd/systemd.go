// Package systemd tells the service manager how the process is: that it is ready, how its work goes, that it reloads
// and that it stops; and, as long as it makes progress, that it lives. See sd_notify(3) for the words.
//
// A Manager may be used by several goroutines. Where no service manager listens its methods do nothing.
package systemd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"bridged/internal/pulse"
)

// StatusEvery is how often a status that has changed is told.
const StatusEvery = 3 * time.Second

// Manager is the service manager that has started the process.
type Manager struct {
	log  *zap.Logger
	send func(state string) error // nil if no service manager listens
	// watchdog is how long the service manager waits for a sign of life, 0 if it does not.
	watchdog time.Duration

	mu       sync.Mutex // protects the following fields; held while sending, so that states arrive in order
	stopping bool
	status   string
	failed   bool
}

// New finds the service manager by the environment.
func New(log *zap.Logger) *Manager {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog of the service manager is not served", zap.NamedError("err", err))
	}
	m := &Manager{log: log, watchdog: watchdog}
	if os.Getenv("NOTIFY_SOCKET") != "" {
		m.send = func(state string) error {
			_, err := daemon.SdNotify(false, state)
			return err
		}
	}
	return m
}

// tellLocked sends assignments.
func (m *Manager) tellLocked(states ...string) {
	if m.send == nil {
		return
	}
	err := m.send(strings.Join(states, "\n"))
	if err != nil && !m.failed {
		m.log.Warn("the service manager cannot be told how bridged is", zap.NamedError("err", err))
	}
	m.failed = err != nil
}

// Ready says that the process does its work, after the start and after a reload.
func (m *Manager) Ready() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stopping {
		m.tellLocked(daemon.SdNotifyReady)
	}
}

// Reloading says that the configuration is read again. Ready says that this has ended.
func (m *Manager) Reloading() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return
	}
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // which every system has
	m.tellLocked(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond)))
}

// Stopping says that the process ends, and within what time. Ready and Reloading say nothing from then on.
func (m *Manager) Stopping(within time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
	m.tellLocked(daemon.SdNotifyStopping, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", within.Microseconds()))
}

// Status tells people one line, if it is another one than before.
func (m *Manager) Status(line string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if line != m.status {
		m.status = line
		m.tellLocked("STATUS=" + strings.ReplaceAll(line, "\n", " "))
	}
}

// Follow tells people what status returns whenever that changes, until ctx ends.
func (m *Manager) Follow(ctx context.Context, status func() string) {
	if m.send == nil {
		return
	}
	t := time.NewTicker(StatusEvery)
	defer t.Stop()
	for {
		m.Status(status())
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Feed gives the watchdog its signs of life until ctx ends, as long as stuck returns nothing. stuck is asked what makes
// no progress for longer than limit; that is half of what the watchdog waits for.
func (m *Manager) Feed(ctx context.Context, stuck func(limit time.Duration) []string) {
	if m.send == nil || m.watchdog == 0 {
		return
	}
	limit := max(m.watchdog/2, 2*pulse.Every)
	t := time.NewTicker(max(m.watchdog/4, time.Millisecond))
	defer t.Stop()
	told := ""
	for {
		names := strings.Join(stuck(limit), ", ")
		if names == "" {
			m.mu.Lock()
			m.tellLocked(daemon.SdNotifyWatchdog)
			m.mu.Unlock()
		}
		if names != told {
			told = names
			m.tellStuck(names)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (m *Manager) tellStuck(names string) {
	if names == "" {
		m.log.Warn("everything makes progress again")
		return
	}
	m.log.Error("a part of bridged makes no progress: the watchdog gets no sign of life, and systemd will start it anew",
		zap.String("stuck", names))
}
