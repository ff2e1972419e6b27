package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"bridged/internal/lane"
)

// A disk that fails to read and to write in turn is told of once each.
func TestFaultsAreToldOnce(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	var f faults
	write, read := error(syscall.ENOSPC), fmt.Errorf("%w: %w", lane.ErrRead, errors.New("page 7"))
	for range 2 {
		for range 10 {
			f.tell(zap.New(core), write)
			f.tell(zap.New(core), read)
		}
		f.tell(zap.New(core), syscall.EROFS)
		f.tell(zap.New(core), nil)
	}
	var got []string
	for _, e := range logs.TakeAll() {
		err, _ := e.ContextMap()["err"].(string)
		got = append(got, strings.Join([]string{e.Message[:20], err}, " "))
	}
	want := []string{
		"messages cannot be s " + write.Error(), "messages on disk can " + read.Error(),
		"messages cannot be s " + syscall.EROFS.Error(), "the disk can be used ",
	}
	if want = append(want, want...); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
