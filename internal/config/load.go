package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.uber.org/zap/zapcore"
	"gopkg.in/yaml.v3"
)

// Env is the world around the files: environment variables, which also tell where systemd put its credentials. The zero
// value is the process's own.
type Env struct {
	// LookupEnv is os.LookupEnv if nil.
	LookupEnv func(name string) (value string, ok bool)

	disk disk
}

// Load reads the configuration file and everything it refers to. If something is wrong with the content, the error is a
// Faults that lists all of it; if the file itself cannot be read, an error that wraps the cause.
func Load(path string, env Env) (*Config, error) {
	if env.LookupEnv == nil {
		env.LookupEnv = os.LookupEnv
	}
	if env.disk == nil {
		env.disk = osDisk{}
	}
	data, mode, err := env.disk.read(path, maxConfigFile)
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, cause(err))
	}
	return parse(path, data, mode, env)
}

// StateDir reads only the state directory from a configuration file: for who wants to speak to the bridged that runs
// with it, and may not be able to read what else it refers to. Faults elsewhere do not matter.
func StateDir(path string) (string, error) {
	disk := osDisk{}
	data, _, err := disk.read(path, maxConfigFile)
	if err != nil {
		return "", fmt.Errorf("read configuration %s: %w", path, cause(err))
	}
	r := &resolver{report: &report{files: []string{path}}, disk: disk, cfg: &Config{File: path}}
	d := &decoder{report: r.report, file: path}
	r.keys.mark = mark{place: place{file: path, line: 1, col: 1}, given: true}
	n := d.document(data)
	if len(r.faults) > 0 {
		return "", Faults(r.faults)
	}
	if n != nil {
		d.value(reflect.ValueOf(&r.keys).Elem(), n, r.keys.place, "")
	}
	r.faults = nil
	applyDefaults(reflect.ValueOf(&r.keys).Elem())
	r.stateDir()
	if len(r.faults) > 0 {
		return "", Faults(r.faults)
	}
	return r.cfg.StateDir, nil
}

// parse is Load for a file's content.
func parse(path string, data []byte, mode fs.FileMode, env Env) (*Config, error) {
	r := &resolver{report: &report{files: []string{path}}, env: env, disk: env.disk, cfg: &Config{File: path}}
	d := &decoder{report: r.report, file: path}
	r.keys.mark = mark{place: place{file: path, line: 1, col: 1}, given: true}
	if n := d.document(data); n != nil {
		d.value(reflect.ValueOf(&r.keys).Elem(), n, r.keys.place, "")
	}
	applyDefaults(reflect.ValueOf(&r.keys).Elem())
	if f := private(path, mode); f != nil && d.inlineSecrets {
		r.warn(r.keys.place, f.what, f.remedy)
	}
	r.resolve()
	r.sort(r.faults)
	r.sort(r.warnings)
	if len(r.faults) > 0 {
		return nil, Faults(r.faults)
	}
	r.cfg.Warnings = r.warnings
	return r.cfg, nil
}

// document parses a file with one YAML document and returns its root, nil if there is none; faults are reported.
func (d *decoder) document(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		d.syntax(data, err)
		return nil
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		at := place{d.file, max(more.Line, 1), max(more.Column, 1), ""}
		d.fault(at, "holds a second YAML document", `remove the "---" before it`)
	case !errors.Is(err, io.EOF):
		d.syntax(data, err)
	}
	return doc.Content[0]
}

var (
	syntaxError   = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(.*)$`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntax reports what the YAML parser found. It names the line only, if anything.
func (d *decoder) syntax(data []byte, err error) {
	at, what := place{d.file, 1, 1, ""}, err.Error()
	if m := syntaxError.FindStringSubmatch(what); m != nil {
		what = m[2]
		if line, err := strconv.Atoi(m[1]); err == nil {
			at.line = max(line, 1)
		}
	}
	remedy := "look at this line and the one before it: indentation, quotes, a space after each colon"
	anchor := unknownAnchor.FindStringSubmatch(what)
	switch {
	case anchor != nil:
		at.line, at.col = positionOf(data, "*"+anchor[1])
		// The anchor's name may be a password that begins with "*": it is not shown.
		what, remedy = "a value begins with * but refers to nothing", "put it in quotes"
	case strings.Contains(what, "cannot start any token"):
		remedy = "indent with spaces, never with tabs, and put values that begin with @ or ` in quotes"
	}
	d.fault(at, "this is not YAML: "+what, remedy)
}

