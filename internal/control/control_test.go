package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers in dir until the test ends, or stop is called.
func serve(t *testing.T, dir string, reload func(context.Context) (*Reloaded, error)) (stop func()) {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- (&Server{Reload: reload}).Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestReload(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("a-long-directory/", 10))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"short": t.TempDir(), "long": long} {
		t.Run(name, func(t *testing.T) {
			if _, err := Reload(context.Background(), dir); !errors.Is(err, ErrNotRunning) {
				t.Errorf("nobody is there: %v", err)
			}
			want := &Reloaded{
				Config: "c.yaml", Devices: Difference{Added: []string{"a"}, Unchanged: 7}, NeedsRestart: []string{"listen"},
				Kept: []Kept{{Device: "b", Up: 1}},
			}
			var err error
			stop := serve(t, dir, func(context.Context) (*Reloaded, error) { return want, err })
			got, failed := Reload(context.Background(), dir)
			if failed != nil || !cmp.Equal(got, want) {
				t.Errorf("%+v, %v", got, failed)
			}
			info, e := os.Stat(filepath.Join(dir, Socket))
			if e != nil || info.Mode().Perm() != mode {
				t.Errorf("mode %v, %v", info.Mode(), e)
			}
			for _, refusal := range []*Refusal{
				{Reasons: []string{"one", "two"}, Config: true}, {Reasons: []string{"not now"}, Hint: "later"},
			} {
				err = refusal
				_, failed = Reload(context.Background(), dir)
				var got *Refusal
				if !errors.As(failed, &got) || !cmp.Equal(got, refusal) {
					t.Errorf("%v, want %v", failed, refusal)
				}
			}
			err = errors.New("something else")
			if _, failed = Reload(context.Background(), dir); failed == nil || failed.Error() != err.Error() {
				t.Error(failed)
			}
			stop()
			if _, err := Reload(context.Background(), dir); !errors.Is(err, ErrNotRunning) { // the socket is there
				t.Errorf("nobody is there any more: %v", err)
			}
			serve(t, dir, func(context.Context) (*Reloaded, error) { return want, nil })
			if got, err := Reload(context.Background(), dir); err != nil || !cmp.Equal(got, want) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	if _, err := Reload(context.Background(), filepath.Join(long, "none")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no directory: %v", err)
	}
}

// An answer that is due comes even if the end comes first.
func TestStopDuringReload(t *testing.T) {
	dir := t.TempDir()
	asked := make(chan struct{})
	finish := make(chan struct{})
	stop := serve(t, dir, func(context.Context) (*Reloaded, error) {
		close(asked)
		<-finish
		return nil, &Refusal{Reasons: []string{"bridged is stopping"}}
	})
	answered := make(chan error, 1)
	go func() {
		_, err := Reload(context.Background(), dir)
		answered <- err
	}()
	<-asked
	go close(finish)
	stop()
	if err := <-answered; err == nil || err.Error() != "bridged is stopping" {
		t.Error(err)
	}
}

func TestOnlyPost(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, nil)
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, dir) },
	}}
	for path, want := range map[string]int{reloadPath: http.StatusMethodNotAllowed, "/": http.StatusNotFound} {
		resp, err := c.Get("http://bridged" + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

// What is not about reloading is for others to answer.
func TestRest(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	rest := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Path", r.URL.Path) })
	go func() { ended <- (&Server{Rest: rest}).Serve(ctx, l) }()
	transport := Transport(dir)
	resp, err := (&http.Client{Transport: transport}).Get(URL + "/api/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("Path"); got != "/api/v1/status" {
		t.Errorf("%q", got)
	}
	transport.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
