package boltstore

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// event is something that a process did to a directory, or said.
type event struct {
	kind   eventKind
	file   int    // for all but directory changes, sync of the directory and ack
	call   string // of a sync
	data   []byte // of a write
	off    int64  // of a write, or the length of a truncation
	name   string // of a directory entry, for rename the old one
	to     string // for rename
	ack    int
	failed bool // a sync that failed
}

type eventKind int

const (
	evWrite eventKind = iota
	evTruncate
	evSync
	evSyncDir
	evCreate
	evRename
	evRemove
	evAck
)

// tracer turns what strace printed into events.
type tracer struct {
	dir      string
	fds      map[string]int // file by descriptor; the directory is file -1
	names    map[string]int // file by name
	files    int
	pending  map[string]string // system calls that are not finished, by thread
	events   []event
	injected int
}

func newTracer(dir string) *tracer {
	return &tracer{dir: dir, names: make(map[string]int)}
}

// acked returns the last batch that was acknowledged.
func (tr *tracer) acked() (n int) {
	for _, e := range tr.events {
		n = max(n, e.ack)
	}
	return n
}

// run runs a child under strace, which goes on behind what was acknowledged, up to a batch. It returns the child's end.
func (tr *tracer) run(t *testing.T, seed, batches int, inject ...string) error {
	t.Helper()
	tr.fds, tr.pending = make(map[string]int), make(map[string]string)
	out := filepath.Join(tempDir(t), "trace")
	by := []string{
		"strace", "-f", "-xx", "-s", "1000000", "-o", out,
		"-e", "trace=openat,close,write,pwrite64,ftruncate,fallocate,fsync,fdatasync,sync_file_range,rename,renameat," +
			"renameat2,link,linkat,unlink,unlinkat,mkdirat,dup,dup2,dup3,fcntl,msync,writev,pwritev,pwritev2",
		"-e", "signal=none",
	}
	for _, i := range inject {
		by = append(by, "-e", "inject="+i)
	}
	cmd := childCommand(t, "script", by, tr.dir, strconv.Itoa(seed), strconv.Itoa(tr.acked()), strconv.Itoa(batches))
	end := cmd.Run()
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		if err := tr.line(lines.Text()); err != nil {
			t.Fatalf("%v in %.200q", err, lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return end
}

func (tr *tracer) line(line string) error {
	thread, text, _ := strings.Cut(line, " ")
	text = strings.TrimLeft(text, " ")
	if head, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
		tr.pending[thread] = head
		return nil
	}
	if strings.HasPrefix(text, "<... ") {
		_, rest, _ := strings.Cut(text, " resumed>")
		text = tr.pending[thread] + rest
		delete(tr.pending, thread)
	}
	if strings.HasPrefix(text, "+++") || strings.HasPrefix(text, "---") {
		return nil
	}
	name, rest, ok := strings.Cut(text, "(")
	end := strings.LastIndex(rest, "= ")
	if !ok || end < 0 {
		return fmt.Errorf("unknown call")
	}
	if strings.Contains(rest[end:], "(INJECTED)") {
		tr.injected++
	}
	value, _, _ := strings.Cut(rest[end+2:], " ")
	if value == "?" {
		return nil // the process ended
	}
	result, err := strconv.ParseInt(value, 0, 64)
	if err != nil {
		return err
	}
	args := strings.Split(strings.TrimSuffix(strings.TrimRight(rest[:end], " "), ")"), ", ")
	return tr.call(name, args, int(result))
}

// path decodes a quoted argument and returns the name in the directory, or false if it is elsewhere.
func (tr *tracer) path(arg string) (string, bool) {
	name, err := decode(arg)
	if err != nil {
		return "", false
	}
	if string(name) == tr.dir {
		return ".", true
	}
	return strings.CutPrefix(string(name), tr.dir+"/")
}

func decode(arg string) ([]byte, error) {
	return hex.DecodeString(strings.ReplaceAll(strings.Trim(arg, `"`), `\x`, ""))
}

func (tr *tracer) call(name string, args []string, result int) error {
	if result < 0 && name != "fsync" && name != "fdatasync" {
		return nil
	}
	file, known := tr.fds[args[0]]
	switch name {
	case "openat":
		tr.open(args, result)
	case "close":
		delete(tr.fds, args[0])
	case "write":
		return tr.write(args, known)
	case "pwrite64":
		if !known {
			return nil
		}
		data, err := decode(args[1])
		if err != nil {
			return err
		}
		off, err := strconv.ParseInt(args[3], 10, 64)
		if err != nil {
			return err
		}
		tr.events = append(tr.events, event{kind: evWrite, file: file, data: data[:result], off: off})
	case "ftruncate":
		size, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return err
		}
		if known {
			tr.events = append(tr.events, event{kind: evTruncate, file: file, off: size})
		}
	case "fsync", "fdatasync":
		kind := evSync
		if file < 0 {
			kind = evSyncDir
		}
		if known {
			tr.events = append(tr.events, event{kind: kind, file: file, call: name, failed: result < 0})
		}
	case "renameat", "renameat2":
		return tr.rename(args)
	case "unlinkat":
		if at, ok := tr.path(args[1]); ok {
			delete(tr.names, at)
			tr.events = append(tr.events, event{kind: evRemove, name: at})
		}
	case "fcntl":
		if known && strings.Contains(args[1], "DUPFD") {
			return fmt.Errorf("a descriptor is copied")
		}
	default:
		if known {
			return fmt.Errorf("not expected")
		}
	}
	return nil
}

func (tr *tracer) open(args []string, fd int) {
	name, ok := tr.path(args[1])
	switch {
	case !ok:
		return
	case name == ".":
		tr.fds[strconv.Itoa(fd)] = -1
		return
	}
	file, exists := tr.names[name]
	if !exists {
		tr.files++
		file = tr.files
		tr.names[name] = file
		tr.events = append(tr.events, event{kind: evCreate, file: file, name: name})
	}
	tr.fds[strconv.Itoa(fd)] = file
}

func (tr *tracer) write(args []string, known bool) error {
	if known {
		return fmt.Errorf("a write without a place")
	}
	data, err := decode(args[1])
	if n, ok := bytes.CutPrefix(bytes.TrimSpace(data), []byte("ack ")); ok && args[0] == "1" && err == nil {
		ack, err := strconv.Atoi(string(n))
		tr.events = append(tr.events, event{kind: evAck, ack: ack})
		return err
	}
	return err
}

func (tr *tracer) rename(args []string) error {
	from, ok1 := tr.path(args[1])
	to, ok2 := tr.path(args[3])
	if !ok1 || !ok2 {
		return fmt.Errorf("renamed from or to elsewhere")
	}
	tr.names[to] = tr.names[from]
	delete(tr.names, from)
	tr.events = append(tr.events, event{kind: evRename, name: from, to: to})
	return nil
}
