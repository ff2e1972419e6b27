package mqtt

import (
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestValidTopic(t *testing.T) {
	tests := []struct {
		topic string
		want  bool
	}{
		{"a", true},
		{"/", true}, // 4.7.3: a topic of one slash is valid
		{"//", true},
		{"/finance", true},
		{"sport/tennis/player1", true},
		{"ACCOUNTS payable", true}, // spaces are allowed
		{"$SYS/broker", true},
		{"a$b", true},
		{"ж/日本/\U0001F600", true},
		{"\ufeffa", true},      // 1.5.3: a BOM is a character like any other
		{"line\nbreak", false}, // 1.5.3-2 lets a receiver close the connection over control characters
		{"\x7f", false},
		{"a\u009fb", false},
		{"a\u00a0b", true},
		{"\ufdd0", false}, // a noncharacter
		{"\ufdf0", true},
		{"\uffff", false},
		{"\ufffd", true},
		{"\U0010fffe", false},
		{strings.Repeat("x", 65535), true},
		{strings.Repeat("x", 65536), false},
		{"", false},
		{"a/+", false},
		{"a/#", false},
		{"a+b", false},
		{"a#", false},
		{"a\x00b", false},
		{"a\xffb", false},
		{"\xed\xa0\x80", false}, // U+D800, a surrogate
	}
	for _, tt := range tests {
		if got := ValidTopic(tt.topic); got != tt.want {
			t.Errorf("ValidTopic(%.20q) = %v, want %v", tt.topic, got, tt.want)
		}
	}
}

func TestValidFilter(t *testing.T) {
	tests := []struct {
		filter string
		want   bool
	}{
		// The examples of 4.7.1.2 and 4.7.1.3.
		{"sport/tennis/player1/#", true},
		{"sport/#", true},
		{"#", true},
		{"sport/tennis/#", true},
		{"sport/tennis#", false},
		{"sport/tennis/#/ranking", false},
		{"sport/tennis/+", true},
		{"+", true},
		{"+/tennis/#", true},
		{"sport+", false},
		{"sport/+/player1", true},
		{"/+", true},
		{"+/+", true},
		// Others.
		{"", false},
		{"/", true},
		{"//", true},
		{"+/", true},
		{"/#", true},
		{"#/", false},
		{"##", false},
		{"++", false},
		{"+#", false},
		{"+/#/", false},
		{"a/+b/c", false},
		{"a/b+/c", false},
		{"#a", false},
		{"$SYS/#", true},
		{"a\x00", false},
		{"a/\xc3", false},
		{strings.Repeat("+/", 32767) + "#", true},
		{strings.Repeat("+/", 32768), false},
	}
	for _, tt := range tests {
		if got := ValidFilter(tt.filter); got != tt.want {
			t.Errorf("ValidFilter(%.40q) = %v, want %v", tt.filter, got, tt.want)
		}
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		filter, topic string
		want          bool
	}{
		// 4.7.1.2
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/tennis/player1/#", "sport/tennis/player10", false},
		{"sport/#", "sport", true},
		{"#", "sport/tennis", true},
		{"#", "/", true},
		// 4.7.1.3
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player2", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		// 4.7.2
		{"#", "$SYS/monitor/Clients", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/monitor/Clients", true},
		{"$SYS/#", "$SYS", true},
		{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
		{"+/#", "$SYS", false},
		{"a/+", "a/$b", true}, // "$" is special in the first level only
		{"a/#", "a/$b", true},
		{"#", "a$", true},
		// 4.7.3
		{"accounts", "Accounts", false},
		{"a", "/a", false},
		{"/a", "a", false},
		{"a/", "a", false},
		{"a", "a/", false},
		{"a/b", "a", false},
		{"a", "a/b", false},
		// Empty levels.
		{"a//b", "a//b", true},
		{"a/+/b", "a//b", true},
		{"a/+/+", "a/", false},
		{"+/#", "a", true},
		{"+/#", "/", true},
		{"+/+/#", "a", false},
		{"/#", "/", true},
		{"/#", "a", false},
	}
	for _, tt := range tests {
		if got := Match(tt.filter, tt.topic); got != tt.want {
			t.Errorf("Match(%q, %q) = %v, want %v", tt.filter, tt.topic, got, tt.want)
		}
	}
}

// naiveMatch follows the standard's text, level by level.
func naiveMatch(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	var match func(f, t []string) bool
	match = func(f, t []string) bool {
		switch {
		case len(f) == 0:
			return len(t) == 0
		case f[0] == "#":
			return true // this level and all below, and the level above
		case len(t) == 0:
			return false
		default:
			return (f[0] == "+" || f[0] == t[0]) && match(f[1:], t[1:])
		}
	}
	return match(f, t)
}

var filterGrammar = regexp.MustCompile(`(?s)^(#|(\+|[^+#/]*)(/(\+|[^+#/]*))*(/#)?)$`)

func naiveValidFilter(s string) bool {
	return s != "" && len(s) <= 65535 && utf8.ValidString(s) && filterGrammar.MatchString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return unicode.IsControl(r) || unicode.Is(unicode.Noncharacter_Code_Point, r)
		})
}

// words returns every string of at most n letters of an alphabet.
func words(alphabet string, n int) []string {
	all := []string{""}
	for from := 0; n > 0; n-- {
		to := len(all)
		for _, w := range all[from:to] {
			for _, c := range alphabet {
				all = append(all, w+string(c))
			}
		}
		from = to
	}
	return all
}

// TestMatchExhaustively compares with naiveMatch and the grammar for every short filter and topic.
func TestMatchExhaustively(t *testing.T) {
	var topics []string
	for _, w := range words("ab/$+", 4) {
		if got, want := ValidTopic(w), w != "" && !strings.Contains(w, "+"); got != want {
			t.Fatalf("ValidTopic(%q) = %v", w, got)
		} else if got {
			topics = append(topics, w)
		}
	}
	matches := 0
	for _, f := range words("a/+#$", 4) {
		if got, want := ValidFilter(f), naiveValidFilter(f); got != want {
			t.Fatalf("ValidFilter(%q) = %v, the grammar says %v", f, got, want)
		} else if !got {
			continue
		}
		for _, topic := range topics {
			got, want := Match(f, topic), naiveMatch(f, topic)
			if got != want {
				t.Fatalf("Match(%q, %q) = %v, want %v", f, topic, got, want)
			}
			if got {
				matches++
			}
		}
	}
	if matches < 1000 {
		t.Errorf("only %d pairs matched: the test says little", matches)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("sport/+/player1", "sport/tennis/player1")
	f.Add("+/#", "$SYS/a")
	f.Add("/+//#", "///")
	f.Fuzz(func(t *testing.T, filter, topic string) {
		for range 2 {
			if got, want := ValidFilter(filter), naiveValidFilter(filter); got != want {
				t.Fatalf("ValidFilter(%q) = %v, the grammar says %v", filter, got, want)
			}
			if ValidTopic(topic) && !ValidFilter(topic) {
				t.Fatalf("%q may be published to, but not subscribed to", topic)
			}
			if ValidFilter(filter) && ValidTopic(topic) {
				if got, want := Match(filter, topic), naiveMatch(filter, topic); got != want {
					t.Fatalf("Match(%q, %q) = %v, want %v", filter, topic, got, want)
				}
				if !Match(topic, topic) {
					t.Fatalf("%q does not match itself", topic)
				}
			}
			// Once more in few letters, which meet more often.
			filter, topic = spell(filter, "a/+#$"), spell(topic, "ab/$")
		}
	})
}

func spell(s, alphabet string) string {
	b := []byte(s)
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return string(b)
}

func TestReceivable(t *testing.T) {
	for topic, want := range map[string]bool{
		"a/b": true, "line\nbreak": true, "\uffff": true, "/": true,
		"": false, "a\x00": false, "a/+": false, "#": false, "\xff": false,
	} {
		if got := Receivable(topic); got != want {
			t.Errorf("Receivable(%q) = %v, want %v", topic, got, want)
		}
	}
}

func TestLevels(t *testing.T) {
	for topic, want := range map[string]int{
		"a": 1, "a/b": 2, "/a": 1, "/a/b": 2, "/": 1, "a/": 2, "//a": 2, "/a1b2/dev/user/get": 4,
	} {
		if got := Levels(topic); got != want {
			t.Errorf("Levels(%q) = %d, want %d", topic, got, want)
		}
	}
}

func TestMessageSize(t *testing.T) {
	empty := Message{}
	m := Message{Topic: "12345", Payload: make([]byte, 1000)}
	if got := m.Size() - empty.Size(); got != 1005 {
		t.Errorf("5 bytes of topic and 1000 of payload add %d", got)
	}
	if empty.Size() <= 0 {
		t.Error("an empty message costs nothing: a queue of such would have no bound in bytes")
	}
}
