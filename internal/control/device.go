package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// devicePath is below which each device has its own.
const devicePath = "/api/v1/devices/"

// Device is how a running bridged says that a device is: the part that DeviceOf asks for.
type Device struct {
	Name   string    `json:"name"`
	State  string    `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// ErrNotTold means that a bridged runs and does not say how the device is: it knows no such request.
var ErrNotTold = errors.New("the bridged that runs does not tell how its devices are")

// ErrNoDevice means that a bridged runs and has no device of that name.
var ErrNoDevice = errors.New("the bridged that runs has no such device")

// DeviceOf asks the process that runs with a state directory how a device is. The error may be ErrNotRunning,
// ErrNotTold or ErrNoDevice.
func DeviceOf(ctx context.Context, dir, name string) (*Device, error) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, dir) },
	}
	defer transport.CloseIdleConnections()
	at := "http://bridged" + devicePath + url.PathEscape(name)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch isJSON := strings.Contains(resp.Header.Get("Content-Type"), "json"); {
	case resp.StatusCode == http.StatusNotFound && isJSON:
		return nil, ErrNoDevice
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusMethodNotAllowed:
		return nil, ErrNotTold
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("bridged answers %s", resp.Status)
	}
	d := new(Device)
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(d); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return d, nil
}
