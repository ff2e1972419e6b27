package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"bridged/internal/mqtt"
	"bridged/internal/upstream"
)

// sessions keeps the devices' durable sessions in the state directory, one small file each, so that their subscriptions
// survive a restart. A file is written when a subscription changes, never for a message.
type sessions struct {
	dir  string
	log  *zap.Logger
	wake chan struct{} // holds one

	mu    sync.Mutex // protects the following field; not held over I/O
	dirty map[string]upstream.Kept
}

// sessionFile is the content of a file.
type sessionFile struct {
	Version int                 `json:"version"`
	Device  string              `json:"device"`
	Filters []mqtt.Subscription `json:"filters"`
}

const (
	sessionVersion = 1
	sessionSuffix  = ".json"
)

// openSessions reads what an earlier process left. A file that cannot be read is set aside: its device subscribes
// again.
func openSessions(stateDir string, log *zap.Logger) (*sessions, map[string]upstream.Kept, error) {
	s := &sessions{
		dir:   filepath.Join(stateDir, "sessions"),
		log:   log,
		wake:  make(chan struct{}, 1),
		dirty: make(map[string]upstream.Kept),
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("state_dir: %w", err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("state_dir: %w", err)
	}
	kept := make(map[string]upstream.Kept)
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		if !strings.HasSuffix(path, sessionSuffix) {
			continue
		}
		name, k, err := readSession(path)
		if err != nil {
			log.Error("set a damaged session file aside", zap.String("file", path+".damaged"), zap.NamedError("err", err))
			if err := os.Rename(path, path+".damaged"); err != nil {
				return nil, nil, fmt.Errorf("state_dir: %w", err)
			}
			continue
		}
		kept[name] = k
	}
	return s, kept, nil
}

func readSession(path string) (device string, kept upstream.Kept, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", nil, err
	}
	var f sessionFile
	if err := json.Unmarshal(data, &f); err != nil {
		return "", nil, err
	}
	if f.Version != sessionVersion {
		return "", nil, fmt.Errorf("version %d is not known", f.Version)
	}
	kept = make(upstream.Kept, len(f.Filters))
	for _, sub := range f.Filters {
		if !mqtt.ValidFilter(sub.Filter) || sub.QoS > 2 {
			return "", nil, fmt.Errorf("filter %q, QoS %d", sub.Filter, sub.QoS)
		}
		kept[sub.Filter] = sub.QoS
	}
	return f.Device, kept, nil
}

// save takes note of a device's session, nil if there is none any more, and returns at once.
func (s *sessions) save(device string, kept upstream.Kept) {
	s.mu.Lock()
	s.dirty[device] = kept
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes what has changed until ctx ends, and then what is left.
func (s *sessions) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			s.flush()
			return
		case <-s.wake:
			s.flush()
		}
	}
}

func (s *sessions) flush() {
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = make(map[string]upstream.Kept)
	s.mu.Unlock()
	for device, kept := range dirty {
		if err := s.write(device, kept); err != nil {
			s.log.Error("cannot save a session: after a restart its device may lack subscriptions",
				zap.String("device", device), zap.NamedError("err", err))
		}
	}
}

// write replaces a device's file in one step.
func (s *sessions) write(device string, kept upstream.Kept) error {
	path := filepath.Join(s.dir, url.PathEscape(device)+sessionSuffix)
	if kept == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	f := sessionFile{Version: sessionVersion, Device: device}
	for filter, qos := range kept {
		f.Filters = append(f.Filters, mqtt.Subscription{Filter: filter, QoS: qos})
	}
	slices.SortFunc(f.Filters, func(a, b mqtt.Subscription) int { return strings.Compare(a.Filter, b.Filter) })
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(s.dir, "new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncDir(s.dir)
}

// syncDir makes a rename in it last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
