package demo

import (
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap/zapcore"
)

// logCore puts what the bridge logs into the account.
type logCore struct {
	zapcore.LevelEnabler
	acct *account
	with []zapcore.Field
}

func newLogCore(a *account, verbose bool) zapcore.Core {
	level := zapcore.WarnLevel
	if verbose {
		level = zapcore.InfoLevel
	}
	return &logCore{LevelEnabler: level, acct: a}
}

// With implements zapcore.Core.
func (c *logCore) With(fields []zapcore.Field) zapcore.Core {
	return &logCore{LevelEnabler: c.LevelEnabler, acct: c.acct, with: slices.Concat(c.with, fields)}
}

// Check implements zapcore.Core.
func (c *logCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *logCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	var keys []string // in the order of the fields
	for _, f := range slices.Concat(c.with, fields) {
		f.AddTo(enc)
		keys = append(keys, f.Key)
	}
	var device string
	if d, ok := enc.Fields["device"]; ok {
		device = fmt.Sprint(d)
	}
	t := dim
	if e.Level > zapcore.InfoLevel {
		t = alarm
	}
	text := fmt.Sprintf("%s: %s", e.Level, c.text(e.Message, keys, enc.Fields))
	c.acct.print(line{device: device, mark: local, cloud: "bridge", text: text, tone: t})
	return nil
}

// text is a log line's message with all fields if verbose, otherwise the reason alone, which is a sentence.
func (c *logCore) text(message string, keys []string, fields map[string]any) string {
	if !c.Enabled(zapcore.InfoLevel) {
		if why, ok := fields["reason"]; ok && why != "" {
			return fmt.Sprint(why)
		}
		return message
	}
	var b strings.Builder
	b.WriteString(message)
	for _, key := range keys {
		if key != "device" && key != "cloud" {
			fmt.Fprintf(&b, " %s=%v", key, fields[key])
		}
	}
	return b.String()
}

// Sync implements zapcore.Core.
func (*logCore) Sync() error { return nil }
