package control

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"
)

// Server answers on a socket.
type Server struct {
	// Reload reads the configuration again. Its error may be a Refusal.
	Reload func(context.Context) (*Reloaded, error)
	// Rest answers everything else, nil for nothing.
	Rest http.Handler
}

const (
	reloadPath = "/api/v1/reload"
	// headerWithin is how long a request may take to arrive.
	headerWithin = 10 * time.Second
	// lastWithin is how long answers that are due may take at the end.
	lastWithin = time.Second
)

// Serve answers until ctx ends, and closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+reloadPath, s.reload)
	if s.Rest != nil {
		mux.Handle("/", s.Rest)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: headerWithin}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), lastWithin)
	defer cancel()
	if srv.Shutdown(last) != nil {
		_ = srv.Close() // nothing more can be done for them
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	done, err := s.Reload(r.Context())
	if err == nil {
		answer(w, http.StatusOK, done)
		return
	}
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		refusal = &Refusal{Reasons: []string{err.Error()}}
	}
	status := http.StatusServiceUnavailable
	if refusal.Config {
		status = http.StatusUnprocessableEntity
	}
	answer(w, status, refusal)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // whoever asked may have gone
}
