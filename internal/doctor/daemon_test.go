package doctor

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"bridged/internal/bridge"
	"bridged/internal/cloudsim"
	"bridged/internal/control"
)

// daemon is a bridged that says how its device is.
func daemon(t *testing.T, dir string, answer http.HandlerFunc) {
	t.Helper()
	l, err := control.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	if answer != nil {
		mux.HandleFunc("GET /api/v1/devices/press", answer)
	}
	srv := &http.Server{Handler: mux}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close() // only a test's
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func says(state string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"name": "press", "state": "` + state + `", "reason": "as it is"}`))
	}
}

func TestDaemon(t *testing.T) {
	unknown := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
	}
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		held   bool
		says   string
	}{
		"online":       {says("online"), true, "for which this device is online: as it is"},
		"connecting":   {says("connecting"), true, "connecting"},
		"something":    {says("something-new"), true, "something-new"},
		"idle":         {says("idle"), false, "idle"},
		"waiting":      {says("waiting"), false, "waiting"},
		"not known":    {unknown, false, "has no such device"},
		"does not say": {nil, true, "may have a session"},
		"in trouble":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, true, "may have a session"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, sim(t, nil), lab("$WS", "", ""))
			daemon(t, r.dir, tc.answer)
			report := r.examine(Options{})
			want := Passed
			if tc.held {
				want = Held
			}
			if report.Result != want || !report.Daemon.Running || report.Daemon.Holds != tc.held ||
				!strings.Contains(report.text(Daemon), tc.says) {
				t.Errorf("%s: %+v, %s", report.Result, report.Daemon, report.text(Daemon))
			}
			if n := r.cloud.Totals().Connects; tc.held != (n == 0) {
				t.Errorf("%d connects", n)
			}
			if tc.held != (report.status(Connect) == Skipped) || report.status(Upgrade) != OK {
				t.Errorf("%+v", report.Steps)
			}
		})
	}
}

// TakeOver ends the session that a real bridge has, and the bridge has it again soon.
func TestTakeOver(t *testing.T) {
	r := newRig(t, sim(t, nil), lab("$WS", "", "")+`
listen: [{url: "tcp://127.0.0.1:0"}]
defaults: {upstream: always, session: persistent}
`)
	b, err := bridge.New(r.cfg, zap.NewNop(), bridge.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	daemon(t, r.dir, says("online"))
	wait, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	if err := r.cloud.WaitOnline(wait, "press"); err != nil {
		t.Fatal(err)
	}
	if report := r.examine(Options{}); report.Result != Held || len(r.cloud.Connections("press")) != 1 {
		t.Errorf("%s, %+v", report.Result, r.cloud.Connections("press"))
	}
	report := r.passes(Options{TakeOver: true})
	if s := report.Session; !s.Present || s.Discarded || report.status(Connect) != Warning {
		t.Errorf("%+v, %+v", s, report.Steps)
	}
	connections := r.cloud.Connections("press")
	if connections[0].Reason != cloudsim.EndTakenOver {
		t.Errorf("%+v", connections)
	}
	back := func() bool { return len(r.cloud.Connections("press")) > 2 && r.cloud.Online("press") }
	if err := r.cloud.WaitUntil(wait, back); err != nil {
		t.Error(err)
	}
}

// A secret that belongs to another user than the state directory is pointed out.
func TestOwnerOfSecrets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a directory to another user")
	}
	r := newRig(t, sim(t, nil), lab("$WS", "", ""))
	state := filepath.Join(r.dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(state, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	r.cfg.StateDir = state
	report := r.passes(Options{})
	if report.status(Secrets) != Warning || !strings.Contains(report.text(Secrets), "chown 12345 "+r.dir+"/secret") {
		t.Error(report.text(Secrets))
	}
}
