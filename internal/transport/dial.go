package transport

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/gorilla/websocket"

	"bridged/internal/failure"
	"bridged/internal/netconn"
)

// sendLimit bounds what waits for the cloud. A message of the largest size, acknowledgements and pings fit.
const sendLimit = 32 << 20

// attempt is one Dial.
type attempt struct {
	d     *Dialer
	url   *url.URL
	pair  *KeyPair
	trace *Trace // may be nil
	nc    *netconn.Conn
	// at is when to verify the cloud's certificate, and the proxy's, if not by the clock; see Options.VerifyTime.
	at, proxyAt time.Time
}

// Dial connects. The error is a *failure.Failure. When ctx ends, so does Dial at once; the failure is of the kind
// Cancelled then, unless it was ctx's deadline.
func (d *Dialer) Dial(ctx context.Context, t Target) (*websocket.Conn, *netconn.Conn, error) {
	all, cancel := context.WithTimeout(ctx, d.timeouts.All)
	defer cancel()
	a := &attempt{d: d, url: t.URL, pair: t.Certificate, trace: t.Trace}
	if a.trace != nil {
		*a.trace = Trace{Step: a.trace.Step}
	}
	ws, f := a.run(all)
	for f != nil && a.otherTime(f) { // once for the proxy and once for the cloud at most
		a.hangUp()
		ws, f = a.run(all)
	}
	if f != nil {
		a.hangUp()
		return nil, nil, f
	}
	return ws, a.nc, nil
}

// hangUp ends the connection of an attempt that failed.
func (a *attempt) hangUp() {
	if a.nc != nil {
		_ = a.nc.Close() // it failed already
		a.nc.Wait()
		a.nc = nil
	}
}

// otherTime says whether to connect once more and verify certificates at another time, after this failure.
func (a *attempt) otherTime(f *failure.Failure) bool {
	at := &a.at
	switch {
	case a.d.opts.VerifyTime == nil:
		return false
	case f.Kind == failure.ProxyTLS:
		at = &a.proxyAt
	case f.Kind != failure.TLSExpired && f.Kind != failure.TLSNotYetValid:
		return false
	}
	t, ok := a.d.opts.VerifyTime(f.Err)
	if !ok || !at.IsZero() {
		return false
	}
	*at = t
	a.note("certificates are verified as of " + t.UTC().Format(time.DateOnly) + ", since the clock cannot be right")
	return true
}

func (a *attempt) run(ctx context.Context) (*websocket.Conn, *failure.Failure) {
	if err := ctx.Err(); err != nil {
		return nil, failure.New(failure.Cancelled, failure.StageConfig, err, "")
	}
	host, port, v, f := a.route()
	if f != nil {
		return nil, f
	}
	conn, f := a.reach(ctx, host, port, v)
	if f != nil {
		return nil, f
	}
	// Whatever the stages wait for, the end of ctx ends it.
	nc := a.nc
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	var s *secured
	if a.url.Scheme == "wss" {
		f = a.stage(ctx, failure.StageTLS, a.d.timeouts.TLS, func(ctx context.Context) (f *failure.Failure) {
			s, f = a.secure(ctx, conn, a.d.tls, host, a.at, a.pair, a.tlsTrace(false))
			return f
		})
		if f != nil {
			return nil, f
		}
		state := s.ConnectionState()
		a.d.expires.Store(expires(&state).Unix())
		conn = s
	}
	var ws *websocket.Conn
	f = a.stage(ctx, failure.StageUpgrade, a.d.timeouts.Upgrade, func(ctx context.Context) (f *failure.Failure) {
		ws, f = a.upgrade(ctx, conn, s)
		return f
	})
	if f == nil && !stop() {
		f = failure.New(failure.Cancelled, failure.StageUpgrade, ctx.Err(), "")
	}
	return ws, f
}

// route says where to go, and by which proxy.
func (a *attempt) route() (host string, port uint16, v *via, f *failure.Failure) {
	host, digits := address(a.url)
	port, err := portNumber(digits)
	if err == nil && (host == "" || !validHost(host)) {
		err = errors.New("its host is neither a name nor an address")
	}
	if err != nil || a.url.Scheme != "ws" && a.url.Scheme != "wss" {
		return "", 0, nil, failure.New(failure.Settings, failure.StageConfig, err, "url is not ws:// or wss:// with a host")
	}
	if v, err = a.d.proxy(a.url); err != nil {
		return "", 0, nil, failure.New(failure.ProxyConfig, failure.StageConfig, err, "")
	}
	if v != nil && a.trace != nil {
		a.trace.Proxy, a.trace.ProxyVariable = v.url(), v.variable
	}
	return host, port, v, nil
}

// reach makes the connection on which the cloud itself answers.
func (a *attempt) reach(ctx context.Context, host string, port uint16, v *via) (net.Conn, *failure.Failure) {
	if v == nil {
		if f := a.connect(ctx, host, port, false); f != nil {
			return nil, f
		}
		return a.nc, nil
	}
	proxyPort, err := portNumber(v.port)
	if err != nil {
		return nil, failure.New(failure.ProxyConfig, failure.StageConfig, err, "")
	}
	if f := a.connect(ctx, v.host, proxyPort, true); f != nil {
		return nil, f
	}
	var conn net.Conn
	f := a.stage(ctx, failure.StageProxy, a.d.timeouts.Proxy, func(ctx context.Context) (f *failure.Failure) {
		conn, f = a.through(ctx, v, host, port)
		return f
	})
	return conn, f
}

