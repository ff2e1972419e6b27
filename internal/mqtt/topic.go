package mqtt

import (
	"strings"
	"unicode/utf8"
)

// maxTopic is the longest topic name or filter in bytes (MQTT 3.1.1, 1.5.3).
const maxTopic = 65535

// ValidTopic says whether s may be published to: not empty, no wildcards, and UTF-8 as it should be (MQTT 3.1.1,
// 4.7).
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

// validString refuses control characters and noncharacters too. The standard lets a receiver end the connection over
// them (MQTT 3.1.1, 1.5.3-2 and 1.5.3.1), and brokers do: passed on, they would end the session that carries them,
// again and again.
func validString(s string) bool {
	if s == "" || len(s) > maxTopic || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe {
			return false
		}
	}
	return true
}

// Receivable says whether a topic that a server sent can be made sense of. It is less strict than ValidTopic: what
// the server has let pass, the device may have as well.
func Receivable(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsAny(s, "+#\x00")
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
