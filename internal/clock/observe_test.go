package clock

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestObserveRefuses(t *testing.T) {
	valid := Sample{Source: "a", Trust: Authentic, Date: today, RoundTrip: time.Second,
		NotBefore: today.Add(-time.Hour), NotAfter: today.Add(time.Hour)}
	tests := []struct {
		name   string
		change func(*Sample)
		want   string // empty: it is taken
	}{
		{"valid", func(*Sample) {}, ""},
		{"without certificates", func(s *Sample) { s.NotBefore, s.NotAfter = time.Time{}, time.Time{} }, ""},
		{"slow", func(s *Sample) { s.RoundTrip = 20*time.Second + 1 }, "the Date of a took 20.000000001s"},
		{"negative", func(s *Sample) { s.RoundTrip = -1 }, "too little"},
		{"before the build", func(s *Sample) { s.Date = build.Add(-25 * time.Hour) },
			"a says that it is 2026-11-19T11:00:00Z, which cannot be"},
		{"twenty years later", func(s *Sample) { s.Date = build.AddDate(20, 0, 0) }, "which cannot be"},
		{"no date", func(s *Sample) { s.Date = time.Time{} }, "which cannot be"},
		{"before its certificate", func(s *Sample) { s.Date = s.NotBefore.Add(-time.Second) },
			"when its own certificate is not valid"},
		{"after its certificate", func(s *Sample) { s.Date = s.NotAfter.Add(time.Second) },
			"when its own certificate is not valid"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, _, _ := newClock(epoch, Unsynchronised)
			s := valid
			test.change(&s)
			err := c.Observe(s)
			if test.want == "" {
				if err != nil || c.State().Kind != Corrected {
					t.Errorf("%v, %s", err, c.State().Kind)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || c.State().Kind != Wrong {
				t.Errorf("%v, %s; want %q", err, c.State().Kind, test.want)
			}
		})
	}
}

// Half a second, since Date is cut off, and half of the round trip are added.
func TestOffsetOfASample(t *testing.T) {
	c, sys, _ := newClock(today, Unsynchronised)
	s := Sample{Source: "a", Trust: Authentic, Date: today.Add(time.Hour), RoundTrip: 4 * time.Second}
	if err := c.Observe(s); err != nil {
		t.Fatal(err)
	}
	wall, _ := sys.read()
	if got := c.Now().Sub(wall); got != time.Hour+2500*time.Millisecond {
		t.Errorf("corrected by %s", got)
	}
}

func TestSourcesAreBounded(t *testing.T) {
	c, sys, _ := newClock(today, Unsynchronised)
	for i := range maxSources + 10 {
		hear(t, c, sys, fmt.Sprint(i), Authentic, 0)
		sys.pass(time.Second)
	}
	if _, oldest := c.samples[origin{"9", Authentic}]; len(c.samples) != maxSources || oldest {
		t.Errorf("%d sources are remembered, of the tenth: %t", len(c.samples), oldest)
	}
}

func TestFromResponse(t *testing.T) {
	const date = "Mon, 01 Mar 2027 08:30:00 GMT"
	day := 24 * time.Hour
	chain := []*x509.Certificate{
		{NotBefore: today.Add(-day), NotAfter: today.Add(90 * day)},
		{NotBefore: today.Add(-900 * day), NotAfter: today.Add(30 * day)},
	}
	tests := []struct {
		name   string
		header http.Header
		conn   *tls.ConnectionState
		want   Sample
		ok     bool
	}{
		{"in the clear", http.Header{"Date": {date}}, nil, Sample{Source: "a", Date: today, RoundTrip: 1}, true},
		{"not verified", http.Header{"Date": {date}}, &tls.ConnectionState{}, Sample{Source: "a", Date: today, RoundTrip: 1},
			true},
		{"over TLS", http.Header{"Date": {date}}, &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{chain}},
			Sample{"a", Authentic, today, 1, today.Add(-day), today.Add(30 * day)}, true},
		{"age 0", http.Header{"Date": {date}, "Age": {"0"}}, nil, Sample{Source: "a", Date: today, RoundTrip: 1}, true},
		{"from a cache", http.Header{"Date": {date}, "Age": {"7"}}, nil, Sample{}, false},
		{"none", http.Header{}, nil, Sample{}, false},
		{"nonsense", http.Header{"Date": {"yesterday"}}, nil, Sample{}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, ok := FromResponse("a", test.header, test.conn, 1); got != test.want || ok != test.ok {
				t.Errorf("%+v, %t; want %+v, %t", got, ok, test.want, test.ok)
			}
		})
	}
}

// Whatever somebody sends, the time stays plausible.
func FuzzDate(f *testing.F) {
	f.Add("Mon, 01 Mar 2027 08:30:00 GMT", "", int64(time.Second))
	f.Add("Monday, 01-Mar-70 08:30:00 GMT", "0", int64(0))
	f.Add("Mon Mar  1 08:30:00 9999", "", int64(-1))
	f.Fuzz(func(t *testing.T, date, age string, roundTrip int64) {
		for _, wall := range []time.Time{epoch, today} {
			c, sys, _ := newClock(wall, Unsynchronised)
			h := http.Header{"Date": {date}, "Age": {age}}
			s, ok := FromResponse("a", h, nil, time.Duration(roundTrip))
			if !ok {
				return
			}
			s.Trust = Authentic
			if err := c.Observe(s); err != nil {
				if now, _ := sys.read(); !c.Now().Equal(now) {
					t.Errorf("%s was refused and used", s.Date)
				}
				return
			}
			if now := c.Now(); now.Before(build.AddDate(0, 0, -1)) || now.After(build.AddDate(20, 0, 1)) {
				t.Errorf("%q makes it %s", date, now)
			}
		}
	})
}
