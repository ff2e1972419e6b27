package netns

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// cloudName is what the DNS server knows.
const cloudName = "cloud.test"

// dns is a DNS server with one name.
type dns struct {
	tb   testing.TB
	conf string // a resolv.conf
	conn net.PacketConn

	mu   sync.Mutex // protects the following field
	says says
}

// says is what the server answers.
type says struct {
	code   dnsmessage.RCode
	silent bool // answers nothing
	a      string
	aaaa   string // "" for none
	deaf6  bool   // does not answer when it is asked for IPv6
}

// unknown is that the name does not exist.
var unknown = says{code: dnsmessage.RCodeNameError}

// newDNS starts a server at one end of a link, for those who use it from the other. options are resolv.conf's.
func newDNS(tb testing.TB, at end, options string) *dns {
	tb.Helper()
	d := &dns{tb: tb, conf: filepath.Join(tb.TempDir(), "resolv.conf"), says: unknown}
	conf := "nameserver " + at.v4 + "\noptions " + options + "\n"
	if err := os.WriteFile(d.conf, []byte(conf), 0o644); err != nil {
		tb.Fatal(err)
	}
	at.space.do(func() {
		var err error
		if d.conn, err = net.ListenPacket("udp", net.JoinHostPort(at.v4, "53")); err != nil {
			tb.Fatal(err)
		}
	})
	var serving sync.WaitGroup
	serving.Go(d.serve)
	tb.Cleanup(func() {
		if err := d.conn.Close(); err != nil {
			tb.Error(err)
		}
		serving.Wait()
	})
	return d
}

// set has it say something else from now on.
func (d *dns) set(s says) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.says = s
}

func (d *dns) serve() {
	buf := make([]byte, 1<<12)
	for {
		n, from, err := d.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var query dnsmessage.Message
		if err := query.Unpack(buf[:n]); err != nil || len(query.Questions) != 1 {
			d.tb.Errorf("not a query: %v", err)
			continue
		}
		if answer, ok := d.answer(query); ok {
			_, _ = d.conn.WriteTo(answer, from) // who asked asks again
		}
	}
}

func (d *dns) answer(query dnsmessage.Message) (answer []byte, ok bool) {
	d.mu.Lock()
	s := d.says
	d.mu.Unlock()
	q := query.Questions[0]
	if s.silent || s.deaf6 && q.Type == dnsmessage.TypeAAAA {
		return nil, false
	}
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: query.ID, Response: true, Authoritative: true, RecursionDesired: query.RecursionDesired,
			RecursionAvailable: true, RCode: s.code,
		},
		Questions: query.Questions,
	}
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}
	switch {
	case s.code != dnsmessage.RCodeSuccess:
	case q.Name.String() != cloudName+".":
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA && s.a != "":
		body := &dnsmessage.AResource{A: netip.MustParseAddr(s.a).As4()}
		m.Answers = []dnsmessage.Resource{{Header: header, Body: body}}
	case q.Type == dnsmessage.TypeAAAA && s.aaaa != "":
		body := &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(s.aaaa).As16()}
		m.Answers = []dnsmessage.Resource{{Header: header, Body: body}}
	}
	answer, err := m.Pack()
	if err != nil {
		d.tb.Error(err)
	}
	return answer, err == nil
}
