package transport

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"bridged/internal/failure"
)

var quiet = log.New(io.Discard, "", 0)

// nameserver is a DNS server with a zone that tests change.
type nameserver struct {
	addr    string
	queries atomic.Int64

	mu   sync.Mutex
	zone map[string]entry
}

// entry is what there is about a name.
type entry struct {
	addrs  []string
	rcode  dnsmessage.RCode
	drop   bool // no answer
	dropV6 bool // no answer about IPv6
}

func newNameserver(t testing.TB) *nameserver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameserver{addr: pc.LocalAddr().String(), zone: make(map[string]entry)}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			s.queries.Add(1)
			if reply := s.reply(buf[:n]); reply != nil {
				_, _ = pc.WriteTo(reply, from) // the test notices
			}
		}
	})
	t.Cleanup(func() {
		_ = pc.Close()
		wg.Wait()
	})
	return s
}

func (s *nameserver) set(name string, e entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone[name] = e
}

// resolver asks this server for everything.
func (s *nameserver) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.addr)
	}}
}

func (s *nameserver) reply(query []byte) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	s.mu.Lock()
	e, ok := s.zone[strings.TrimSuffix(q.Name.String(), ".")]
	s.mu.Unlock()
	v6 := q.Type == dnsmessage.TypeAAAA
	if e.drop || e.dropV6 && v6 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals, m.RCode = true, true, nil, e.rcode
	if !ok {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range e.addrs {
		ip := netip.MustParseAddr(a)
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 3600}
		switch {
		case ip.Is6() && v6:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		case ip.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: ip.As4()}})
		}
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}

func portOf(t testing.TB, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Names end with a dot in these tests, so that the machine's search domains are left out.

func TestDNSFailures(t *testing.T) {
	ns := newNameserver(t)
	ns.set("broken.test", entry{rcode: dnsmessage.RCodeServerFailure})
	ns.set("refused.test", entry{rcode: dnsmessage.RCodeRefused})
	ns.set("silent.test", entry{drop: true})
	ns.set("empty.test", entry{})
	ns.set("half.test", entry{rcode: dnsmessage.RCodeNameError, dropV6: true})
	for name, kind := range map[string]failure.Kind{
		"nowhere.test.": failure.DNSNotFound, "empty.test.": failure.DNSNotFound,
		"broken.test.": failure.DNSFailed, "refused.test.": failure.DNSFailed, "silent.test.": failure.DNSTimeout,
		"half.test.": failure.DNSTimeout,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDialer(t, Options{Resolver: ns.resolver(), Timeouts: brief(kind)})
			fails(t, d, at("ws", name+":80"), kind, failure.StageDNS)
		})
	}
}

func TestNoNameserver(t *testing.T) {
	l := listen(t)
	d := newDialer(t, Options{Resolver: &net.Resolver{Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no network yet")
	}}})
	says(t, fails(t, d, at("ws", "cloud.test.:80"), failure.DNSFailed, failure.StageDNS), "no network yet")
	_ = l.Close() // only for its port number
}

// Each attempt asks anew, so that a name that fails recovers with the next attempt, and a changed address is used.
func TestEachAttemptResolves(t *testing.T) {
	u := serve(t, echo("mqtt"), nil)
	ns := newNameserver(t)
	d := newDialer(t, Options{Resolver: ns.resolver()})
	target := at("ws", "cloud.test.:"+u.Port())
	fails(t, d, target, failure.DNSNotFound, failure.StageDNS)
	ns.set("cloud.test", entry{rcode: dnsmessage.RCodeServerFailure})
	fails(t, d, target, failure.DNSFailed, failure.StageDNS)
	ns.set("cloud.test", entry{addrs: []string{"127.0.0.1"}})
	connects(t, d, target)
	before := ns.queries.Load()
	connects(t, d, target)
	if asked := ns.queries.Load() - before; asked != 2 {
		t.Errorf("%d queries for an attempt, want 2", asked)
	}
	ns.set("cloud.test", entry{addrs: []string{"127.0.0.99"}})
	fails(t, d, target, failure.Refused, failure.StageTCP)
}