// through has the proxy connect to the cloud.
func (a *attempt) through(ctx context.Context, v *via, host string, port uint16) (net.Conn, *failure.Failure) {
	nc := a.nc
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	if v.scheme == "socks5" {
		return a.nc, a.socksConnect(a.nc, v, host, port)
	}
	var conn net.Conn = a.nc
	if v.scheme == "https" {
		s, f := a.secure(ctx, conn, a.d.proxyTLS, v.host, a.proxyAt, nil, a.tlsTrace(true))
		if f != nil {
			return nil, asProxy(f)
		}
		conn = s
	}
	_, digits := address(a.url)
	return a.httpConnect(conn, v, host, digits)
}

// connect resolves a name and makes the TCP connection, to the cloud or to the proxy.
func (a *attempt) connect(ctx context.Context, host string, port uint16, proxy bool) *failure.Failure {
	ctx, cancel := context.WithCancel(ctx) // ends a lookup that is not needed any more
	defer cancel()
	answers := a.d.lookup(ctx, host)
	var got []answer
	var pending int
	f := a.stage(ctx, failure.StageDNS, a.d.timeouts.DNS, func(ctx context.Context) *failure.Failure {
		var err error
		if got, pending, err = firstAnswers(ctx, answers); err != nil {
			if proxy {
				return failure.New(failure.ProxyDNS, failure.StageDNS, err, "")
			}
			return failure.New(dnsKind(err), failure.StageDNS, err, "")
		}
		a.named(got)
		return nil
	})
	if f != nil {
		return f
	}
	return a.stage(ctx, failure.StageTCP, a.d.timeouts.TCP, func(ctx context.Context) *failure.Failure {
		r := newRace(got, pending, answers, port)
		tcp, err := r.run(ctx)
		if err == nil {
			a.nc, err = netconn.New(tcp, netconn.Options{Limit: sendLimit, Stall: a.d.opts.Stall})
		}
		a.raced(r)
		switch {
		case err != nil && proxy:
			return failure.New(failure.ProxyUnreachable, failure.StageTCP, err, "")
		case err != nil:
			return failure.New(connectKind(err), failure.StageTCP, err, "")
		}
		return nil
	})
}

// stage runs a stage within its time. It sees to it that running out of time, or being called off, is called that,
// whatever it looked like to the stage.
func (a *attempt) stage(ctx context.Context, name failure.Stage, within time.Duration,
	run func(context.Context) *failure.Failure,
) *failure.Failure {
	begin := time.Now()
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if deadline, ok := limited.Deadline(); ok && a.nc != nil {
		_ = a.nc.SetReadDeadline(deadline) // fails only on a closed connection, as reading will
	}
	f := run(limited)
	if f != nil {
		err := ctx.Err() // it is set first
		if err == nil {
			err = limited.Err()
		}
		switch {
		case errors.Is(err, context.Canceled):
			f = failure.New(failure.Cancelled, f.Stage, err, "")
		case err != nil && f.Err != nil: // otherwise the other side said why
			f = failure.New(lateKind(f), f.Stage, f.Err, "%s", f.Detail)
		}
	}
	if a.trace != nil {
		step := Step{Stage: name, Begin: begin, End: time.Now(), Failure: f}
		a.trace.Steps = append(a.trace.Steps, step)
		if a.trace.Step != nil {
			a.trace.Step(step)
		}
	}
	return f
}

// lateKind is the kind of a failure that came because time ran out.
func lateKind(f *failure.Failure) failure.Kind {
	switch f.Stage {
	case failure.StageDNS:
		if f.Kind == failure.ProxyDNS {
			return f.Kind
		}
		return failure.DNSTimeout
	case failure.StageTCP:
		if f.Kind == failure.ProxyUnreachable {
			return f.Kind
		}
		return failure.Timeout
	case failure.StageProxy:
		return failure.ProxyNoAnswer
	}
	return failure.NoAnswer
}

// What follows fills the trace, if there is one.

func (a *attempt) tlsTrace(proxy bool) **TLSTrace {
	switch {
	case a.trace == nil:
		return nil
	case proxy:
		return &a.trace.ProxyTLS
	}
	return &a.trace.TLS
}

func (a *attempt) note(s string) {
	if a.trace != nil {
		a.trace.Notes = append(a.trace.Notes, s)
	}
}

// named is told the first answers of DNS; all of them are known after the race.
func (a *attempt) named(got []answer) {
	if a.trace == nil {
		return
	}
	for _, g := range got {
		a.trace.Names = append(a.trace.Names, g.addrs...)
	}
}

func (a *attempt) raced(r *race) {
	if a.trace == nil {
		return
	}
	a.trace.Names, a.trace.Tries = r.names, r.tries
	if a.nc != nil {
		a.trace.Local, a.trace.Remote = addrPort(a.nc.LocalAddr()), addrPort(a.nc.RemoteAddr())
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// date passes on what time the other side says it is. s is nil for what came in the clear.
func (a *attempt) date(d Date, h http.Header, s *secured) {
	said, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return
	}
	d.Said, d.Verified = said, s != nil
	if a.trace != nil {
		a.trace.Dates = append(a.trace.Dates, d)
	}
	if a.d.opts.OnDate == nil {
		return
	}
	d.Header = h
	if s != nil {
		state := s.ConnectionState()
		d.TLS = &state
	}
	a.d.opts.OnDate(d)
}
