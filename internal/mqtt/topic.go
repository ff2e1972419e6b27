package mqtt

import (
	"strings"
	"unicode/utf8"
)

// maxTopic is the longest topic name or filter in bytes (MQTT 3.1.1, 1.5.3).
const maxTopic = 65535

// ValidTopic says whether s may be published to: not empty, no wildcards, no NUL, valid UTF-8 (MQTT 3.1.1, 4.7).
func ValidTopic(s string) bool {
	return validString(s) && !strings.ContainsAny(s, "+#")
}

// ValidFilter says whether s may be subscribed to (MQTT 3.1.1, 4.7.1): "+" fills a whole level, "#" the last one.
func ValidFilter(s string) bool {
	if !validString(s) {
		return false
	}
	for rest := s; ; {
		level, tail, more := strings.Cut(rest, "/")
		if strings.ContainsAny(level, "+#") && len(level) > 1 {
			return false
		}
		if level == "#" && more {
			return false
		}
		if !more {
			return true
		}
		rest = tail
	}
}

func validString(s string) bool {
	return s != "" && len(s) <= maxTopic && strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

// Match says whether a valid filter matches a valid topic. A wildcard in the first level does not match a topic that
// begins with "$" (MQTT 3.1.1, 4.7.2).
func Match(filter, topic string) bool {
	if topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		fl, frest, fmore := strings.Cut(filter, "/")
		if fl == "#" {
			return true
		}
		tl, trest, tmore := strings.Cut(topic, "/")
		if fl != "+" && fl != tl {
			return false
		}
		switch {
		case !fmore && !tmore:
			return true
		case fmore && !tmore:
			return frest == "#" // "a/#" matches "a" too (4.7.1.2)
		case !fmore:
			return false
		}
		filter, topic = frest, trest
	}
}

// Levels counts the levels of a topic or filter as the clouds do, which leave the empty one before a leading slash out.
func Levels(s string) int {
	return strings.Count(strings.TrimPrefix(s, "/"), "/") + 1
}
