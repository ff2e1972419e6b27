package failure

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Stage is how far an attempt had come, or that it was online.
type Stage string

// The stages, in the order in which an attempt goes through them. Not every attempt has all of them.
const (
	StageConfig    Stage = "config"    // credentials, files, settings
	StageClock     Stage = "clock"     // whether the time can be right
	StageDNS       Stage = "dns"       // resolving the cloud's name
	StageProxy     Stage = "proxy"     // reaching the proxy, and being let through
	StageTCP       Stage = "tcp"       // connecting to the cloud itself
	StageTLS       Stage = "tls"       // the TLS handshake with the cloud
	StageUpgrade   Stage = "upgrade"   // the WebSocket handshake
	StageConnect   Stage = "connect"   // CONNECT was sent, CONNACK is awaited
	StageSubscribe Stage = "subscribe" // bringing subscriptions in line
	StageOnline    Stage = "online"
)

// Stages lists all stages in their order.
func Stages() []Stage {
	return []Stage{
		StageConfig, StageClock, StageDNS, StageProxy, StageTCP, StageTLS, StageUpgrade, StageConnect, StageSubscribe,
		StageOnline,
	}
}

// Failure is why an attempt failed or a session ended.
type Failure struct {
	Kind  Kind
	Stage Stage
	// Detail says what in particular, without what the kind's sentence and Err say. It may be empty.
	Detail string
	// RetryAfter is how long the other side asked to wait, 0 if it did not.
	RetryAfter time.Duration
	// Err is the cause, nil if there is none beyond Detail.
	Err error
}

// New makes a failure. The detail is a format if there are arguments, and empty for none. What err says is made fit for
// one line, since errors quote what the other side said.
func New(kind Kind, stage Stage, err error, detail string, args ...any) *Failure {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	if err != nil {
		if said := err.Error(); clean(said, maxError) != said {
			err = &quoted{says: clean(said, maxError), err: err}
		}
	}
	return &Failure{Kind: kind, Stage: stage, Detail: detail, Err: err}
}

// quoted is an error whose text is cleaned.
type quoted struct {
	says string
	err  error
}

func (q *quoted) Error() string { return q.says }
func (q *quoted) Unwrap() error { return q.err }

// Error is the kind's sentence, the detail and the cause.
func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Reason()
	}
	return f.Reason() + ": " + f.Err.Error()
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Reason is the kind's sentence and the detail. It stays the same while the cause of a failure does, as far as that
// is possible: no port numbers, no times of day.
func (f *Failure) Reason() string {
	says := f.Kind.Info().Says
	if f.Detail == "" {
		return says
	}
	return says + ": " + f.Detail
}

// Info is what the table says about the failure's kind.
func (f *Failure) Info() Info { return f.Kind.Info() }

// Class is the class of the failure's kind.
func (f *Failure) Class() Class { return f.Kind.Info().Class }

// Bounds in runes, of what Clean lets through, and of an error's text.
const (
	maxClean = 120
	maxError = 400
)

// Clean makes text from the other side fit for a Detail: one line, printable, short.
func Clean(s string) string { return clean(s, maxClean) }

func clean(s string, limit int) string {
	var b strings.Builder
	space, n := false, 0
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		s = s[size:]
		switch {
		case unicode.IsSpace(r) || unicode.IsControl(r):
			space = b.Len() > 0
			continue
		case r == utf8.RuneError && size == 1, !unicode.IsPrint(r):
			r = '?'
		}
		if n++; n > limit {
			return b.String() + "..."
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}
