package control

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDeviceOf(t *testing.T) {
	dir := t.TempDir()
	if _, err := DeviceOf(context.Background(), dir, "a"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody is there: %v", err)
	}
	stop := serve(t, dir, nil)
	if _, err := DeviceOf(context.Background(), dir, "a"); !errors.Is(err, ErrNotTold) {
		t.Errorf("a server that only reloads: %v", err)
	}
	stop()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/devices/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.PathValue("name") {
		case "hall:b&c":
			_, _ = w.Write([]byte(`{"name": "hall:b&c", "state": "online", "reason": "r", "failures_in_a_row": 3}`))
		case "broken":
			_, _ = w.Write([]byte(`{`))
		case "busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusNotFound)
		}
	})
	srv := &http.Server{Handler: mux}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close() // only a test's
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	want := &Device{Name: "hall:b&c", State: "online", Reason: "r"}
	if got, err := DeviceOf(context.Background(), dir, "hall:b&c"); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := DeviceOf(context.Background(), dir, "x"); !errors.Is(err, ErrNoDevice) {
		t.Error(err)
	}
	for _, name := range []string{"broken", "busy"} {
		if got, err := DeviceOf(context.Background(), dir, name); err == nil || errors.Is(err, ErrNotTold) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
