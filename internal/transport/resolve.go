package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"bridged/internal/failure"
)

// Names are resolved for both address families at once, with a query each. Go's own dialer waits for the slower of the
// two answers before it connects: where a DNS server drops queries for IPv6 addresses, as many small ones do, each
// dial would take 10 s longer.

// resolutionDelay is how long IPv4 waits for IPv6 when it was first (RFC 8305, 3).
const resolutionDelay = 50 * time.Millisecond

// answer is what DNS said for an address family.
type answer struct {
	v6    bool
	addrs []netip.Addr
	err   error
}

// lookup asks for both families. Both answers come; the channel has room for them.
func (d *Dialer) lookup(ctx context.Context, host string) <-chan answer {
	out := make(chan answer, 2)
	if ip, err := netip.ParseAddr(host); err == nil {
		out <- answer{v6: ip.Is6(), addrs: []netip.Addr{ip}}
		out <- answer{v6: !ip.Is6()}
		return out
	}
	ask := func(network string, v6 bool) {
		addrs, err := d.resolver.LookupNetIP(ctx, network, host)
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		out <- answer{v6: v6, addrs: addrs, err: err}
	}
	go ask("ip4", false)
	go ask("ip6", true)
	return out
}

// firstAnswers waits until there is an address to begin with. pending is how many answers are still to come.
func firstAnswers(ctx context.Context, answers <-chan answer) (got []answer, pending int, err error) {
	var delay <-chan time.Time
	for pending = 2; pending > 0; {
		select {
		case a := <-answers:
			got, pending = append(got, a), pending-1
			if len(a.addrs) == 0 {
				continue
			}
			if a.v6 || len(got) == 2 {
				return got, pending, nil
			}
			t := time.NewTimer(resolutionDelay)
			defer t.Stop()
			delay = t.C
		case <-delay:
			return got, pending, nil
		case <-ctx.Done():
			return got, pending, ctx.Err()
		}
	}
	for _, a := range got {
		if len(a.addrs) > 0 {
			return got, 0, nil
		}
	}
	return got, 0, worseDNS(got)
}

// worseDNS is the error to report of two. That IPv4 has no such name counts: DNS servers that do not know about IPv6
// answer for that in various ways.
func worseDNS(got []answer) error {
	for _, a := range got {
		if !a.v6 && notFound(a.err) {
			return a.err
		}
	}
	for _, a := range got {
		if a.err != nil && !notFound(a.err) {
			return a.err
		}
	}
	return got[0].err
}

func notFound(err error) bool {
	var dns *net.DNSError
	var addr *net.AddrError // the hosts file has an address of the other family
	return errors.As(err, &dns) && dns.IsNotFound || errors.As(err, &addr)
}

// dnsKind tells apart why a name was not resolved.
func dnsKind(err error) failure.Kind {
	var dns *net.DNSError
	switch {
	case notFound(err):
		return failure.DNSNotFound
	case errors.As(err, &dns) && dns.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return failure.DNSTimeout
	}
	return failure.DNSFailed
}

// newResolver returns Go's resolver, which, unlike the C library's, can be interrupted, and asks anew each time.
func newResolver(base *net.Resolver) *net.Resolver {
	r := net.Resolver{PreferGo: true}
	dial := new(net.Dialer).DialContext
	if base != nil {
		r.StrictErrors = base.StrictErrors
		if base.Dial != nil {
			dial = base.Dial
		}
	}
	r.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// The resolver itself waits for its own timeout only. It ends ctx when it is done with the connection, too.
		context.AfterFunc(ctx, func() { _ = c.SetDeadline(longAgo) })
		return c, nil
	}
	return &r
}

var longAgo = time.Unix(1, 0)
