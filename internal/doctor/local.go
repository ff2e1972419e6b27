package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"bridged/internal/clock"
	"bridged/internal/control"
	"bridged/internal/failure"
	"bridged/internal/upstream"
)

// secrets looks at where the device's secrets are kept. They were read, and their modes checked, with the
// configuration.
func (w *walk) secrets(s *Step) *failure.Failure {
	sources := w.dev.Secrets
	if len(sources) == 0 {
		s.Summary = "none outside of the configuration"
		return nil
	}
	s.Summary = fmt.Sprintf("%d readable", len(sources))
	owner, owned := serviceUser(w.d.cfg.StateDir)
	for _, src := range sources {
		switch {
		case src.Env != "":
			note(s, false, "%s: environment variable %s of this shell", src.Key, src.Env)
			continue
		case src.Credential != "":
			note(s, false, "%s: systemd credential %s", src.Key, src.Credential)
			continue
		}
		info, err := os.Stat(src.File)
		if err != nil { // it has gone meanwhile
			note(s, true, "%s: %v", src.Key, err)
			continue
		}
		note(s, false, "%s: %s, mode %04o, changed %s", src.Key, src.File, info.Mode().Perm(),
			info.ModTime().UTC().Format("2006-01-02 15:04 MST"))
		if uid, ok := uidOf(info); ok && owned && uid != owner && owner != 0 && info.Mode().Perm()&0o044 == 0 {
			note(s, true, "the service, whose user id is %d by the owner of %s, cannot read it: chown %d %s", owner,
				w.d.cfg.StateDir, owner, src.File)
		}
	}
	return nil
}

// serviceUser is whom the state directory belongs to, which tells as whom bridged runs.
func serviceUser(stateDir string) (uid uint32, ok bool) {
	info, err := os.Stat(stateDir)
	if err != nil {
		return 0, false
	}
	return uidOf(info)
}

func uidOf(info fs.FileInfo) (uid uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Uid, true
}

// clock tells how the gateway's clock is. What the cloud says comes later. A wrong one is no failure yet: the cloud may
// tell the time before it matters.
func (w *walk) clock(s *Step) *failure.Failure {
	st := w.d.clock.State()
	w.report.Clock.State = string(st.Kind)
	s.Summary = fmt.Sprintf("%s, %s", st.Now.UTC().Format("2006-01-02 15:04:05 MST"), st.Reason)
	if st.Kind == clock.Wrong {
		s.Status = Warning
		note(s, true, "%s", st.Remedy)
	}
	return nil
}

// askWithin is how long a bridged that runs may take to answer.
const askWithin = 5 * time.Second

// daemon finds out whether a bridged runs that uses the device's identity.
func (w *walk) daemon(ctx context.Context, s *Step) *failure.Failure {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	st, reason := askDaemon(ctx, w.d.cfg.StateDir, w.dev.Name)
	w.report.Daemon, s.Summary = st, reason
	return nil
}

// askDaemon says how a bridged that runs has the device. One that does not tell may have a session.
func askDaemon(ctx context.Context, stateDir, name string) (st DaemonState, says string) {
	dev, err := control.DeviceOf(ctx, stateDir, name)
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return st, "no bridged runs with state_dir " + stateDir
	case errors.Is(err, control.ErrNoDevice):
		return DaemonState{Running: true}, err.Error()
	case errors.Is(err, control.ErrNotTold):
		return DaemonState{Running: true, Holds: true}, "a bridged runs, which may have a session for this device"
	case errors.Is(err, fs.ErrPermission):
		return DaemonState{Running: true, Holds: true}, "a bridged may run, which may have a session for this device: " +
			"to find out, run this as the user that bridged runs as, or as root"
	case err != nil:
		return DaemonState{Running: true, Holds: true}, "a bridged runs, which may have a session for this device: " +
			failure.Clean(err.Error())
	}
	st = DaemonState{Running: true, State: dev.State, Holds: holds(dev.State)}
	says = "a bridged runs, for which this device is " + dev.State
	if dev.Reason != "" {
		says += ": " + failure.Clean(dev.Reason)
	}
	return st, says
}

// holds says whether a worker in this state has a session, or is about to.
func holds(state string) bool {
	switch upstream.State(state) {
	case upstream.Idle, upstream.Waiting:
		return false
	}
	return true
}
