package failure

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	label    = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	sentence = regexp.MustCompile(`^[a-z][^\n]*[^.,:; \n]$`)
)

// Every kind has every column.
func TestTable(t *testing.T) {
	delays := []Delay{DelayBackoff, DelayLater, DelaySlow, DelayNone}
	said := make(map[string]Kind)
	for _, k := range Kinds() {
		i := k.Info()
		if !label.MatchString(string(k)) {
			t.Errorf("%q is not a metric label's value", k)
		}
		if !slices.Contains(Classes(), i.Class) {
			t.Errorf("%s: class %q", k, i.Class)
		}
		if !slices.Contains(delays, i.Delay) {
			t.Errorf("%s: delay %q", k, i.Delay)
		}
		if i.Alarm && i.Delay != DelaySlow {
			t.Errorf("%s: an alarm, and yet the delay %s", k, i.Delay)
		}
		for _, s := range append([]string{i.Says, i.Remedy}, i.Causes...) {
			if !sentence.MatchString(s) {
				t.Errorf("%s: %q", k, s)
			}
		}
		if len(i.Causes) == 0 {
			t.Errorf("%s has no causes", k)
		}
		if other, ok := said[i.Says]; ok {
			t.Errorf("%s and %s say the same", k, other)
		}
		said[i.Says] = k
	}
}

// Every constant of type Kind is in the table, and nothing else.
func TestEveryKindIsInTheTable(t *testing.T) {
	declared := make(map[Kind]bool)
	for _, name := range []string{"network", "proxy", "tls", "upgrade", "mqtt", "gateway"} {
		file, err := parser.ParseFile(token.NewFileSet(), name+".go", nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			typ, ok := spec.Type.(*ast.Ident)
			if !ok || typ.Name != "Kind" {
				return true
			}
			s, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			if declared[Kind(s)] {
				t.Errorf("%s is declared twice", s)
			}
			declared[Kind(s)] = true
			return true
		})
	}
	if len(declared) < 50 {
		t.Fatalf("found %d kinds only", len(declared))
	}
	for k := range declared {
		if _, ok := table[k]; !ok {
			t.Errorf("%s is not in the table", k)
		}
	}
	if len(Kinds()) != len(declared) {
		t.Errorf("%d kinds in the table, %d declared", len(Kinds()), len(declared))
	}
}

func TestUnknownKind(t *testing.T) {
	if got := Kind("new").Info().Says; got != Other.Info().Says {
		t.Errorf("a kind that does not exist says %q", got)
	}
}

func TestConnack(t *testing.T) {
	for code, want := range map[byte]Kind{
		0: ConnackUnknown, 1: ConnackVersion, 2: ConnackIdentifier, 3: ConnackUnavailable, 4: ConnackPassword,
		5: ConnackNotAuthorized, 6: ConnackUnknown, 0x87: ConnackUnknown,
	} {
		if got := Connack(code); got != want {
			t.Errorf("%d: %s, want %s", code, got, want)
		}
		if want != ConnackUnknown && want != Kind("connack_"+strconv.Itoa(int(code))) {
			t.Errorf("%d is called %s", code, want)
		}
	}
}

func TestHTTPStatus(t *testing.T) {
	for status, want := range map[int]Kind{
		200: NotWebSocket, 204: NotWebSocket, 301: HTTPRedirect, 302: HTTPRedirect, 400: HTTPOther, 401: HTTP401,
		403: HTTP403, 404: HTTP404, 407: HTTPOther, 426: HTTPOther, 429: HTTP429, 500: HTTP5xx, 502: HTTP5xx, 503: HTTP503,
		504: HTTP5xx, 599: HTTP5xx, 600: HTTPOther, 100: HTTPOther, 0: HTTPOther,
	} {
		if got := HTTPStatus(status); got != want {
			t.Errorf("%d: %s, want %s", status, got, want)
		}
	}
}

func TestFailure(t *testing.T) {
	says := Refused.Info().Says
	cases := []struct {
		f            *Failure
		text, reason string
	}{
		{New(Refused, StageTCP, nil, ""), says, says},
		{New(Refused, StageTCP, nil, "100% of %d"), says + ": 100% of %d", says + ": 100% of %d"},
		{New(Refused, StageTCP, nil, "%d tried", 2), says + ": 2 tried", says + ": 2 tried"},
		{New(Refused, StageTCP, io.EOF, "here"), says + ": here: EOF", says + ": here"},
		{New(Refused, StageTCP, io.EOF, ""), says + ": EOF", says},
		{New(Refused, StageTCP, fmt.Errorf("two\nlines: %w", io.EOF), ""), says + ": two lines: EOF", says},
		{New(Refused, StageTCP, fmt.Errorf("%s%w", strings.Repeat("x", 400), io.EOF), ""),
			says + ": " + strings.Repeat("x", 400) + "...", says},
	}
	for _, tc := range cases {
		if got := tc.f.Error(); got != tc.text {
			t.Errorf("Error: %q, want %q", got, tc.text)
		}
		if got := tc.f.Reason(); got != tc.reason {
			t.Errorf("Reason: %q, want %q", got, tc.reason)
		}
		if errors.Is(tc.f, io.EOF) != (tc.f.Err != nil) {
			t.Errorf("%v is EOF: %t", tc.f, errors.Is(tc.f, io.EOF))
		}
	}
	if f := New(HTTP429, StageUpgrade, nil, ""); f.Class() != ClassThrottled || f.Info().Delay != DelayLater {
		t.Errorf("class %s, delay %s", f.Class(), f.Info().Delay)
	}
}

func TestStages(t *testing.T) {
	seen := make(map[Stage]bool)
	for _, s := range Stages() {
		if !label.MatchString(string(s)) || seen[s] {
			t.Errorf("stage %q", s)
		}
		seen[s] = true
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "plain", "  two\r\n lines\x00\x1b[31m ", "\xff\xfe", strings.Repeat("ab ", 1000), "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if n := utf8.RuneCountInString(got); n > 2*maxClean+3 || !utf8.ValidString(got) {
			t.Fatalf("%q became %q, of %d runes", s, got, n)
		}
		if strings.TrimSpace(got) != got || strings.ContainsAny(got, "\r\n\x00\x1b") || strings.Contains(got, "  ") {
			t.Fatalf("%q became %q", s, got)
		}
		if again := Clean(got); len(got) < maxClean && again != got {
			t.Fatalf("%q, cleaned again, is %q", got, again)
		}
	})
}

func TestClean(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", ""},
		{" a\r\n\tb ", "a b"},
		{"\x1b[31mred", "[31mred"},
		{"caf\u00e9", "caf\u00e9"},
		{"a\u200bb\xff", "a?b?"},
		{strings.Repeat("x", 121), strings.Repeat("x", 120) + "..."},
		{strings.Repeat("x", 120), strings.Repeat("x", 120)},
	} {
		if got := Clean(tc.in); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.in, got, tc.want)
		}
	}
}
