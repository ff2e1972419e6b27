package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"
)

// Bounds of the server.
const (
	maxConnections = 128
	headerWithin   = 10 * time.Second
	maxHeader      = 16 << 10 // bytes
	answerWithin   = 30 * time.Second
	idleFor        = 60 * time.Second
	// lastWithin is how long answers that are due may take at the end.
	lastWithin = time.Second
)

// Serve answers on l, as a Guard lets it, until ctx ends; then it closes l. It needs Run beside it, which ends streams.
func (a *Admin) Serve(ctx context.Context, l net.Listener, g *Guard) error {
	srv := &http.Server{
		Handler: g.wrap(deadlines(a.Handler())), ReadHeaderTimeout: headerWithin, ReadTimeout: headerWithin,
		IdleTimeout: idleFor, MaxHeaderBytes: maxHeader, ErrorLog: zap.NewStdLog(a.opts.Log),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(netutil.LimitListener(l, maxConnections)) }()
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

// deadlines bounds how long an answer may take. Streams and profiles set their own.
func deadlines(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(deadline(r)) // every server's connection has one
		next.ServeHTTP(w, r)
	})
}

func deadline(r *http.Request) time.Time {
	if strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
		return time.Time{}
	}
	return time.Now().Add(answerWithin)
}
