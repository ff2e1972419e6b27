package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bridged/internal/failure"
	"bridged/internal/transport"
)

// reach makes the WebSocket connection and reports the stages on the way. It returns nil if there is none.
func (w *walk) reach(ctx context.Context) *session {
	tr := new(transport.Trace)
	tr.Step = func(t transport.Step) { w.seen(tr, t) }
	w.target.Trace = tr
	ws, nc, err := w.dialer.Dial(ctx, w.target)
	w.keep(tr)
	if err != nil {
		f := asFailure(err)
		stage := stages[f.Stage]
		if f.Kind == failure.ProxyConfig {
			stage = Proxy
		}
		if n := len(tr.Steps); n == 0 || tr.Steps[n-1].Failure == nil { // it came before a stage
			w.add(Step{Stage: stage, Status: Failed, Summary: f.Error()})
		}
		w.fail(stage, f)
		return nil
	}
	return newSession(ws, nc, w.d.opts.patience)
}

// seen reports a stage of Dial.
func (w *walk) seen(tr *transport.Trace, t transport.Step) {
	s := Step{Stage: stages[t.Stage], Status: OK, Seconds: t.End.Sub(t.Begin).Seconds()}
	switch t.Stage {
	case failure.StageDNS:
		w.dns(&s, tr)
	case failure.StageTCP:
		w.tcp(&s, tr)
	case failure.StageProxy:
		w.proxy(&s, tr)
	case failure.StageTLS:
		w.tls(&s, tr)
	case failure.StageUpgrade:
		w.upgrade(&s, tr)
	}
	if t.Failure != nil {
		s.Status, s.Summary = Failed, t.Failure.Error()
	}
	w.add(s)
}

func (w *walk) dns(s *Step, tr *transport.Trace) {
	host := w.dev.Cloud.URL.Hostname()
	switch {
	case tr.Proxy == "" && w.dev.Cloud.Proxy.Env():
		note(s, false, "no proxy: the environment of this shell names none; that of the service may be another")
	case tr.Proxy == "":
		note(s, false, "no proxy: the configuration says so")
	default:
		host = "the proxy's name"
		note(s, false, "proxy %s, from %s", tr.Proxy, proxyFrom(tr))
	}
	s.Summary = host + " is " + strings.Join(texts(tr.Names), ", ")
	if _, err := netip.ParseAddr(host); err == nil {
		s.Summary = host + " is an address"
	}
}

// proxyFrom says where the proxy setting comes from. An environment may differ from that of the service.
func proxyFrom(tr *transport.Trace) string {
	if tr.ProxyVariable != "" {
		return tr.ProxyVariable + " in the environment of this shell; that of the service may be another"
	}
	return "the configuration"
}

func (w *walk) tcp(s *Step, tr *transport.Trace) {
	s.Summary = "connected to " + tr.Remote.String()
	if tr.Proxy != "" {
		s.Summary += ", the proxy"
	}
	if len(tr.Tries) == 1 { // the summary says it
		return
	}
	for _, t := range tr.Tries {
		how := "connected"
		if t.Err != nil {
			how = failure.Clean(t.Err.Error())
		}
		note(s, false, "%s, after %s: %s", t.Address, brief(t.End.Sub(t.Begin)), how)
	}
}

func brief(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func (w *walk) proxy(s *Step, tr *transport.Trace) {
	s.Summary = fmt.Sprintf("%s connects to %s", tr.Proxy, w.dev.Cloud.URL.Host)
	if tr.ProxyReply != "" {
		note(s, false, "it says: %s", failure.Clean(tr.ProxyReply))
	}
	if tr.ProxyTLS != nil {
		w.handshake(s, tr.ProxyTLS)
	}
}

func (w *walk) tls(s *Step, tr *transport.Trace) {
	t := tr.TLS
	if t == nil {
		return
	}
	s.Summary = fmt.Sprintf("%s, %s", t.Version, t.ServerName)
	w.handshake(s, t)
	if n := len(w.dev.Cloud.TLS.Pins); n > 0 && t.Version != "" {
		note(s, false, "one of the %d keys of tls.pins is in the chain", n)
	}
	switch {
	case t.CertificateShown:
		note(s, false, "the cloud asked for a client certificate, and was shown one")
	case t.CertificateAsked:
		note(s, false, "the cloud asked for a client certificate; this device has none")
	case w.target.Certificate != nil:
		note(s, false, "the cloud did not ask for the client certificate")
	}
}

// handshake tells of a chain of certificates.
func (w *walk) handshake(s *Step, t *transport.TLSTrace) {
	now := w.d.clock.Now()
	if t.Version != "" {
		how := ""
		if t.Resumed {
			how = ", resumed"
		}
		note(s, false, "%s, %s%s", t.Version, t.Cipher, how)
	}
	for i, c := range t.Chain {
		left := c.DaysLeft(now)
		names := ""
		if i == 0 && len(c.Names) > 0 {
			names = " for " + failure.Clean(strings.Join(c.Names, ", "))
		}
		note(s, left < soon, "certificate %s%s, by %s, until %s: %s", failure.Clean(c.Subject), names,
			failure.Clean(c.Issuer), c.NotAfter.UTC().Format(time.DateOnly), daysLeft(left))
	}
}

func (w *walk) upgrade(s *Step, tr *transport.Trace) {
	s.Summary = fmt.Sprintf("HTTP %d %s", tr.Status, http.StatusText(tr.Status))
	names := make([]string, 0, len(tr.Header))
	for name := range tr.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		note(s, false, "%s: %s", name, strings.Join(tr.Header[name], ", "))
	}
	for _, n := range tr.Notes {
		note(s, false, "%s", n)
	}
	for _, d := range tr.Dates {
		offset, uncertainty := d.Offset()
		note(s, offset.Abs() > uncertainty+tolerance, "by the time of %s the gateway's clock is %s (±%s)", d.Host,
			behind(offset), uncertainty.Round(100*time.Millisecond))
	}
}

// tolerance is how far the clock may be off without a warning. Clouds take some minutes.
const tolerance = time.Minute

func behind(offset time.Duration) string {
	switch d := offset.Abs().Round(100 * time.Millisecond); {
	case d < time.Second:
		return "right"
	case offset < 0:
		return d.String() + " ahead"
	default:
		return d.String() + " behind"
	}
}

// keep puts what happened into the report.
func (w *walk) keep(tr *transport.Trace) {
	r, now := w.report, w.d.clock.Now()
	r.Proxy, r.ProxyVariable, r.Addresses = tr.Proxy, tr.ProxyVariable, texts(tr.Names)
	for _, t := range tr.Tries {
		try := Try{Address: t.Address.String(), Seconds: t.End.Sub(t.Begin).Seconds()}
		if t.Err != nil {
			try.Error = failure.Clean(t.Err.Error())
		}
		r.Tries = append(r.Tries, try)
	}
	r.TLS, r.ProxyTLS = tlsInfo(tr.TLS, w.dev.Cloud.TLS.Pins, now), tlsInfo(tr.ProxyTLS, nil, now)
	r.HTTPStatus, r.Headers = tr.Status, tr.Header
	for _, d := range tr.Dates { // the cloud's comes last
		offset, uncertainty := d.Offset()
		seconds := offset.Seconds()
		r.Clock.Offset, r.Clock.Uncertainty, r.Clock.Source = &seconds, uncertainty.Seconds(), d.Host
	}
	r.Clock.State = string(w.d.clock.State().Kind)
}

func texts(addrs []netip.Addr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}
