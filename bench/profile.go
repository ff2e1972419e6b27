package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// cpuProfile fetches a CPU profile for the time that is measured, if profiles are wanted and the subject has any.
func (o *options) cpuProfile(ctx context.Context, addr, name string) error {
	if addr == "" {
		return nil
	}
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, max(1, int(o.time.Seconds())))
	return o.fetch(ctx, url, name+".cpu")
}

// heapProfile fetches what is in memory, and the goroutines.
func (o *options) heapProfile(ctx context.Context, addr, name string) error {
	if addr == "" {
		return nil
	}
	base := "http://" + addr + "/debug/pprof/"
	return errors.Join(
		o.fetch(ctx, base+"allocs?debug=1", name+".memstats"), // at the end of that text
		o.fetch(ctx, base+"heap?gc=1", name+".heap"),
		o.fetch(ctx, base+"goroutine", name+".goroutines"))
}

func (o *options) fetch(ctx context.Context, url, name string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s: %s", resp.Status, b)
	}
	return os.WriteFile(filepath.Join(o.profiles, strings.ReplaceAll(name, "/", "-")+".pprof"), b, 0o600)
}
