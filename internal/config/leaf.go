package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"bridged/internal/credentials"
)

// mark is part of every key's value: where it stands and what became of it.
type mark struct {
	place
	// given says that the key is written, bad that its value is already reported as faulty: nothing else should be said
	// about it.
	given, bad bool
}

func (m *mark) state() *mark { return m }

// marked is anything with a mark.
type marked interface{ state() *mark }

// leaf is a value that is written as one scalar.
type leaf interface {
	marked
	// set takes the value from its text, or says what is wrong with it. Tags are those in keys.go.
	set(text string, tag reflect.StructTag) *flaw
}

// flaw is what is wrong with a value and what to write instead.
type flaw struct{ what, remedy string }

// text is a string, perhaps one of a few.
type text struct {
	mark
	value string
}

func (t *text) set(s string, tag reflect.StructTag) *flaw {
	t.value = s
	words := strings.Fields(tag.Get("oneof"))
	for _, w := range words {
		if s == w {
			return nil
		}
	}
	if len(words) == 0 {
		return nil
	}
	return &flaw{quote(s) + " is not known here", "write " + orList(words)}
}

// number is an integer.
type number struct {
	mark
	value int
}

var digits = regexp.MustCompile(`^-?[0-9]+$`)

func (n *number) set(s string, tag reflect.StructTag) *flaw {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil && !digits.MatchString(s) {
		return &flaw{quote(s) + " is not a number", rangeHint(tag, "for example 10")}
	}
	if err != nil || !inRange(v, tag, parseNumber) {
		return &flaw{quote(s) + " is out of range", rangeHint(tag, "")}
	}
	n.value = int(v)
	return nil
}

// boolean is true or false.
type boolean struct {
	mark
	value bool
}

func (f *boolean) set(s string, _ reflect.StructTag) *flaw {
	if s != "true" && s != "false" {
		return &flaw{quote(s) + " is neither true nor false", "write true or false"}
	}
	f.value = s == "true"
	return nil
}

// duration is a span of time, not negative.
type duration struct {
	mark
	value time.Duration
}

func (d *duration) set(s string, tag reflect.StructTag) *flaw {
	v, err := time.ParseDuration(s)
	switch {
	case digits.MatchString(s) && s != "0":
		return &flaw{quote(s) + " has no unit", "write for example " + s + "s"}
	case err != nil:
		return &flaw{quote(s) + " is not a duration", "write a number with a unit (ms, s, m, h), for example 30s or 1h30m"}
	case v < 0:
		return &flaw{quote(s) + " is negative", rangeHint(tag, "for example 30s")}
	case !inRange(int64(v), tag, parseDuration):
		return &flaw{quote(s) + " is out of range", rangeHint(tag, "")}
	}
	d.value = v
	return nil
}

// wholeSeconds returns the flaw of a duration with a fraction of a second, nil if it has none.
func (d *duration) wholeSeconds() *flaw {
	if d.value%time.Second == 0 {
		return nil
	}
	return &flaw{fmt.Sprintf("%s is not a whole number of seconds", d.value), "write for example 300s"}
}

// size is a number of bytes.
type size struct {
	mark
	value int64
}

func (z *size) set(s string, tag reflect.StructTag) *flaw {
	v, err := parseSize(s)
	if err != nil && !sizePattern.MatchString(s) {
		remedy := "write a number with B, KiB, MiB or GiB, for example 256KiB"
		if m := likeSize.FindStringSubmatch(s); m != nil {
			remedy = "write " + m[1] + strings.ToUpper(m[2]) + "iB"
		}
		return &flaw{quote(s) + " is not a size", remedy}
	}
	if err != nil || !inRange(v, tag, parseSize) {
		return &flaw{quote(s) + " is out of range", rangeHint(tag, "")}
	}
	z.value = v
	return nil
}

var (
	sizePattern = regexp.MustCompile(`^([0-9]+) ?(B|KiB|MiB|GiB)?$`)
	likeSize    = regexp.MustCompile(`^([0-9]+) ?([kKmMgG])[iI]?[bB]?$`)
	sizeShift   = map[string]uint{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30}
)

func parseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("size %q: want a number and a unit", s)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("size: %w", err)
	}
	shift := sizeShift[m[2]]
	if n > 1<<62>>shift {
		return 0, fmt.Errorf("size %q: too large", s)
	}
	return n << shift, nil
}

func parseNumber(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

func parseDuration(s string) (int64, error) {
	d, err := time.ParseDuration(s)
	return int64(d), err
}

// rate is so many in a span of time, as in 5/1m.
type rate struct {
	mark
	value credentials.Rate
}

func (r *rate) set(s string, _ reflect.StructTag) *flaw {
	if s == "0" {
		r.value = credentials.Rate{}
		return nil
	}
	count, per, _ := strings.Cut(s, "/")
	n, err1 := strconv.ParseUint(count, 10, 31)
	d, err2 := time.ParseDuration(per)
	if err1 != nil || err2 != nil || n == 0 || d <= 0 {
		return &flaw{quote(s) + " is not a rate",
			"write a number, a slash and a duration, for example 5/1m, or 0 for no limit"}
	}
	r.value = credentials.Rate{Count: int(n), Per: d}
	return nil
}

// inRange checks a value against the min and max tags, which parse reads.
func inRange(v int64, tag reflect.StructTag, parse func(string) (int64, error)) bool {
	if low, err := parse(tag.Get("min")); err == nil && v < low {
		return false
	}
	high, err := parse(tag.Get("max"))
	return err != nil || v <= high
}

func rangeHint(tag reflect.StructTag, otherwise string) string {
	low, high := tag.Get("min"), tag.Get("max")
	switch {
	case low != "" && high != "":
		return "write " + low + " to " + high
	case low != "":
		return "write " + low + " or more"
	case high != "":
		return "write at most " + high
	case otherwise != "":
		return "write " + otherwise
	}
	return ""
}
