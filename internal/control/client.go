package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 16 << 20

// URL is what the URLs begin with that Transport takes.
const URL = "http://bridged"

// Transport speaks to the process that runs with a state directory. Its errors may be ErrNotRunning.
// CloseIdleConnections ends it.
func Transport(dir string) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, dir) },
	}
}

// Reload has the process that runs with a state directory read its configuration again. The error may be a Refusal, or
// ErrNotRunning.
func Reload(ctx context.Context, dir string) (*Reloaded, error) {
	transport := Transport(dir)
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, URL+reloadPath, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	switch resp.StatusCode {
	case http.StatusOK:
		done := new(Reloaded)
		if err := body.Decode(done); err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		return done, nil
	case http.StatusUnprocessableEntity, http.StatusServiceUnavailable:
		refusal := new(Refusal)
		if err := body.Decode(refusal); err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		return nil, refusal
	}
	return nil, fmt.Errorf("bridged answers %s", resp.Status)
}