// positionOf is the line and column where a word begins for the first time, 1 and 1 if it is not there.
func positionOf(data []byte, word string) (line, col int) {
	before, _, found := strings.Cut(string(data), word)
	if !found {
		return 1, 1
	}
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[strings.LastIndex(before, "\n")+1:])
}

// resolver turns keys into a Config.
type resolver struct {
	*report
	env    Env
	disk   disk
	keys   fileKeys
	clouds map[string]*cloud
	cfg    *Config
}

// resolve builds the whole configuration. It goes on after faults, to find them all.
func (r *resolver) resolve() {
	k := &r.keys
	r.resolveListeners()
	r.stateDir()
	r.cfg.ShutdownTimeout = k.ShutdownTimeout.value
	// The words of oneof are those that zap knows.
	level, err := zapcore.ParseLevel(k.Log.Level.value)
	if err != nil {
		level = zapcore.InfoLevel
	}
	r.cfg.Log = Log{Level: level, JSON: k.Log.Format.value == "json"}
	r.resolveAdmin()
	r.resolveLimits()
	r.resolveClouds()
	r.resolveDevices()
}

func (r *resolver) stateDir() {
	k := &r.keys.StateDir
	r.cfg.StateDir = k.path()
	if r.cfg.StateDir == "" && !k.bad {
		r.fault(k.place, "is empty", "write a directory, or remove the key to use /var/lib/bridged")
	}
}

func (r *resolver) resolveLimits() {
	k := &r.keys.Limits
	r.cfg.Limits = Limits{
		MaxConnections: k.MaxConnections.value,
		ConnectTimeout: k.ConnectTimeout.value,
		MaxPacketSize:  k.MaxPacketSize.value,
		Memory:         k.Memory.value,
		Disk:           k.Disk.value,
		DialsPerSecond: k.DialsPerSecond.value,
		DialsAtOnce:    k.DialsAtOnce.value,
	}
	if !k.Memory.bad && !k.MaxPacketSize.bad && k.Memory.value < k.MaxPacketSize.value {
		at := k.Memory.place
		if !k.Memory.given {
			at = k.MaxPacketSize.place
		}
		r.fault(at, fmt.Sprintf("limits.memory (%s) does not hold a single message of limits.max_packet_size (%s)",
			formatSize(k.Memory.value), formatSize(k.MaxPacketSize.value)), "make limits.memory larger")
	}
}

// formatSize writes a size as the configuration does.
func formatSize(n int64) string {
	for _, unit := range []string{"GiB", "MiB", "KiB"} {
		if shift := sizeShift[unit]; n != 0 && n%(1<<shift) == 0 {
			return strconv.FormatInt(n>>shift, 10) + unit
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// queue builds a queue's bounds from keys that are merged and have their defaults.
func (r *resolver) queue(k *queueKeys) Queue {
	if k.MaxBytes.given && !k.MaxBytes.bad && k.MaxBytes.value < r.cfg.Limits.MaxPacketSize {
		r.warn(k.MaxBytes.place, fmt.Sprintf("%s is less than a message may have (limits.max_packet_size %s): "+
			"the largest ones never find room", formatSize(k.MaxBytes.value), formatSize(r.cfg.Limits.MaxPacketSize)),
			"make one larger, or the other smaller")
	}
	return Queue{
		MaxMessages: k.MaxMessages.value,
		MaxBytes:    k.MaxBytes.value,
		MaxAge:      k.MaxAge.value,
		SpillAfter:  k.SpillAfter.value,
		Always:      k.Durability.value == "always",
		OnFull:      OnFull(k.OnFull.value),
		StoreQoS0:   k.QoS0.value == "store",
	}
}