// A DNS server that drops queries for IPv6 addresses does not delay IPv4.
func TestDroppedAAAA(t *testing.T) {
	u := serve(t, echo("mqtt"), nil)
	ns := newNameserver(t)
	ns.set("cloud.test", entry{addrs: []string{"127.0.0.1"}, dropV6: true})
	d := newDialer(t, Options{Resolver: ns.resolver()})
	begin := time.Now()
	connects(t, d, at("ws", "cloud.test.:"+u.Port()))
	if took := time.Since(begin); took > 4*time.Second { // the resolver's own timeout is 5 s
		t.Errorf("took %s", took)
	}
}

// What is called off ends at once, the resolver's goroutines soon after: goleak sees it.
func TestCancelledLookup(t *testing.T) {
	ns := newNameserver(t)
	ns.set("silent.test", entry{drop: true})
	d := newDialer(t, Options{Resolver: ns.resolver()})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ns.queries.Load() < 2 {
			<-time.After(time.Millisecond)
		}
		cancel()
	}()
	before := goleak.IgnoreCurrent()
	failsWith(ctx, t, d, at("ws", "silent.test.:80"), failure.Cancelled, failure.StageDNS)
	goleak.VerifyNone(t, before) // it is patient, but less than the resolver
}

// IPv6 does not wait for IPv4; the other way round, a little.
func TestResolutionDelay(t *testing.T) {
	v4, v6 := answer{addrs: []netip.Addr{loop4}}, answer{v6: true, addrs: []netip.Addr{loop6}}
	no4, no6 := answer{err: io.EOF}, answer{v6: true, err: io.EOF}
	type late struct {
		after time.Duration
		answer
	}
	const never = time.Hour
	for name, tc := range map[string]struct {
		answers []late
		got     int
		after   time.Duration
	}{
		"IPv6 only":       {[]late{{0, v6}, {never, v4}}, 1, 0},
		"IPv4 only":       {[]late{{0, v4}, {never, v6}}, 1, resolutionDelay},
		"IPv4 first":      {[]late{{0, v4}, {20 * time.Millisecond, v6}}, 2, 20 * time.Millisecond},
		"IPv4, and no":    {[]late{{0, v4}, {20 * time.Millisecond, no6}}, 2, 20 * time.Millisecond},
		"no, and IPv4":    {[]late{{0, no6}, {20 * time.Millisecond, v4}}, 2, 20 * time.Millisecond},
		"no, and no":      {[]late{{0, no4}, {20 * time.Millisecond, no6}}, 2, 20 * time.Millisecond},
		"IPv4 much later": {[]late{{0, no6}, {time.Second, v4}}, 2, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := make(chan answer, 2)
				for _, a := range tc.answers {
					time.AfterFunc(a.after, func() { out <- a.answer })
				}
				begin := time.Now()
				got, pending, err := firstAnswers(t.Context(), out)
				if len(got) != tc.got || pending != 2-tc.got || time.Since(begin) != tc.after ||
					(err != nil) != (name == "no, and no") {
					t.Errorf("%v, %d pending, %v after %s", got, pending, err, time.Since(begin))
				}
			})
		})
	}
}

func TestWorseDNS(t *testing.T) {
	missing, broken := &net.DNSError{IsNotFound: true}, &net.DNSError{IsTemporary: true}
	for _, tc := range []struct{ v4, v6, want error }{
		{missing, missing, missing}, {missing, broken, missing}, {broken, missing, broken}, {broken, broken, broken},
	} {
		v4, v6 := answer{err: tc.v4}, answer{v6: true, err: tc.v6}
		for _, got := range [][]answer{{v4, v6}, {v6, v4}} {
			if err := worseDNS(got); !errors.Is(err, tc.want) || dnsKind(err) != dnsKind(tc.want) {
				t.Errorf("IPv4 %+v, IPv6 %+v: %+v", tc.v4, tc.v6, err)
			}
		}
	}
}
