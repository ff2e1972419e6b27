package cli

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// isJournal says whether w is the systemd journal's stream. The journal names it by device and inode, so that a
// process whose standard error was redirected does not take it for the journal (systemd.exec(5), JOURNAL_STREAM).
func isJournal(w io.Writer, env LookupEnv) bool {
	f, ok := w.(*os.File)
	name, set := env("JOURNAL_STREAM")
	if !ok || !set {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && name == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// prioritised begins each line with its priority, which the journal takes from there (sd-daemon(3)).
type prioritised struct{ zapcore.Encoder }

// Clone implements zapcore.Encoder.
func (p prioritised) Clone() zapcore.Encoder { return prioritised{p.Encoder.Clone()} }

// EncodeEntry implements zapcore.Encoder.
func (p prioritised) EncodeEntry(e zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	line, err := p.Encoder.EncodeEntry(e, fields)
	if err != nil {
		return nil, err
	}
	defer line.Free()
	out := lines.Get()
	fmt.Fprintf(out, "<%d>", priority(e.Level))
	_, err = out.Write(line.Bytes())
	return out, err
}

var lines = buffer.NewPool()

// priority is a level as syslog has it.
func priority(l zapcore.Level) int {
	switch {
	case l >= zapcore.DPanicLevel:
		return 2
	case l >= zapcore.ErrorLevel:
		return 3
	case l >= zapcore.WarnLevel:
		return 4
	case l >= zapcore.InfoLevel:
		return 6
	}
	return 7
}
